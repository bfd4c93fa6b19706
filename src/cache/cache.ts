import { mkdirSync } from 'node:fs';
import type { Config } from '../config/config.ts';
import { Mutex } from '../kit/mutex.ts';
import type { Digest } from '../oci/digest.ts';
import { RegistryError } from '../oci/errors.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { BlobKey } from '../oci/transfer.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type CacheAdmin, CacheKeeper } from './admin.ts';
import type { BlobCache, BlobHandle } from './blob-cache.ts';
import { CacheError } from './cache-error.ts';
import { DiskHealth } from './disk-health.ts';
import { type Fetch, FILL_LIMITS, type FillContext, type FillLimits } from './fill.ts';
import { Fills } from './fills.ts';
import { Handle } from './handle.ts';
import { InUse } from './in-use.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import { Layout } from './layout.ts';
import { Links } from './links.ts';
import { Maintenance } from './maintenance.ts';
import { IndexedManifestStore, type ManifestStore } from './manifest-store.ts';
import { dropPartial } from './partial.ts';
import type { Resident } from './resident.ts';
import { Room } from './room.ts';
import { Tally } from './tally.ts';
import type { Upkeep } from './upkeep.ts';

/** Uses, links and counters are written to the index this often, ms: off the path of a pull, and little is lost to kill -9. */
const FLUSH_INTERVAL = 1_000;

export interface CacheOptions {
  /** Absolute. */
  readonly dataDir: string;
  readonly config: Pick<Config['cache'], 'maxSize' | 'minFree'>;
  readonly index: CacheIndex;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Smaller ones for tests. */
  readonly limits?: Partial<FillLimits>;
  /** Free bytes of the disk; for tests of `minFree`. */
  readonly freeBytes?: () => Promise<number>;
  /** False: no work in the background; for commands that act on the directory, and for tests. */
  readonly maintain?: boolean;
}

/** Builds the cache on its directory. A directory that cannot be made or written only makes it keep nothing. Closing it closes the index. */
export function createCache(options: CacheOptions): Cache {
  return new Cache(options);
}

export class Cache implements BlobCache {
  readonly manifests: ManifestStore;
  readonly admin: CacheAdmin;
  readonly #options: CacheOptions;
  readonly #layout: Layout;
  readonly #index: CacheIndex;
  readonly #links: Links;
  readonly #kept: IndexedManifestStore;
  readonly #tally: Tally;
  readonly #disk: DiskHealth;
  readonly #room: Room;
  readonly #inUse = new InUse();
  readonly #fills: Fills;
  readonly #maintenance: Maintenance;
  readonly #flusher: NodeJS.Timeout;
  #uses = new Map<Digest, number>();
  #closed = false;

  constructor(options: CacheOptions) {
    const { index, log, metrics } = options;
    this.#options = options;
    this.#index = index;
    this.#layout = new Layout(options.dataDir);
    this.#links = new Links(index);
    const writeErrors = metrics.counter('cache_write_errors_total', 'Failed writes to the cache, by code', ['code']);
    this.#disk = new DiskHealth(log, (code) => writeErrors.inc({ code }));
    this.#kept = new IndexedManifestStore(index, (error) => this.#diskFailed('the index', error));
    this.manifests = this.#kept;
    this.#tally = new Tally(index, metrics);
    const fillsEnded = metrics.counter('cache_fills_total', 'Fills that ended, by outcome', ['outcome']);
    metrics.gauge('cache_bytes', 'Bytes of whole blobs in the cache', [], (gauge) => gauge.set(index.totals().bytes));
    metrics.gauge('cache_blobs', 'Whole blobs in the cache', [], (gauge) => gauge.set(index.totals().blobs));
    metrics.gauge('cache_fills_running', 'Fills under way', [], (gauge) => gauge.set(this.#fills.count));
    this.#room = new Room({
      ...options.config,
      layout: this.#layout,
      index,
      pinned: (digest) => this.#inUse.has(digest),
      flush: () => this.#flush(),
      dropped: (digest, gone) => this.#inUse.leave(digest, gone),
      evicted: (count) => this.#tally.add('evictions', count),
      dropPartial: (digest) => this.#dropPartial(digest),
      ...(options.freeBytes === undefined ? {} : { freeBytes: options.freeBytes }),
    });
    const context: FillContext = {
      layout: this.#layout,
      space: this.#room,
      syncs: new Mutex(),
      limits: { ...FILL_LIMITS, ...options.limits },
      kept: (key, size) => this.#keep(key, size),
      diskFailed: (error) => this.#disk.failed(error),
      fetched: (bytes) => this.#tally.add('fetched', bytes),
    };
    this.#fills = new Fills({
      context,
      inUse: this.#inUse,
      log,
      isKept: (digest) => this.#safely(() => index.blob(digest), null) !== null,
      ended: (outcome) => fillsEnded.inc({ outcome }),
    });
    const upkeep = this.#upkeep();
    this.admin = new CacheKeeper(upkeep, this.#tally, options.config.maxSize, () => this.#fills.count);
    this.#maintenance = new Maintenance(upkeep);
    this.#makeDirectories();
    if (options.maintain ?? true) this.#maintenance.start();
    this.#flusher = setInterval(() => this.#flush(), FLUSH_INTERVAL);
    this.#flusher.unref();
  }

  accepts(digest: Digest): boolean {
    return !this.#closed && this.#options.config.maxSize > 0 && !this.#disk.failing && !this.#fills.isTooLarge(digest);
  }

  find(digest: Digest): BlobHandle | null {
    const resident = this.#resident(digest);
    if (resident === null) return null;
    // Whoever started the fill finds it right after, and has been counted as a miss.
    if (!this.#fills.takeMiss(digest)) this.#tally.add('hits');
    this.#uses.set(digest, Date.now());
    return this.#handle(digest, resident);
  }

  fill(key: BlobKey, fetch: Fetch): BlobHandle {
    const found = this.find(key.digest);
    if (found !== null) return found;
    if (this.#closed) throw new RegistryError('unavailable', { facts: { reason: 'it is stopping' } });
    this.#tally.add('misses');
    return this.#handle(key.digest, this.#fills.start(key, fetch));
  }

  holds(repository: RepositoryKey, digest: Digest): boolean {
    return this.accessOf(repository, digest) !== null;
  }

  accessOf(repository: RepositoryKey, digest: Digest): 'public' | 'private' | null {
    return this.#safely(() => this.#links.accessOf(repository, digest), null);
  }

  link(repository: RepositoryKey, digests: readonly Digest[], options: { readonly private?: boolean } = {}): void {
    this.#links.link(repository, digests, options.private ?? false);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#flusher);
    await this.#maintenance.stop();
    await this.#fills.stopAll(new RegistryError('unavailable', { facts: { reason: 'it is stopping' } }));
    await this.#inUse.allGone();
    this.#flush();
    this.#index.close();
  }

  #resident(digest: Digest): Resident | null {
    const used = this.#inUse.find(digest);
    if (used !== null) return used;
    const row = this.#safely(() => this.#index.blob(digest), null);
    if (row === null) return null;
    try {
      return this.#inUse.open(digest, this.#layout.blob(digest), row.size);
    } catch (error) {
      // Out of descriptors says nothing about the file.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EMFILE' && code !== 'ENFILE') void this.#damaged(row, (error as Error).message);
      return null;
    }
  }

  #handle(digest: Digest, resident: Resident): Handle {
    return new Handle(digest, resident, {
      onRead: (bytes) => this.#tally.add('served', bytes),
      onDamage: (reason) => {
        // One that was replaced meanwhile says nothing about what is there now.
        if (this.#inUse.find(digest) === resident) this.#brokenOff(digest, resident, reason);
      },
    });
  }

  /** Reading failed in the middle. */
  #brokenOff(digest: Digest, resident: Resident, reason: string): void {
    const broken = new CacheError('disk', `reading the growing ${digest} failed: ${reason}`);
    if (this.#fills.stop(digest, broken)) return;
    this.#inUse.forget(digest, resident);
    const row = this.#safely(() => this.#index.blob(digest), null);
    if (row !== null) void this.#damaged(row, reason);
  }

  #keep(key: BlobKey, size: number): void {
    const now = Date.now();
    this.#index.addBlob({ digest: key.digest, size, created: now, lastUse: now });
    this.#disk.worked();
  }

  /** Who reads it keeps the descriptor, and goes on past the cache where that fails too. */
  async #damaged(row: BlobRow, reason: string): Promise<void> {
    this.#options.log.warn({ digest: row.digest, reason }, 'a kept blob is missing or damaged; it is fetched anew');
    const resident = this.#inUse.find(row.digest);
    if (resident?.blob.path === this.#layout.blob(row.digest)) this.#inUse.forget(row.digest, resident);
    await this.#room.drop([row]).catch((error: unknown) => this.#diskFailed('the index', error));
  }

  /** Of a fill that ended. A new one waits until this is done. */
  async #dropPartial(digest: Digest): Promise<void> {
    if (this.#inUse.has(digest)) return;
    const gone = dropPartial(this.#layout, digest).catch(() => {});
    this.#inUse.leave(digest, gone);
    await gone;
  }

  #upkeep(): Upkeep {
    return {
      layout: this.#layout,
      index: this.#index,
      room: this.#room,
      log: this.#options.log,
      busy: (digest) => this.#inUse.busy(digest),
      condemn: (row, reason) => this.#damaged(row, reason),
      dropPartial: (digest) => this.#dropPartial(digest),
      flush: () => this.#flush(),
      forget: () => {
        this.#links.forget();
        this.#kept.invalidate();
      },
    };
  }

  #flush(): void {
    this.#safely(() => {
      const uses = this.#uses;
      if (uses.size > 0) {
        this.#uses = new Map();
        this.#index.touchBlobs(uses);
      }
      this.#links.flush();
      this.#kept.flush();
      this.#tally.flush();
    }, undefined);
  }

  /** The index is on the same disk: where it fails, the answer is as if nothing were known. */
  #safely<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#diskFailed('the index', error);
      return otherwise;
    }
  }

  #diskFailed(what: string, error: unknown): void {
    this.#disk.failed(new CacheError('disk', `${what} failed: ${(error as Error).message}`, error));
  }

  #makeDirectories(): void {
    for (const path of [this.#layout.blobs, this.#layout.partials]) {
      try {
        mkdirSync(path, { recursive: true, mode: 0o700 });
      } catch (error) {
        this.#diskFailed(path, error);
      }
    }
  }
}
