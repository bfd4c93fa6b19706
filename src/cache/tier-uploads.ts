import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import { VerifiedSource } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { LeftAlone } from './breaker.ts';
import type { FactStore } from './facts.ts';
import type { SharedFile } from './files.ts';
import type { UploadIndex, UploadRow } from './index-port.ts';
import type { Giver, ObjectKind } from './object-index.ts';
import { BlobReader, type Readable } from './reader.ts';
import type { SecondLevel } from './second-level.ts';
import type { FileView } from './shared-read.ts';

/** Uploads at a time: each has some parts of 8 MiB in memory. */
const RUNNING = 3;
/** Smaller blobs are put when they are whole: that takes one request, and most of them are whole before it could begin. */
const WHILE_FETCHED = 8 * 1024 * 1024;
/** After an upload that failed nothing else is tried for so long, ms. */
const RETRY = 15_000;
/** Rows of the queue looked at at once. */
const BATCH = 32;
/** What waits is some 150 bytes in the index each, and its file in the cache; beyond this what comes is not shared. */
const MAX_WAITING = 50_000;
const UPLOAD_FAILED = 'putting content into the shared store failed; it is tried again';

/** A fill under way, as an upload follows it. */
interface FollowedFill extends FileView {
  readonly digest: Digest;
  readonly key: RepositoryKey;
  readonly file: SharedFile | null;
}

export interface UploadsOptions {
  readonly secondLevel: SecondLevel;
  readonly facts: FactStore;
  readonly queue: UploadIndex;
  /** The content as it is kept here; null where it is not (any more). */
  readonly open: (digest: Digest, kind: ObjectKind) => ByteSource | null;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly indexFailed: (error: unknown) => void;
}

/**
 * Brings to the shared store what registries gave: large blobs while they are fetched, from the growing file, at their own pace; the rest when it is whole.
 * What waits is remembered in the cache's index and done from the kept file, after a restart too; what is evicted before is left out.
 */
export class Uploads {
  readonly #options: UploadsOptions;
  readonly #running = new Map<Digest, Promise<boolean>>();
  readonly #closing = new AbortController();
  readonly #ended;
  readonly #bytes;
  #retry: NodeJS.Timeout | undefined;
  #pumping = false;

  constructor(options: UploadsOptions) {
    this.#options = options;
    const { metrics } = options;
    this.#ended = metrics.counter('shared_store_uploads_total', 'Uploads to the shared store that ended, by outcome', [
      'outcome',
    ]);
    this.#bytes = metrics.counter('shared_store_written_bytes_total', 'Bytes of content put into the shared store');
    metrics.gauge('shared_store_uploads_waiting', 'Content that is to be put into the shared store', [], (gauge) =>
      gauge.set(this.waiting),
    );
  }

  get waiting(): number {
    return this.#try(() => this.#options.queue.count(), 0);
  }

  /** Goes on with what an earlier process left. */
  start(): void {
    this.#pump();
  }

  /** A fill's size is known and its bytes come from the registry. */
  begun(fill: FollowedFill): void {
    const { digest, file, size } = fill;
    const { secondLevel } = this.#options;
    if (file === null || !fill.whole || size === undefined || size < WHILE_FETCHED) return;
    if (!secondLevel.store.ready || !secondLevel.works || !this.#hasRoom(digest)) return;
    const source = new BlobReader(new FollowedFile(fill, file), {
      digest,
      from: 0,
      to: undefined,
      wholeReply: true,
      continueFrom: undefined,
      onDamage: () => {},
      onRead: () => {},
    });
    this.#run({ digest, kind: 'blob', repository: fill.key }, source, size);
  }

  /** This repository gave it, and it is kept here. */
  kept(digest: Digest, kind: ObjectKind, { registry, repository }: RepositoryKey): void {
    if (this.waiting >= MAX_WAITING) return;
    this.#try(() => this.#options.queue.add({ digest, kind, repository: { registry, repository } }), undefined);
    this.#pump();
  }

  async close(): Promise<void> {
    clearTimeout(this.#retry);
    this.#closing.abort(new Error('the cache is closing'));
    await Promise.all(this.#running.values());
  }

  #hasRoom(digest: Digest): boolean {
    return this.#running.size < RUNNING && !this.#running.has(digest) && !this.#closing.signal.aborted;
  }

  #pump(): void {
    if (this.#pumping || this.#retry !== undefined || this.#closing.signal.aborted) return;
    this.#pumping = true;
    // Not in the turn of a fill's end.
    setImmediate(() => {
      this.#pumping = false;
      for (const row of this.#try(() => this.#options.queue.oldest(BATCH), [])) {
        if (this.#hasRoom(row.digest)) this.#begin(row);
      }
    });
  }

  #begin(row: UploadRow): void {
    // Whoever gave it has denied it meanwhile, or the store itself gave a part: nobody could be given it by this row.
    const source = this.#givers(row).length === 0 ? null : this.#options.open(row.digest, row.kind);
    if (source === null) {
      this.#done(row.digest, 'evicted');
      setImmediate(() => this.#pump());
      return;
    }
    this.#run(row, new VerifiedSource(source, row.digest), source.length ?? 0);
  }

  #run(row: UploadRow, source: ByteSource, size: number): void {
    const { digest } = row;
    const running = this.#upload(row, source, size)
      .catch((error: unknown) => {
        this.#failed(row, error);
        return false;
      })
      .finally(async () => {
        this.#running.delete(digest);
        await source.close().catch(() => {});
        this.#pump();
      });
    this.#running.set(digest, running);
  }

  async #upload(row: UploadRow, source: ByteSource, size: number): Promise<boolean> {
    const { secondLevel } = this.#options;
    const { digest, kind } = row;
    const known = await secondLevel.find(digest);
    if (known === null) {
      await secondLevel.tier.store(digest, source, this.#closing.signal);
      this.#bytes.inc(size);
    }
    // Of a blob that was stored while it was fetched they are known only now.
    const givers = this.#givers(row);
    // What nobody may be given, since its registry has denied it meanwhile, has no row, and is cleared away as such.
    if (givers.length > 0) await secondLevel.stored({ digest, kind, size }, givers);
    this.#done(digest, known === null ? 'stored' : 'known');
    return true;
  }

  #givers({ digest, repository }: UploadRow): Giver[] {
    const gave = this.#options.facts.of(repository, digest)?.gave ?? null;
    return gave === null ? [] : [{ repository, shown: gave }];
  }

  #done(digest: Digest, outcome: string): void {
    this.#ended.inc({ outcome });
    this.#try(() => this.#options.queue.remove(digest), undefined);
  }

  #failed(row: UploadRow, error: unknown): void {
    const { digest } = row;
    if (this.#closing.signal.aborted) return;
    // The fill failed; or the kept file is not what was put there, which its next reader finds out.
    if (error instanceof TruncatedError) {
      this.#done(digest, 'source');
      return;
    }
    this.#ended.inc({ outcome: 'failed' });
    // Behind the others: it may be its own trouble.
    this.#try(() => this.#options.queue.postpone(digest), undefined);
    if (!(error instanceof LeftAlone)) this.#options.log.warn({ digest, err: error }, UPLOAD_FAILED);
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#pump();
    }, RETRY).unref();
  }

  #try<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#options.indexFailed(error);
      return otherwise;
    }
  }
}

/** A file that grows, read without counting among the readers of its fill: neither its pace nor its end depends on this one. */
class FollowedFile implements Readable {
  readonly blob: FileView;
  readonly readers = 0;
  readonly file: SharedFile;

  constructor(blob: FileView, file: SharedFile) {
    this.blob = blob;
    this.file = file;
  }

  retain(): void {
    this.file.retain();
  }

  release(): void {
    this.file.release();
  }
}
