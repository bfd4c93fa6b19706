import { mkdirSync } from 'node:fs';
import type { Config } from '../config/config.ts';
import { Turns } from '../kit/turns.ts';
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
import { type Fetch, FILL_LIMITS, Fill, type FillContext, type FillLimits } from './fill.ts';
import { Handle } from './handle.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import { Layout } from './layout.ts';
import { Links } from './links.ts';
import { Maintenance } from './maintenance.ts';
import type { ManifestStore } from './manifest-store.ts';
import { Manifests } from './manifests.ts';
import { dropPartial } from './partial.ts';
import { Resident } from './resident.ts';
import { Room } from './room.ts';
import { Tally } from './tally.ts';
import type { Upkeep } from './upkeep.ts';

/** Uses, links and counters are written to the index this often, ms: off the path of a pull, and little is lost to kill -9. */
const FLUSH_INTERVAL = 1_000;
/** Digests remembered as too large to keep, so that only their first pull starts in vain. */
const TOO_LARGE_KEPT = 1_000;

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
  readonly #kept: Manifests;
  readonly #tally: Tally;
  readonly #disk: DiskHealth;
  readonly #room: Room;
  readonly #context: FillContext;
  readonly #maintenance: Maintenance;
  readonly #fillsEnded: { inc(labels: { outcome: string }): void };
  /** Blobs in use, whole or growing. What is in here is pinned. */
  readonly #residents = new Map<Digest, Resident>();
  readonly #fills = new Map<Digest, { readonly fill: Fill; readonly ended: Promise<void> }>();
  /** Files on their way out, and fills that failed: the next fill of the same digest waits for them. */
  readonly #leaving = new Map<Digest, Promise<void>>();
  readonly #tooLarge = new Set<Digest>();
  /** Fills that run and that nobody has found yet. */
  readonly #missed = new Set<Digest>();
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
    this.#kept = new Manifests(index, this.#links, (error) => this.#diskFailed('the index', error));
    this.manifests = this.#kept;
    this.#tally = new Tally(index, metrics);
    this.#fillsEnded = metrics.counter('cache_fills_total', 'Fills that ended, by outcome', ['outcome']);
    metrics.gauge('cache_bytes', 'Bytes of whole blobs in the cache', [], (gauge) => gauge.set(index.totals().bytes));
    metrics.gauge('cache_blobs', 'Whole blobs in the cache', [], (gauge) => gauge.set(index.totals().blobs));
    metrics.gauge('cache_fills_running', 'Fills under way', [], (gauge) => gauge.set(this.#fills.size));
    this.#room = new Room({
      ...options.config,
      layout: this.#layout,
      index,
      pinned: (digest) => this.#residents.has(digest),
      flush: () => this.#flush(),
      dropped: (digest, gone) => this.#leave(digest, gone),
      evicted: (count) => this.#tally.add('evictions', count),
      dropPartial: (digest) => this.#dropPartial(digest),
      ...(options.freeBytes === undefined ? {} : { freeBytes: options.freeBytes }),
    });
    this.#context = {
      layout: this.#layout,
      space: this.#room,
      syncs: new Turns(),
      limits: { ...FILL_LIMITS, ...options.limits },
      kept: (key, size) => this.#keep(key, size),
      diskFailed: (error) => this.#disk.failed(error),
      fetched: (bytes) => this.#tally.add('fetched', bytes),
    };
    const upkeep = this.#upkeep();
    this.admin = new CacheKeeper(upkeep, this.#tally, options.config.maxSize, () => this.#fills.size);
    this.#maintenance = new Maintenance(upkeep);
    this.#makeDirectories();
    if (options.maintain ?? true) this.#maintenance.start();
    this.#flusher = setInterval(() => this.#flush(), FLUSH_INTERVAL);
    this.#flusher.unref();
  }

  accepts(digest: Digest): boolean {
    return !this.#closed && this.#options.config.maxSize > 0 && !this.#disk.failing && !this.#tooLarge.has(digest);
  }

  find(digest: Digest): BlobHandle | null {
    const resident = this.#resident(digest);
    if (resident === null) return null;
    // Whoever started the fill finds it right after, and has been counted as a miss.
    if (!this.#missed.delete(digest)) this.#tally.add('hits');
    this.#uses.set(digest, Date.now());
    return this.#handle(digest, resident);
  }

  fill(key: BlobKey, fetch: Fetch): BlobHandle {
    const found = this.find(key.digest);
    if (found !== null) return found;
    if (this.#closed) throw new RegistryError('unavailable', { facts: { reason: 'it is stopping' } });
    this.#tally.add('misses');
    this.#missed.add(key.digest);
    const fill = new Fill(key, this.#context);
    const resident = Resident.growing(fill, (idle) => this.#idle(key.digest, idle));
    this.#residents.set(key.digest, resident);
    const handle = this.#handle(key.digest, resident);
    // The fill itself is a user: it keeps the descriptor open when every client has left.
    resident.retain();
    const ended = this.#run(fill, resident, fetch);
    this.#fills.set(key.digest, { fill, ended });
    return handle;
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
    const fills = [...this.#fills.values()];
    const stopping = new RegistryError('unavailable', { facts: { reason: 'it is stopping' } });
    for (const { fill } of fills) fill.stop(stopping);
    await Promise.allSettled(fills.map(({ ended }) => ended));
    await Promise.allSettled(this.#leaving.values());
    this.#flush();
    this.#index.close();
  }

  #resident(digest: Digest): Resident | null {
    const used = this.#residents.get(digest);
    if (used !== undefined) return used;
    const row = this.#safely(() => this.#index.blob(digest), null);
    if (row === null) return null;
    try {
      const path = this.#layout.blob(digest);
      const resident = Resident.whole(path, row.size, (idle) => this.#idle(digest, idle));
      this.#residents.set(digest, resident);
      return resident;
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
        if (this.#residents.get(digest) === resident) this.#brokenOff(digest, reason);
      },
    });
  }

  /** Reading failed in the middle. */
  #brokenOff(digest: Digest, reason: string): void {
    const running = this.#fills.get(digest);
    if (running !== undefined && running.fill.outcome === null) {
      running.fill.stop(new CacheError('disk', `reading the growing ${digest} failed: ${reason}`));
      return;
    }
    this.#residents.delete(digest);
    const row = this.#safely(() => this.#index.blob(digest), null);
    if (row !== null) void this.#damaged(row, reason);
  }

  /** Nobody uses it any more. One that was replaced meanwhile only closes its own descriptor. */
  #idle(digest: Digest, resident: Resident): void {
    if (this.#residents.get(digest) === resident) this.#residents.delete(digest);
    resident.dispose();
  }

  async #run(fill: Fill, resident: Resident, fetch: Fetch): Promise<void> {
    const { digest } = fill;
    try {
      // What an earlier fill or an eviction still does to the same files ends first.
      await this.#leaving.get(digest);
      const running = fill.run(fetch);
      fill.onEnd(() => this.#fillEnded(fill, resident, running));
      await running;
    } finally {
      if (this.#fills.get(digest)?.fill === fill) {
        this.#fills.delete(digest);
        this.#missed.delete(digest);
      }
      // Whole but not kept: the next client must not find it.
      if (this.#safely(() => this.#index.blob(digest), null) === null && this.#residents.get(digest) === resident) {
        this.#residents.delete(digest);
      }
      resident.release();
    }
  }

  /** At the moment a fill is known to have failed, the next client starts a new one, which waits until the old one is out of the way. */
  #fillEnded(fill: Fill, resident: Resident, running: Promise<void>): void {
    const { outcome } = fill;
    this.#fillsEnded.inc({ outcome: outcome?.kind ?? 'failed' });
    if (outcome?.kind !== 'failed') return;
    if (this.#residents.get(fill.digest) === resident) this.#residents.delete(fill.digest);
    this.#leave(fill.digest, running);
    if (outcome.error instanceof CacheError && outcome.error.reason === 'too-large') {
      if (this.#tooLarge.size >= TOO_LARGE_KEPT) this.#tooLarge.clear();
      this.#tooLarge.add(fill.digest);
    } else if (!(outcome.error instanceof CacheError)) {
      this.#options.log.warn({ digest: fill.digest, err: outcome.error }, 'a fill failed');
    }
  }

  #keep(key: BlobKey, size: number): void {
    const now = Date.now();
    this.#index.addBlob({ digest: key.digest, size, created: now, lastUse: now });
    this.#disk.worked();
  }

  /** Who reads it keeps the descriptor, and goes on past the cache where that fails too. */
  async #damaged(row: BlobRow, reason: string): Promise<void> {
    this.#options.log.warn({ digest: row.digest, reason }, 'a kept blob is missing or damaged; it is fetched anew');
    const resident = this.#residents.get(row.digest);
    if (resident?.blob.path === this.#layout.blob(row.digest)) this.#residents.delete(row.digest);
    await this.#room.drop([row]).catch((error: unknown) => this.#diskFailed('the index', error));
  }

  /** Of a fill that ended. A new one waits until this is done. */
  async #dropPartial(digest: Digest): Promise<void> {
    if (this.#residents.has(digest)) return;
    const gone = dropPartial(this.#layout, digest).catch(() => {});
    this.#leave(digest, gone);
    await gone;
  }

  #upkeep(): Upkeep {
    return {
      layout: this.#layout,
      index: this.#index,
      room: this.#room,
      log: this.#options.log,
      busy: (digest) => this.#residents.has(digest) || this.#leaving.has(digest),
      condemn: (row, reason) => this.#damaged(row, reason),
      dropPartial: (digest) => this.#dropPartial(digest),
      flush: () => this.#flush(),
      forget: () => {
        this.#links.forget();
        this.#kept.forgetAll();
      },
    };
  }

  #leave(digest: Digest, gone: Promise<void>): void {
    const left = gone
      .catch(() => {})
      .then(() => {
        if (this.#leaving.get(digest) === left) this.#leaving.delete(digest);
      });
    this.#leaving.set(digest, left);
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
