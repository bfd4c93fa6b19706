import { statSync } from 'node:fs';
import type { Config } from '../config/config.ts';
import { type MaybePromise, Mutex } from '../kit/async.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import { steadyNow } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, Digest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type CacheAdmin, CacheAdministration } from './admin.ts';
import { ClientAllowance, type PayingClients } from './allowance.ts';
import { type BlobCache, type BlobHandle, CacheError, type Fetch, type FillOptions } from './blob-cache.ts';
import type { BlobTier } from './blob-tier.ts';
import { DiskHealth } from './disk-health.ts';
import { Eviction } from './eviction.ts';
import { type FactStore, Facts } from './facts.ts';
import { type FillKey, Layout, type PartialName, partialName } from './files.ts';
import { FILL_LIMITS, type FillLimits, type FillState } from './fill-context.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import { IndexedListStore, type ListStore } from './list-store.ts';
import { Maintenance, type MaintenanceContext } from './maintenance.ts';
import { IndexedManifestStore, type ManifestStore } from './manifest-store.ts';
import { type OpenBlob, OpenBlobHandle, OpenBlobs } from './open-blobs.ts';
import { dropPartial } from './partial-files.ts';
import { Pins } from './pins.ts';
import { BlobReader } from './reader.ts';
import { isForWantOfRoom } from './room.ts';
import { RunningFills } from './running-fills.ts';
import { Scrub } from './scrub.ts';
import { MemorySource, type SharedContent, SharedStore, type SharedStoreParts } from './shared-store.ts';
import { UntouchedCache } from './untouched.ts';
import { CacheCounters, Uses, useNow } from './write-behind.ts';

/** Uses, facts and counters are written to the index this often, ms: off the path of a pull, and little is lost to kill -9. */
const FLUSH_INTERVAL = 1_000;

export interface CacheOptions {
  /** Absolute. */
  readonly dataDir: string;
  readonly config: Pick<Config['cache'], 'maxSize' | 'minFree'> & Partial<Pick<Config['cache'], 'scrub'>>;
  readonly index: CacheIndex;
  /** A second level between this directory and the upstream; null or left out where there is none. */
  readonly shared?: SharedStoreParts | null;
  /** Who bears the cost of what is fetched; left out where nobody does. */
  readonly clients?: PayingClients;
  /** Whether a blob is this gateway's to keep, where several share their work: copies of the others' go first. Left out where all are. */
  readonly owns?: (digest: Digest) => boolean;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Smaller ones for tests. */
  readonly limits?: Partial<FillLimits>;
  /** Free bytes of the disk; for tests of `minFree`. */
  readonly freeBytes?: () => MaybePromise<number>;
  /** False: no work in the background; for commands that act on the directory, and for tests. */
  readonly maintain?: boolean;
}

/** Builds the cache on its directory. A directory that cannot be made or written only makes it keep nothing. Closing it closes the index. */
export function createCache(options: CacheOptions): Cache {
  return new Cache(options);
}

export class Cache implements BlobCache {
  readonly manifests: ManifestStore;
  readonly lists: ListStore;
  readonly facts: FactStore;
  readonly admin: CacheAdmin;
  readonly #options: CacheOptions;
  readonly #layout: Layout;
  readonly #index: CacheIndex;
  readonly #uses: Uses;
  readonly #owns: (digest: Digest) => boolean;
  readonly #facts: Facts;
  readonly #pins: Pins;
  readonly #manifests: IndexedManifestStore;
  readonly #counters: CacheCounters;
  readonly #disk: DiskHealth;
  readonly #eviction: Eviction;
  readonly #openBlobs = new OpenBlobs();
  readonly #fills: RunningFills;
  readonly #allowance: ClientAllowance;
  readonly #shared: SharedStore | null;
  readonly #maintenance: Maintenance;
  readonly #newScrub: (period: number) => Scrub;
  #scrub: Scrub | null;
  #config: CacheOptions['config'];
  readonly #damaged: { inc(labels: { what: string }, by: number): void };
  readonly #flusher: NodeJS.Timeout;
  #closed = false;
  #makingRoom: Promise<boolean> | null = null;

  constructor(options: CacheOptions) {
    const { index, log, metrics } = options;
    this.#options = options;
    this.#config = options.config;
    this.#index = index;
    this.#layout = new Layout(options.dataDir);
    this.#owns = options.owns ?? (() => true);
    this.#uses = new Uses(index, this.#owns);
    this.#damaged = metrics.counter('cache_damaged_total', 'Kept content found damaged or missing, and dropped', [
      'what',
    ]);
    const writeErrors = metrics.counter('cache_write_errors_total', 'Failed writes to the cache, by code', ['code']);
    this.#disk = new DiskHealth(log, (code) => writeErrors.inc({ code }));
    this.#pins = new Pins(index, (error) => this.#diskFailed('the index', error));
    this.#manifests = new IndexedManifestStore(index, {
      maxSize: () => this.#config.maxSize,
      pins: this.#pins,
      failed: (error) => this.#diskFailed('the index', error),
      damaged: (digests) => this.#manifestsDamaged(digests),
    });
    this.manifests = this.#manifests;
    this.#facts = new Facts(index, (error) => this.#diskFailed('the index', error));
    this.facts = this.#facts;
    this.lists = new IndexedListStore(index, {
      maxSize: () => this.#config.maxSize,
      believes: (repository) => this.#facts.believes(repository),
      failed: (error) => this.#diskFailed('the index', error),
    });
    this.#counters = new CacheCounters(index, metrics);
    this.#shared = this.#createShared(options.shared ?? null);
    this.#allowance = new ClientAllowance({ mayFetch: (client) => options.clients?.mayFetch(client) ?? true });
    this.#eviction = this.#createEviction();
    this.#fills = this.#createFills();
    const context = this.#maintenanceContext();
    this.admin = new CacheAdministration(context, this.#counters, () => this.#config.maxSize, this.#fills);
    this.#maintenance = new Maintenance(context);
    this.#newScrub = (period) => new Scrub(context, period);
    this.#scrub = this.#scrubOf(options.config);
    const totals = () => this.#try(() => index.totals(), null);
    metrics.gauge('cache_bytes', 'Bytes of whole blobs in the cache', [], (gauge) => gauge.set(totals()?.bytes ?? 0));
    metrics.gauge('cache_blobs', 'Whole blobs in the cache', [], (gauge) => gauge.set(totals()?.blobs ?? 0));
    metrics.gauge('cache_fills_running', 'Fills under way', [], (gauge) => gauge.set(this.#fills.count));
    this.#layout.make((path, error) => this.#diskFailed(path, error));
    this.#eviction.finishEarlier();
    if (options.maintain ?? true) {
      this.#maintenance.start();
      this.#scrub?.start();
      this.#shared?.uploads.start();
    }
    this.#flusher = setInterval(() => this.#flush(), FLUSH_INTERVAL);
    this.#flusher.unref();
  }

  /** Null where there is no second level. */
  get shared(): SharedContent | null {
    return this.#shared;
  }

  /** All of it as it is now, for whoever only looks: see `UntouchedCache`. @param signal ends what the shared store is asked */
  untouched(signal: AbortSignal): UntouchedCache {
    const { facts, manifests, lists } = this;
    const stores = { index: this.#index, facts, manifests, lists, secondLevel: this.#shared?.secondLevel ?? null };
    const files = { layout: this.#layout, openBlobs: this.#openBlobs, fills: this.#fills };
    const { maxSize } = this.#config;
    return new UntouchedCache({ ...stores, ...files, maxSize, accepts: (key) => this.accepts(key) }, signal);
  }

  /** See `BlobTier.check`; null where there is no second level. */
  get checkShared(): BlobTier['check'] | null {
    const { tier = null } = this.#options.shared ?? {};
    return tier === null ? null : (signal) => tier.check(signal);
  }

  /** Other bounds, and another round of looking for damage, which goes on where the last one was. */
  async reconfigure({ cache }: { readonly cache: CacheOptions['config'] }): Promise<void> {
    const before = this.#config;
    this.#config = cache;
    if (cache.maxSize !== before.maxSize || cache.minFree !== before.minFree) {
      this.#eviction.reconfigure(cache);
      this.#disk.tryAgain();
    }
    if (cache.scrub === before.scrub) return;
    await this.#scrub?.stop();
    this.#scrub = this.#closed ? null : this.#scrubOf(cache);
    this.#scrub?.start();
  }

  accepts(key: FillKey): boolean {
    return !this.#closed && this.#config.maxSize > 0 && !this.#disk.failing && !this.#fills.isTooLarge(key);
  }

  isHere(key: FillKey): boolean {
    const isOpen = this.#openBlobs.isOpen(key.digest) || this.#openBlobs.isOpen(partialName(key));
    return isOpen || this.#try(() => this.#index.blob(key.digest), null) !== null;
  }

  mayFillAhead(client: string): boolean {
    return this.#allowance.allows(client);
  }

  kept(digest: Digest): BlobHandle | null {
    const blob = this.#openKept(digest);
    if (blob === null) return null;
    this.#counters.add('hits');
    this.#uses.add(digest);
    return this.#handle(digest, digest, blob);
  }

  growing(key: FillKey, client?: string): BlobHandle | null {
    const name = partialName(key);
    const blob = this.#openBlobs.find(name);
    if (blob === null) return null;
    // The client that started the fill finds it right after, and has been counted as a miss.
    if (client !== undefined) blob.join(client);
    if (!this.#fills.claim(name)) this.#counters.add('hits');
    this.#uses.add(key.digest);
    return this.#handle(key.digest, name, blob);
  }

  fill(key: BlobKey & FillKey, fetch: Fetch, options: FillOptions = {}): BlobHandle {
    const found = this.growing(key, options.client);
    if (found !== null) return found;
    if (this.#closed) throw new RegistryError('unavailable', { facts: { reason: 'it is stopping' } });
    this.#counters.add('misses');
    return this.#handle(key.digest, partialName(key), this.#fills.start(key, fetch, options));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#flusher);
    await Promise.all([this.#maintenance.stop(), this.#scrub?.stop()]);
    await this.#fills.stopAll(new RegistryError('unavailable', { facts: { reason: 'it is stopping' } }));
    await this.#shared?.close();
    await this.#openBlobs.allRemoved();
    this.#flush();
    this.#try(() => this.#facts.flushAll(), undefined);
    this.#index.close();
  }

  #scrubOf({ scrub = null }: CacheOptions['config']): Scrub | null {
    return scrub === null ? null : this.#newScrub(scrub);
  }

  #createEviction(): Eviction {
    const { config, freeBytes } = this.#options;
    return new Eviction({
      ...config,
      layout: this.#layout,
      index: this.#index,
      inUse: (digest) => this.#openBlobs.isOpen(digest),
      pins: this.#pins,
      flush: () => this.#flush(),
      dropped: (digest, removed) => this.#openBlobs.removing(digest, removed),
      evicted: (count) => this.#counters.add('evictions', count),
      dropPartial: (partial) => this.#dropPartial(partial as PartialName),
      indexFailed: (error) => this.#diskFailed('the index', error),
      ...(freeBytes === undefined ? {} : { freeBytes }),
    });
  }

  #createFills(): RunningFills {
    const { log, metrics, limits, clients } = this.#options;
    const fillsEnded = metrics.counter('cache_fills_total', 'Fills that ended, by outcome', ['outcome']);
    return new RunningFills({
      context: {
        layout: this.#layout,
        space: this.#eviction,
        secondLevel: this.#shared?.secondLevel ?? null,
        syncs: new Mutex(),
        limits: { ...FILL_LIMITS, ...limits },
        isKept: (fill, size) => this.#isKept(fill, size),
        kept: (fill, size) => this.#kept(fill, size),
        diskFailed: (error) => this.#failed(error),
        fetched: (bytes) => this.#counters.add('fetched', bytes),
        budget: (client) => clients?.fill(client) ?? null,
        allowance: this.#allowance,
      },
      openBlobs: this.#openBlobs,
      log,
      ended: (outcome) => fillsEnded.inc({ outcome }),
      uploads: this.#shared?.uploads ?? null,
    });
  }

  #openKept(digest: Digest): OpenBlob | null {
    const open = this.#openBlobs.find(digest);
    if (open !== null) return open;
    // Its file is going, and its row will.
    if (this.#openBlobs.isBusy(digest)) return null;
    const row = this.#try(() => this.#index.blob(digest), null);
    if (row === null) return null;
    try {
      return this.#openBlobs.openComplete(this.#layout.blob(digest), row);
    } catch (error) {
      // Too many open files says nothing about this one.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EMFILE' && code !== 'ENFILE') void this.#dropDamaged(row, (error as Error).message);
      return null;
    }
  }

  #handle(digest: Digest, id: Digest | PartialName, blob: OpenBlob): OpenBlobHandle {
    return new OpenBlobHandle(digest, blob, {
      onRead: (bytes) => this.#counters.add('served', bytes),
      onDamage: (reason) => this.#readFailed(digest, id, blob, reason),
      onChecked: (at) => {
        this.#openBlobs.right(digest, blob);
        this.#try(() => this.#index.markChecked(digest, at), undefined);
      },
    });
  }

  /** A blob that was replaced since it was opened says nothing about the one that is there now. */
  #readFailed(digest: Digest, id: Digest | PartialName, blob: OpenBlob, reason: string): void {
    if (id !== digest && this.#openBlobs.find(id) === blob) {
      const error = new CacheError('disk', `reading the growing ${digest} failed: ${reason}`);
      if (this.#fills.stop(id as PartialName, error)) return;
    }
    if (this.#openBlobs.find(digest) !== blob) return;
    this.#openBlobs.detach(digest, blob);
    const row = this.#try(() => this.#index.blob(digest), null);
    if (row !== null) void this.#dropDamaged(row, reason);
  }

  /** Whether the blob of a fill is here already, once nothing of it is being removed: rows and files that do not agree count as not here. */
  async #isKept({ digest }: FillState, size: number): Promise<boolean> {
    await this.#openBlobs.removed(digest);
    const row = this.#try(() => this.#index.blob(digest), null);
    return row?.size === size && statSync(this.#layout.blob(digest), { throwIfNoEntry: false })?.size === size;
  }

  /** A fill is complete and its file in its place. */
  async #kept(fill: FillState, size: number): Promise<void> {
    const { digest } = fill;
    await this.#eviction.withRoom(() => {
      const now = steadyNow();
      this.#index.addBlob({ digest, size, created: now, lastUse: useNow(this.#owns(digest)) });
    });
    this.#eviction.added(digest);
    this.#disk.worked();
  }

  #createShared(parts: SharedStoreParts | null): SharedStore | null {
    if (parts === null) return null;
    return new SharedStore({
      ...parts,
      facts: this.#facts,
      queue: this.#index.uploads,
      open: (digest, kind) => (kind === 'blob' ? this.#openToShare(digest) : this.#manifestToShare(digest)),
      log: this.#options.log,
      metrics: this.#options.metrics,
      indexFailed: (error) => this.#diskFailed('the index', error),
    });
  }

  #openToShare(digest: Digest): ByteSource | null {
    const blob = this.#openKept(digest);
    if (blob === null) return null;
    return new BlobReader(blob, {
      digest,
      from: 0,
      to: undefined,
      continueFrom: undefined,
      onDamage: (reason) => this.#readFailed(digest, digest, blob, reason),
      // No client reads it.
      onRead: () => {},
    });
  }

  #manifestToShare(digest: Digest): ByteSource | null {
    const row = this.#try(() => this.#index.manifest(digest), null);
    return row === null ? null : new MemorySource(row.body);
  }

  /** Its readers keep the descriptor, and continue from the upstream where reading fails. */
  async #dropDamaged(row: BlobRow, reason: string): Promise<void> {
    this.#options.log.warn({ digest: row.digest, reason }, 'a kept blob is missing or damaged; it is fetched anew');
    this.#damaged.inc({ what: 'blob' }, 1);
    const open = this.#openBlobs.find(row.digest);
    if (open?.blob.path === this.#layout.blob(row.digest)) this.#openBlobs.detach(row.digest, open);
    await this.#eviction.dropBlobs([row], { damaged: true });
  }

  #manifestsDamaged(digests: readonly Digest[]): void {
    this.#options.log.warn({ digests }, 'the bytes of kept manifests are wrong; they are fetched anew');
    this.#damaged.inc({ what: 'manifest' }, digests.length);
    this.#manifests.invalidate();
  }

  /** Of a fill that ended. A new fill of the same blob waits until this is done. */
  async #dropPartial(name: PartialName): Promise<void> {
    if (this.#openBlobs.isOpen(name)) return;
    const removed = dropPartial(this.#layout, name).catch(() => {});
    this.#openBlobs.removing(name, removed);
    await removed;
  }

  #maintenanceContext(): MaintenanceContext {
    return {
      layout: this.#layout,
      index: this.#index,
      eviction: this.#eviction,
      pins: this.#pins,
      log: this.#options.log,
      busy: (id) => this.#openBlobs.isBusy(id),
      dropDamaged: (row, reason) => this.#dropDamaged(row, reason),
      dropPartial: (name) => this.#dropPartial(name),
      flush: () => {
        this.#flush();
        this.#try(() => this.#facts.flushAll(), undefined);
      },
      invalidate: () => {
        this.#facts.invalidate();
        this.#manifests.invalidate();
      },
      manifestsDamaged: (digests) => this.#manifestsDamaged(digests),
      traffic: () => this.#counters.traffic,
    };
  }

  #flush(): void {
    // Each by itself: what one cannot write now it keeps for the next time, and the others have theirs written.
    for (const part of [this.#uses, this.#facts, this.#manifests, this.#counters]) {
      this.#try(() => part.flush(), undefined);
    }
  }

  /** The index is on the same disk: where it fails, the answer is as if nothing were known. */
  #try<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#diskFailed('the index', error);
      return otherwise;
    }
  }

  #diskFailed(what: string, error: unknown): void {
    this.#failed(new CacheError('disk', `${what} failed: ${(error as Error).message}`, error));
  }

  /** A disk that is only full is no reason to keep nothing for a while, as long as something can be dropped. */
  #failed(error: CacheError): void {
    if (!isForWantOfRoom(error)) {
      this.#disk.failed(error);
      return;
    }
    this.#makingRoom ??= this.#eviction.makeRoom().finally(() => {
      this.#makingRoom = null;
    });
    void this.#makingRoom.then((made) => {
      if (!made) this.#disk.failed(error);
    });
  }
}
