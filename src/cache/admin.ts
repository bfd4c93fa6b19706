import { sleep, steadyNow } from '../kit/time.ts';
import type { Digest } from '../oci/names.ts';
import type { BlobRow } from './index-port.ts';
import { CacheIntake, type Intake } from './intake.ts';
import { type MaintenanceContext, reconcile } from './maintenance.ts';
import { MOST_PINNED, type Pins } from './pins.ts';
import type { FillProgress, RunningFills } from './running-fills.ts';
import { checkBlob, checkManifests } from './scrub.ts';
import type { CacheCounters } from './write-behind.ts';

/** Rows in one step, and the pause between two, ms, so that pulls are not slowed. */
const BATCH = 64;
const PAUSE = 1;

export interface CacheStats {
  /** Of complete blobs. */
  readonly bytes: number;
  readonly maxBytes: number;
  readonly blobs: number;
  readonly manifests: number;
  readonly manifestBytes: number;
  /** Of the images that operators have pinned: each blob once. */
  readonly pinnedBytes: number;
  readonly pins: number;
  /** Fills under way now, and the partial files of earlier ones that can be resumed. */
  readonly fills: number;
  readonly partials: number;
  readonly partialBytes: number;
  /** Since the cache was made. */
  readonly hits: number;
  readonly misses: number;
  /** Hits among all that were asked for, 0 to 1; null before the first. */
  readonly hitRatio: number | null;
  readonly bytesServed: number;
  readonly bytesFetched: number;
  readonly evictions: number;
}

/** Which entries to drop; those to which all of the conditions apply. Without any condition: the partial files of ended fills. */
export interface PruneSelection {
  readonly all?: boolean | undefined;
  /** Not used for so many ms. */
  readonly olderThan?: number | undefined;
  /** Held by this registry's repositories and by no other's. */
  readonly registry?: string | undefined;
}

export interface Pruned {
  readonly blobs: number;
  readonly bytes: number;
  readonly manifests: number;
  /** Selected, but kept because they are being read. */
  readonly inUse: number;
  /** Blobs and manifests that were selected, but kept because an image is pinned that they belong to. */
  readonly pinned: number;
}

/** What the cache may still take. Bytes. */
export interface CacheRoom {
  /** `cache.maxSize`. */
  readonly maxBytes: number;
  /** What pins may hold of it at most. */
  readonly mostPinned: number;
  /** What the cache takes now, running fills included. */
  readonly used: number;
  /** What the disk has beyond `cache.minFree`; less than nothing where it has not so much. */
  readonly spare: number;
}

export interface Verified {
  readonly blobs: number;
  readonly bytes: number;
  readonly manifests: number;
  /** What was damaged or missing, and has been dropped: it is fetched again when it is asked for. */
  readonly dropped: readonly { readonly digest: Digest; readonly reason: string }[];
  /** Files that the index did not know: right ones are known now, wrong ones removed. */
  readonly adopted: number;
  readonly removed: number;
}

export interface Progress {
  /** Bytes. `total` is what it was when the work began. */
  readonly done: number;
  readonly total: number;
}

/** What an operator can do to the cache, while the gateway runs or on the directory of one that does not. */
export interface CacheAdmin {
  stats(): CacheStats;
  /** Those under way. */
  fills(): FillProgress[];
  prune(what: PruneSelection, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Pruned>;
  /** Hashes everything anew. */
  verify(onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Verified>;
  /** Takes in what another program has kept. */
  readonly intake: Intake;
  /** What operators have pinned here. */
  readonly pins: Pins;
  /** The size of a whole blob that is here; null for one that is not. */
  sizeOf(digest: Digest): number | null;
  room(): CacheRoom;
}

export class CacheAdministration implements CacheAdmin {
  readonly intake: Intake;
  readonly pins: Pins;
  readonly #context: MaintenanceContext;
  readonly #counters: CacheCounters;
  readonly #maxBytes: () => number;
  readonly #fills: Pick<RunningFills, 'count' | 'progress'>;

  constructor(
    context: MaintenanceContext,
    counters: CacheCounters,
    maxBytes: () => number,
    fills: Pick<RunningFills, 'count' | 'progress'>,
  ) {
    this.intake = new CacheIntake(context);
    this.pins = context.pins;
    this.#context = context;
    this.#counters = counters;
    this.#maxBytes = maxBytes;
    this.#fills = fills;
  }

  stats(): CacheStats {
    const { blobs, bytes, manifests, manifestBytes } = this.#context.index.totals();
    const { hits, misses, served, fetched, evictions } = this.#counters.totals();
    const { partials } = this.#context.eviction;
    const { pins, bytes: pinnedBytes } = this.pins.totals;
    return {
      bytes,
      maxBytes: this.#maxBytes(),
      blobs,
      manifests,
      manifestBytes,
      pins,
      pinnedBytes,
      fills: this.#fills.count,
      partials: partials.count,
      partialBytes: partials.bytes,
      hits,
      misses,
      hitRatio: hits + misses === 0 ? null : hits / (hits + misses),
      bytesServed: served,
      bytesFetched: fetched,
      evictions,
    };
  }

  fills(): FillProgress[] {
    return this.#fills.progress();
  }

  sizeOf(digest: Digest): number | null {
    return this.#context.index.blob(digest)?.size ?? null;
  }

  room(): CacheRoom {
    const maxBytes = this.#maxBytes();
    const { used, spare } = this.#context.eviction;
    return { maxBytes, mostPinned: Math.floor(MOST_PINNED * maxBytes), used, spare };
  }

  async prune(what: PruneSelection, onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Pruned> {
    const { eviction, flush, invalidate } = this.#context;
    flush();
    const result = { blobs: 0, bytes: 0, manifests: 0, inUse: 0, pinned: 0 };
    if (what.all || (what.olderThan === undefined && what.registry === undefined)) {
      result.bytes += await eviction.dropPartials();
    }
    const before = what.olderThan === undefined ? Number.MAX_SAFE_INTEGER : steadyNow() - what.olderThan;
    const total = this.#context.index.totals().bytes;
    const report = (): void => onProgress({ done: result.bytes, total });
    if (what.registry !== undefined) await this.#pruneRegistry(what.registry, before, result, report, signal);
    else if (what.all || what.olderThan !== undefined) await this.#pruneOld(before, result, report, signal);
    invalidate();
    return result;
  }

  async verify(onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Verified> {
    const { index, flush } = this.#context;
    flush();
    const total = index.totals().bytes;
    const dropped: { digest: Digest; reason: string }[] = [];
    let [blobs, bytes, last] = [0, 0, null as Digest | null];
    for (let rows = index.blobsAfter(null, BATCH); rows.length > 0; rows = index.blobsAfter(last, BATCH)) {
      for (const row of rows) {
        last = row.digest;
        const reason = await checkBlob(this.#context, row, signal);
        if (reason !== null) dropped.push({ digest: row.digest, reason });
        blobs++;
        bytes += row.size;
        onProgress({ done: bytes, total });
      }
    }
    const manifests = await this.#verifyManifests(dropped, signal);
    const { adopted, removed } = await reconcile(this.#context, signal);
    return { blobs, bytes, manifests, dropped, adopted, removed };
  }

  async #verifyManifests(dropped: { digest: Digest; reason: string }[], signal: AbortSignal): Promise<number> {
    const { index } = this.#context;
    let [count, last] = [0, null as Digest | null];
    for (let rows = index.manifestsAfter(null, BATCH); rows.length > 0; rows = index.manifestsAfter(last, BATCH)) {
      const wrong = checkManifests(this.#context, rows);
      dropped.push(...wrong.map((digest) => ({ digest, reason: 'the bytes of the manifest are wrong' })));
      count += rows.length;
      last = rows.at(-1)?.digest ?? null;
      await sleep(PAUSE, signal);
    }
    return count;
  }

  async #pruneOld(before: number, result: Counts, report: () => void, signal: AbortSignal): Promise<void> {
    const { index } = this.#context;
    for (const rows of index.leastRecent(BATCH)) {
      const old = rows.filter(({ lastUse }) => lastUse < before);
      await this.#drop(old, result);
      report();
      if (old.length < rows.length) break;
      await sleep(PAUSE, signal);
    }
    while (index.lists.dropBefore(before, BATCH)) await sleep(PAUSE, signal);
    const spare = (digest: Digest): boolean => {
      const pinned = this.pins.has(digest);
      if (pinned) result.pinned++;
      return pinned;
    };
    for (;;) {
      const gone = index.dropManifestsBefore(before, BATCH, spare);
      result.manifests += gone.length;
      if (gone.length < BATCH) return;
      await sleep(PAUSE, signal);
    }
  }

  async #pruneRegistry(
    registry: string,
    before: number,
    result: Counts,
    report: () => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { index } = this.#context;
    let last: Digest | null = null;
    for (;;) {
      const digests: Digest[] = index.onlyOf(registry, last, BATCH);
      const rows = digests.map((digest) => index.blob(digest)).filter((row) => row !== null);
      const old = ({ digest }: BlobRow): boolean => (index.lastUse(digest) ?? 0) < before;
      await this.#drop(before === Number.MAX_SAFE_INTEGER ? rows : rows.filter(old), result);
      const blobs = new Set(rows.map(({ digest }) => digest));
      const others = digests.filter((digest) => !blobs.has(digest));
      const manifests = others.filter((digest) => !this.pins.has(digest));
      result.pinned += others.length - manifests.length;
      index.removeManifests(manifests);
      result.manifests += manifests.length;
      report();
      if (digests.length < BATCH) break;
      last = digests.at(-1) ?? null;
      await sleep(PAUSE, signal);
    }
    // What its repositories said and gave is what pinned images are given by.
    if (before !== Number.MAX_SAFE_INTEGER || this.pins.hasRegistry(registry)) return;
    while (index.forgetRegistry(registry, BATCH)) await sleep(PAUSE, signal);
  }

  async #drop(rows: readonly BlobRow[], result: Counts): Promise<void> {
    const { busy, eviction } = this.#context;
    const loose = rows.filter(({ digest }) => !this.pins.has(digest));
    result.pinned += rows.length - loose.length;
    const free = loose.filter(({ digest }) => !busy(digest));
    result.inUse += loose.length - free.length;
    result.blobs += free.length;
    result.bytes += free.reduce((sum, { size }) => sum + size, 0);
    await eviction.dropBlobs(free);
  }
}

interface Counts {
  pinned: number;
  blobs: number;
  bytes: number;
  manifests: number;
  inUse: number;
}
