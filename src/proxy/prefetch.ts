import { LRUCache } from 'lru-cache';
import type { RegistryEntry } from '../aliases/table.ts';
import type { FillBudget } from '../cache/allowance.ts';
import type { BlobCache } from '../cache/blob-cache.ts';
import { type Descriptor, readManifestContent } from '../images/manifest.ts';
import type { MaybePromise } from '../kit/async.ts';
import { openerOf } from '../oci/credentials.ts';
import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { BlobFills, HeldBlobKey } from './blob-fills.ts';
import type { KnownManifest } from './manifest-fetcher.ts';
import type { Pull } from './reply.ts';

/** Fills under way that were begun ahead: for one client, fewer than may go on without a reader (`ClientAllowance`), and for all. */
const PER_CLIENT = 3;
const IN_ALL = 32;
/** Manifests of one client whose blobs wait for the ones before them; what is asked for beyond them is not fetched ahead. */
const MANIFESTS = 4;
/** So long they wait, ms: a client that asks for nothing meanwhile has left, or has what it wants. */
const PATIENCE = 30_000;
/** Larger manifests are not read for it: that would take the event loop's time for content that is hardly an image. */
const MOST_MANIFEST = 64 * 1024;
/** Blobs remembered that were begun ahead, to count those that somebody asked for afterwards. */
const MAX_BEGUN = 10_000;

/** When fills are begun ahead; read at each use. */
export interface PrefetchRules {
  /** `cache.prefetch: manifest`. */
  readonly isOn: () => boolean;
  /** Somebody waits for a connection by which blobs are fetched. */
  readonly isContended: () => boolean;
}

export interface PrefetchOptions {
  readonly rules: PrefetchRules;
  /** As it is now; null where nothing is kept. */
  readonly blobs: () => BlobCache | null;
  readonly fills: BlobFills;
  readonly budget: ((client: string) => FillBudget | null) | undefined;
  /** Whether this client may be given the blob. @throws {RegistryError} where it may not */
  readonly admit: (pull: Pull, entry: RegistryEntry, key: HeldBlobKey) => MaybePromise<void>;
  readonly metrics: Metrics;
}

/**
 * Begins to fetch what an image's manifest names as soon as a client is given it, since the client asks for that next. The weakest of all wishes: nothing is
 * begun while anybody waits for a connection, nor for a client that is over its quota or its allowance; what is begun is the client's own fill, which goes on
 * without a reader as any other does.
 */
export class Prefetch {
  readonly #options: PrefetchOptions;
  /** Fills under way that their clients have not asked for yet, by client. */
  readonly #running = new Map<string, number>();
  /** Called when the client of such a fill has asked for it. */
  readonly #ahead = new Map<string, () => void>();
  /** Those who wait until a client has one less, by client. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #all = 0;
  readonly #begun = new LRUCache<string, true>({ max: MAX_BEGUN });
  readonly #started;
  readonly #used;

  constructor(options: PrefetchOptions) {
    this.#options = options;
    const { metrics } = options;
    this.#started = metrics.counter(
      'registry_prefetched_total',
      'Blobs that began to come before a client asked for them',
    );
    this.#used = metrics.counter(
      'registry_prefetched_used_total',
      'Of these, those that a client asked for afterwards',
    );
  }

  /** A client is given this manifest. */
  given(pull: Pull, entry: RegistryEntry, { body, mediaType }: KnownManifest): void {
    if (!this.#options.rules.isOn() || pull.method !== 'GET' || body === null || body.length > MOST_MANIFEST) return;
    const content = readManifestContent(body, mediaType);
    // Of an index nobody knows yet which of its images the client takes.
    if (content?.kind !== 'image') return;
    const { config, layers } = content;
    if ((this.#waiting.get(pull.client)?.size ?? 0) >= MANIFESTS) return;
    void this.#begin(pull, entry, config === null ? layers : [config, ...layers]);
  }

  /** A client asks for this blob. */
  asked(key: RepositoryKey, digest: Digest): void {
    if (this.#begun.size === 0) return;
    const id = contentId(key, digest);
    if (this.#begun.delete(id)) this.#used.inc();
    this.#ahead.get(id)?.();
  }

  async #begin(pull: Pull, entry: RegistryEntry, wanted: readonly Descriptor[]): Promise<void> {
    const { registry, repository } = pull.target;
    const opener = openerOf(entry, repository);
    let goesOn = true;
    for (const { digest, size, isForeign } of wanted) {
      // What does not say how large it is may be larger than anything that is wanted.
      if (isForeign || size === undefined) continue;
      const key: HeldBlobKey = { registry, repository, digest, opener };
      while ((this.#running.get(pull.client) ?? 0) >= PER_CLIENT) {
        if (!(await this.#oneLess(pull.client))) return;
      }
      if (!goesOn) return;
      // Not waited for: the next begins beside it. What cannot be begun the client is told when it asks for it.
      this.#one(pull, entry, key, size).then(
        (begun) => {
          goesOn &&= begun;
        },
        () => {
          goesOn = false;
        },
      );
    }
  }

  /** False where nothing more is to be begun. */
  async #one(pull: Pull, entry: RegistryEntry, key: HeldBlobKey, size: number): Promise<boolean> {
    const { blobs: cache, fills, admit } = this.#options;
    const { client } = pull;
    const id = contentId(key, key.digest);
    const blobs = cache();
    if (blobs === null) return false;
    if (this.#ahead.has(id) || blobs.isHere(key)) return true;
    if (!blobs.accepts(key) || !this.#mayBegin(blobs, client, size)) return false;
    this.#count(client, 1);
    const ended = (): void => {
      if (this.#ahead.delete(id)) this.#count(client, -1);
    };
    this.#ahead.set(id, ended);
    try {
      await admit(pull, entry, key);
      const isOwn = await fills.begin(blobs, { client, part: undefined, ended }, entry, key);
      if (!isOwn) ended();
      else {
        this.#started.inc();
        this.#begun.set(id, true);
      }
      return true;
    } catch (error) {
      ended();
      throw error;
    }
  }

  #mayBegin(blobs: BlobCache, client: string, size: number): boolean {
    const { rules, budget } = this.#options;
    if (!rules.isOn() || rules.isContended() || !blobs.mayFillAhead(client)) return false;
    if (this.#all >= IN_ALL) return false;
    const quotas = budget?.(client) ?? null;
    if (quotas === null) return true;
    try {
      quotas.promise(size, size);
      return true;
    } catch {
      return false;
    } finally {
      quotas.close();
    }
  }

  #count(client: string, by: 1 | -1): void {
    this.#all += by;
    const running = (this.#running.get(client) ?? 0) + by;
    if (running > 0) this.#running.set(client, running);
    else this.#running.delete(client);
    if (by < 0) for (const wake of this.#waiting.get(client) ?? []) wake();
  }

  /** Resolves when a fill of this client has ended, or is being read; to false where none is for long. */
  #oneLess(client: string): Promise<boolean> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(client) ?? new Set();
      this.#waiting.set(client, waiting);
      const end = (freed: boolean): void => {
        clearTimeout(timer);
        waiting.delete(wake);
        if (waiting.size === 0) this.#waiting.delete(client);
        resolve(freed);
      };
      const wake = (): void => end(true);
      const timer = setTimeout(() => end(false), PATIENCE);
      timer.unref();
      waiting.add(wake);
    });
  }
}
