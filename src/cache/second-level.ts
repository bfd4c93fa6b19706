import { setTimeout as delay } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { ByteSource } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import { isManifestDigest } from '../oci/schema1.ts';
import type { BlobSink } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type BlobTier, MissingObject, WrongObject } from './blob-tier.ts';
import { Breaker, LeftAlone } from './breaker.ts';
import type { FoundObject, Giver, ObjectIndex, ObjectKind } from './object-index.ts';
import { download } from './tier-download.ts';

/** Digests whose bytes in the store were wrong; more than any store should ever have. */
const MAX_WRONG = 1_000;
/** How long an answer of the index, or of the store that it has an object, is believed, ms. Both are less than the grace of `StoreKeeper`. */
const FOUND_FOR = 30_000;
const SEEN_FOR = 5 * 60_000;
const MAX_FOUND = 10_000;
/** A pull waits so long, ms, for an answer of the store or of its index: its registry would mostly have answered by then. */
const ANSWER_WITHIN = 2_000;
/** What no pull waits for may take so long, ms. */
const WRITTEN_WITHIN = 15_000;
/** Larger manifests than registries take are none. */
const MAX_MANIFEST = 8 * 1024 * 1024;
/** Times of use are written so often, ms; a crash loses them. */
const TOUCH_INTERVAL = 60_000;
const MAX_TOUCHED = 10_000;
/** Denials that the index could not be told yet are tried again so often, ms; more than these are not waited for. */
const DENIAL_RETRY = 5_000;
const MAX_DENIALS = 10_000;
/**
 * A giver that was denied is not believed for so long, ms, whatever the index says: another gateway may be slower to tell the index of a denial than the
 * others, and what the index said a moment before may still be on its way. What it gives again here this gateway knows by itself.
 */
const VOID_FOR = 2 * 60_000;
/** How long a client may wait before it follows a redirect, seconds: the time of a queue of downloads. */
const LINK_SECONDS = 15 * 60;

export interface SecondLevelOptions {
  readonly tier: BlobTier;
  readonly objects: ObjectIndex;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** The second level as the cache uses it: a failure of the store or of its index is logged once, and is otherwise the same as a miss. */
export class SecondLevel {
  readonly tier: BlobTier;
  readonly objects: ObjectIndex;
  readonly store: Breaker;
  readonly #index: Breaker;
  readonly #log: Logger;
  readonly #wrong = new LRUCache<Digest, true>({ max: MAX_WRONG });
  readonly #found = new LRUCache<Digest, { readonly found: FoundObject | null }>({ max: MAX_FOUND, ttl: FOUND_FOR });
  readonly #seen = new LRUCache<Digest, number>({ max: MAX_FOUND, ttl: SEEN_FOR });
  /** Givers, and digests of them, that were denied a moment ago. */
  readonly #void = new LRUCache<string, true>({ max: MAX_DENIALS, ttl: VOID_FOR });
  readonly #closing = new AbortController();
  readonly #bytesRead;
  readonly #requests;
  #touched = new Set<Digest>();
  readonly #denials = new Map<string, { readonly repository: RepositoryKey; readonly digest: Digest | undefined }>();
  #denying: Promise<void> | null = null;
  readonly #toucher: NodeJS.Timeout;

  constructor({ tier, objects, log, metrics }: SecondLevelOptions) {
    this.tier = tier;
    this.objects = objects;
    this.#log = log;
    this.store = new Breaker({
      service: 'the shared store',
      isAnswer: (error) => error instanceof MissingObject || error instanceof WrongObject,
      changed: (works, error) => this.#told('the shared store', works, error),
    });
    this.#index = new Breaker({
      service: "the shared store's index",
      changed: (works, error) => this.#told("the shared store's index", works, error),
    });
    this.#bytesRead = metrics.counter('shared_store_read_bytes_total', 'Bytes read from the shared store');
    this.#requests = metrics.counter('shared_store_reads_total', 'Content looked for in the shared store, by outcome', [
      'outcome',
    ]);
    metrics.gauge(
      'shared_store_up',
      'Whether the shared store and its index answered last (1) or are left alone (0)',
      [],
      (gauge) => gauge.set(this.works ? 1 : 0),
    );
    this.#toucher = setInterval(() => void this.#touch(), TOUCH_INTERVAL);
    this.#toucher.unref();
  }

  get works(): boolean {
    return this.store.works && this.#index.works;
  }

  /** Null where the store does not have it, or cannot be asked. Its givers are those that nobody is known to have denied. */
  async find(digest: Digest): Promise<FoundObject | null> {
    return this.#believed(digest, await this.#find(digest));
  }

  /** The same for whoever leaves no trace: what the index says now is remembered nowhere. @throws the index's errors */
  async look(digest: Digest): Promise<FoundObject | null> {
    return this.#wrong.has(digest) ? null : this.#believed(digest, await this.objects.find(digest));
  }

  /** Without the givers that were denied a moment ago. */
  #believed(digest: Digest, found: FoundObject | null): FoundObject | null {
    if (found === null || (this.#void.size === 0 && this.#denials.size === 0)) return found;
    return { ...found, givers: found.givers.filter(({ repository }) => !this.#isVoid(repository, digest)) };
  }

  async #find(digest: Digest): Promise<FoundObject | null> {
    if (this.#wrong.has(digest)) return null;
    const known = this.#found.get(digest);
    if (known !== undefined) return known.found;
    try {
      const found = await this.#index.ask(() => this.objects.find(digest), this.#closing.signal, ANSWER_WITHIN);
      if (found !== null) this.#found.set(digest, { found });
      return found;
    } catch (error) {
      this.failed('looking for', digest, error);
      return null;
    }
  }

  /**
   * Brings to the sink what is wanted of the blob. False where the store does not have it or failed: what it brought until then stays in the sink,
   * and the rest has to come from elsewhere. Errors of the sink are the sink's to remember.
   */
  async fetch(digest: Digest, sink: BlobSink, signal: AbortSignal): Promise<boolean> {
    if (!this.store.ready) return false;
    const found = await this.find(digest);
    signal.throwIfAborted();
    if (found === null) {
      this.#requests.inc({ outcome: 'miss' });
      return false;
    }
    let own = true;
    try {
      const { size } = found.object;
      sink.begin(size);
      const open = (range: Extent, ended: AbortSignal) => this.#open(digest, range, ended);
      const counted: BlobSink = {
        ...sink,
        write: async (offset, chunk) => {
          own = false;
          await sink.write(offset, chunk);
          own = true;
          this.#bytesRead.inc(chunk.length);
        },
      };
      await download(open, size, counted, signal);
      this.used(digest);
      this.#requests.inc({ outcome: 'hit' });
      return true;
    } catch (error) {
      if (error instanceof MissingObject) await this.missing(digest);
      else if (error instanceof WrongObject) this.distrust(digest);
      else if (!signal.aborted && own) {
        if (!(error instanceof LeftAlone)) this.store.failed(error);
        this.failed('reading', digest, error);
      }
      this.#requests.inc({ outcome: error instanceof MissingObject ? 'miss' : 'failed' });
      return false;
    }
  }

  async manifest(digest: Digest): Promise<Buffer | null> {
    const found = await this.find(digest);
    if (found === null) return null;
    try {
      const { size } = found.object;
      const read = (signal: AbortSignal) => this.readManifest(digest, size, signal);
      const body = await this.store.ask(read, this.#closing.signal, ANSWER_WITHIN);
      if (body === null) return null;
      this.#bytesRead.inc(size);
      if (isManifestDigest(body, digest)) {
        this.used(digest);
        this.#requests.inc({ outcome: 'hit' });
        return body;
      }
      this.distrust(digest);
    } catch (error) {
      if (error instanceof MissingObject) await this.missing(digest);
      else if (error instanceof WrongObject) this.distrust(digest);
      else this.failed('reading', digest, error);
    }
    return null;
  }

  /** Its bytes, unchecked; null where it has more than a manifest can have, or none. @throws the store's errors */
  async readManifest(digest: Digest, size: number, signal: AbortSignal): Promise<Buffer | null> {
    if (size > MAX_MANIFEST || size === 0) return null;
    return await readAll(await this.tier.open(digest, { from: 0, to: size }, signal), size);
  }

  async link(digest: Digest): Promise<{ readonly url: string; readonly size: number } | null> {
    const found = await this.find(digest);
    if (found === null || found.object.kind !== 'blob') return null;
    const { size } = found.object;
    try {
      const url = await this.store.ask(
        async (signal) => {
          if (this.#seen.get(digest) !== size) {
            const seen = await this.tier.stat(digest, signal);
            if (seen?.size !== size) throw new MissingObject(digest);
            this.#seen.set(digest, size);
          }
          return this.tier.link(digest, LINK_SECONDS);
        },
        this.#closing.signal,
        ANSWER_WITHIN,
      );
      this.used(digest);
      return url === null ? null : { url, size };
    } catch (error) {
      if (error instanceof MissingObject) await this.missing(digest);
      else this.failed('looking for', digest, error);
      return null;
    }
  }

  /** A blob of which the store gave at least a part turned out to be wrong: it is removed there, and its next fill asks the upstream. */
  distrust(digest: Digest): void {
    this.#log.warn(
      { digest },
      'what came from the shared store is wrong; it is removed there and fetched from its registry',
    );
    this.#requests.inc({ outcome: 'wrong' });
    this.#wrong.set(digest, true);
    this.#forget(digest);
    const { signal } = this.#closing;
    const remove = async () => {
      await this.objects.drop([digest]);
      await this.tier.remove([digest], signal);
    };
    remove().catch((error: unknown) => this.failed('removing', digest, error));
  }

  /** The store has it, whole and verified, as these gave it. @throws the index's errors */
  async stored(object: { digest: Digest; kind: ObjectKind; size: number }, givers: readonly Giver[]): Promise<void> {
    await this.#index.ask(() => this.objects.put(object, givers), this.#closing.signal, WRITTEN_WITHIN);
    this.#forget(object.digest);
    // It has right bytes from now on.
    this.#wrong.delete(object.digest);
  }

  /** See `SharedContent.denied`. */
  denied(repository: RepositoryKey, digest?: Digest): void {
    this.disbelieve(repository, digest);
    if (this.#denials.size >= MAX_DENIALS) return;
    const id = digest === undefined ? repositoryId(repository) : contentId(repository, digest);
    this.#denials.set(id, { repository, digest });
    this.#denying ??= this.#deny().finally(() => {
      this.#denying = null;
    });
  }

  /** See `SharedContent.deniedElsewhere`. */
  disbelieve(repository: RepositoryKey, digest?: Digest): void {
    this.#found.clear();
    this.#void.set(digest === undefined ? repositoryId(repository) : contentId(repository, digest), true);
  }

  used(digest: Digest): void {
    if (this.#touched.size < MAX_TOUCHED) this.#touched.add(digest);
  }

  failed(doing: string, digest: Digest, error: unknown): void {
    if (error instanceof LeftAlone || this.#closing.signal.aborted) return;
    this.#log.warn(
      { digest, err: error },
      `${doing} content in the shared store failed; the gateway goes on without it`,
    );
  }

  /** Its row says that the store has it, and the store does not: somebody else removed it. */
  async missing(digest: Digest): Promise<void> {
    this.#forget(digest);
    await this.objects.drop([digest]).catch((error: unknown) => this.failed('forgetting', digest, error));
  }

  async close(): Promise<void> {
    clearInterval(this.#toucher);
    await this.#touch();
    this.#closing.abort(new Error('the cache is closing'));
    await this.#denying;
    this.tier.close();
  }

  #isVoid(repository: RepositoryKey, digest: Digest): boolean {
    const ids = [repositoryId(repository), contentId(repository, digest)];
    return ids.some((id) => this.#void.has(id) || this.#denials.has(id));
  }

  #forget(digest: Digest): void {
    this.#found.delete(digest);
    this.#seen.delete(digest);
  }

  #open(digest: Digest, range: Extent, signal: AbortSignal): Promise<ByteSource> {
    return this.store.ask((ended) => this.tier.open(digest, range, ended), signal, ANSWER_WITHIN);
  }

  /** A denial must reach the index, however long that is away. */
  async #deny(): Promise<void> {
    for (const [id, { repository, digest }] of this.#denials) {
      while (!this.#closing.signal.aborted) {
        try {
          await this.objects.deny(repository, digest);
          break;
        } catch (error) {
          this.#log.warn({ err: error }, "the shared store's index did not take a denial; it is tried again");
          await delay(DENIAL_RETRY, undefined, { signal: this.#closing.signal, ref: false }).catch(() => {});
        }
      }
      this.#denials.delete(id);
    }
  }

  async #touch(): Promise<void> {
    if (this.#touched.size === 0 || !this.#index.ready) return;
    const touched = [...this.#touched];
    this.#touched = new Set();
    await this.#index
      .ask(() => this.objects.touch(touched), this.#closing.signal, WRITTEN_WITHIN)
      .catch((error: unknown) => {
        if (!(error instanceof LeftAlone)) this.#log.debug({ err: error }, 'times of use were not written');
      });
  }

  #told(service: string, works: boolean, error: unknown): void {
    if (works) this.#log.info(`${service} answers again`);
    else
      this.#log.warn(
        { err: error },
        `${service} fails; the gateway goes on without it, and tries it every few seconds`,
      );
  }
}

async function readAll(source: ByteSource, size: number): Promise<Buffer> {
  try {
    const body = Buffer.allocUnsafe(size);
    for (let at = 0; at < size; ) {
      const count = await source.pull(body.subarray(at));
      if (count === 0) throw new Error(`the store ended at byte ${at} of ${size}`);
      at += count;
    }
    return body;
  } finally {
    await source.close().catch(() => {});
  }
}
