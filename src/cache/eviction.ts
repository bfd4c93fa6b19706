import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { type MaybePromise, Mutex } from '../kit/async.ts';
import { steadyNow } from '../kit/time.ts';
import type { Digest } from '../oci/names.ts';
import { CacheError } from './blob-cache.ts';
import type { Layout } from './files.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import type { Pins } from './pins.ts';
import { freeOf, isForWantOfRoom, type Room, sum, UNKNOWN } from './room.ts';

/** What the cache has promised to a fill, and the room that the fill has taken of it. */
export interface Reservation {
  /** Bytes for which there is room now. */
  readonly bytes: number;
  /**
   * Makes room for so many bytes of the file in all, and for some of those that will follow: for as many as have come, within bounds. Null
   * where there is room already, or at once; else a promise that rejects with a `CacheError` where there will be none.
   * @throws {CacheError} as the promise rejects
   */
  take(bytes: number): Promise<void> | null;
  /** So many of the bytes are on the disk now, and no longer free there. */
  wrote(bytes: number): void;
  /** Ends the reservation: the blob is in the index now, or gone. */
  release(): void;
}

/** What a fill needs of the eviction. */
export interface SpaceReserver {
  /**
   * Admits a fill that will bring so many bytes; undefined where the upstream does not say. Nothing is dropped for what is only promised.
   * `partial` names the fill's file, as for `addPartial`.
   * @throws {CacheError} `too-large`; `no-room` where running fills were promised the rest of the cache; `min-free` where the disk has not so much
   */
  reserve(partial: string, promised: number | undefined): Reservation;
  /** Runs what writes to the disk. Where the file system has no room for it, makes room and tries again. @throws as the task does in the end */
  withRoom<T>(task: () => MaybePromise<T>): Promise<T>;
  /**
   * An ended fill left so many bytes in its partial file, to be taken up later; it is dropped like a blob that was used last at `at`, ms, when space
   * is needed.
   */
  addPartial(partial: string, bytes: number, at?: number): void;
}

/** Eviction starts when the cache would be over its size, and goes on down to this share of it, so that it comes seldom. */
const LOW_SHARE = 0.9;
/** Rows looked at, dropped and unlinked between two turns of the event loop. */
const BATCH = 64;
/** Room is taken for what has come and for as much again, within these bounds: a fill that promises much and brings little takes little. */
const LEAST_AHEAD = 64 * 1024;
const MOST_AHEAD = 4 * 1024 * 1024;
/** So many files the file system must still be able to make: a fill makes three, and many fills run at once. */
const FREE_FILES = 32;
/** What is dropped first when the file system refuses a write; twice as much each further time. */
const REFUSED_BYTES = 1024 * 1024;
const REFUSED_FILES = 4;
/** Then it is not for room that it refuses, or others take the room as fast as it is made. */
const MOST_REFUSALS = 7;
/** The file of a partial, and its record. */
const PARTIAL_FILES = 2;

export interface EvictionOptions {
  readonly maxSize: number;
  readonly minFree: number;
  readonly layout: Layout;
  readonly index: CacheIndex;
  /** The blob is in use now. */
  readonly inUse: (digest: Digest) => boolean;
  /** What operators have pinned stays, whatever room is needed. */
  readonly pins: Pins;
  /** Writes times of use to the index before the least recently used are picked. */
  readonly flush: () => void;
  /** A blob is dropped; `removed` resolves when its file and its row are gone. Until then nobody may find it. */
  readonly dropped: (digest: Digest, removed: Promise<void>) => void;
  readonly evicted: (count: number) => void;
  /** Removes the partial file of an ended fill. */
  readonly dropPartial: (partial: string) => Promise<void>;
  /** The index failed while room was made. Fills go on. */
  readonly indexFailed: (error: unknown) => void;
  /** Free bytes of the disk; replaced in tests of `minFree`. */
  readonly freeBytes?: () => MaybePromise<number>;
}

/** Keeps the cache within its size and leaves the disk its `minFree`. Least recently used blobs go first; what is in use stays. */
export class Eviction implements SpaceReserver {
  readonly #options: EvictionOptions;
  #limits: Pick<EvictionOptions, 'maxSize' | 'minFree'>;
  /** One decision at a time, so that two fills never count on the same bytes. */
  readonly #mutex = new Mutex();
  /** Partial files of ended fills: their bytes, and when they were used last, ms. */
  readonly #partials = new Map<string, { readonly bytes: number; readonly at: number }>();
  #partialBytes = 0;
  /** Blobs whose file is gone, and whose row the index would not give up; it is asked again at the next eviction. */
  readonly #unlinked = new Map<Digest, number>();
  #unlinkedBytes = 0;
  /** Bytes that running fills may still bring, and the room that they have. */
  #promised = 0;
  #taken = 0;
  /** Of the room that fills have, the bytes that are not on the disk yet. */
  #unwritten = 0;
  /** Bytes of the index's rows when it last said so. */
  #known = 0;
  #indexFailures = 0;

  constructor(options: EvictionOptions) {
    this.#options = options;
    this.#limits = options;
  }

  /** Other bounds; what is beyond them goes at once, unless nothing is to be kept any more: then what there is stays as it is. */
  reconfigure(limits: Pick<EvictionOptions, 'maxSize' | 'minFree'>): void {
    this.#limits = limits;
    // Where not enough can be dropped now, the next fill tries again and says so.
    if (limits.maxSize > 0) this.#mutex.run(() => this.#makeSpace()).catch(() => {});
  }

  /** Bytes that the cache takes, or has given to fills. Manifests are part of the cache, and count. */
  get used(): number {
    return this.#keptBytes() + this.#partialBytes + this.#taken - this.#unlinkedBytes;
  }

  /** Bytes that the disk has beyond `minFree`, what running fills have room for taken off. Unknown where the disk does not say at once: nothing is wrong then. */
  get spare(): number {
    const free = this.#free();
    return free instanceof Promise ? Number.POSITIVE_INFINITY : -this.#shortage(free).bytes;
  }

  get partials(): { readonly count: number; readonly bytes: number } {
    return { count: this.#partials.size, bytes: this.#partialBytes };
  }

  reserve(partial: string, promised: number | undefined): Reservation {
    const { maxSize } = this.#limits;
    const expected = promised ?? 0;
    const held = this.#partials.get(partial)?.bytes ?? 0;
    if (expected > maxSize)
      throw new CacheError('too-large', `a blob of ${expected} bytes is larger than the whole cache`);
    if (this.#promised + expected > maxSize)
      throw new CacheError('no-room', 'the whole cache is promised to running fills');
    const pinned = this.#options.pins.totals.heldBytes;
    if (pinned > 0 && pinned + this.#promised + expected > maxSize)
      throw new CacheError(
        'no-room',
        `${pinned} bytes of the cache are pinned, and it has no room for ${expected} besides`,
      );
    this.#checkDisk(expected - held);
    this.#forgetPartial(partial);
    const state = { promised: 0, taken: 0, unwritten: 0, released: false };
    const promise = (bytes: number): void => {
      state.promised += bytes;
      this.#promised += bytes;
    };
    const book = (bytes: number, unwritten: number): void => {
      state.taken += bytes;
      state.unwritten += unwritten;
      this.#taken += bytes;
      this.#unwritten += unwritten;
      if (state.taken > state.promised) promise(state.taken - state.promised);
    };
    promise(expected);
    book(held, 0);
    const take = (bytes: number): Promise<void> | null => {
      if (bytes <= state.taken || state.released) return null;
      if (bytes > maxSize)
        throw new CacheError('too-large', `a blob of more than ${maxSize} bytes is larger than the whole cache`);
      const ahead = bytes + Math.min(MOST_AHEAD, Math.max(LEAST_AHEAD, bytes));
      const target = Math.min(maxSize, promised === undefined ? ahead : Math.max(bytes, Math.min(promised, ahead)));
      const more = target - state.taken;
      if (this.#isThere(more)) {
        book(more, more);
        return null;
      }
      return this.#mutex.run(async () => {
        const lacking = target - state.taken;
        if (state.released || lacking <= 0) return;
        book(lacking, lacking);
        try {
          await this.#makeSpace();
        } catch (error) {
          // As if it had not been asked for.
          if (!state.released) book(-lacking, -lacking);
          throw error;
        }
      });
    };
    return {
      get bytes() {
        return state.taken;
      },
      take,
      wrote: (count) => {
        const fewer = Math.min(count, state.unwritten);
        state.unwritten -= fewer;
        this.#unwritten -= fewer;
      },
      release: () => {
        if (state.released) return;
        state.released = true;
        this.#promised -= state.promised;
        this.#taken -= state.taken;
        this.#unwritten -= state.unwritten;
      },
    };
  }

  /** Room for so many bytes, where there is as much without dropping anything; else null. */
  reserveFree(name: string, bytes: number): Reservation | null {
    if (!this.#isThere(bytes)) return null;
    const reservation = this.reserve(name, bytes);
    // Taken in this very turn: there is room, as was just seen.
    if (reservation.take(bytes) === null) return reservation;
    reservation.release();
    return null;
  }

  async withRoom<T>(task: () => MaybePromise<T>): Promise<T> {
    for (let refusals = 0; ; refusals++) {
      try {
        return await task();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EFBIG') {
          throw new CacheError('too-large', 'the file system holds no file so large', error);
        }
        if (!isForWantOfRoom(error) || refusals === MOST_REFUSALS || !(await this.makeRoom(2 ** refusals))) throw error;
      }
    }
  }

  /** Drops something because the file system refused a write, `times` as much as at the first refusal. Returns whether anything was dropped. */
  makeRoom(times = 1): Promise<boolean> {
    return this.#mutex.run(async () => {
      const freed = await this.#evict({ bytes: times * REFUSED_BYTES, files: times * REFUSED_FILES }, 'either');
      return freed.files > 0;
    });
  }

  addPartial(partial: string, bytes: number, at: number = steadyNow()): void {
    this.#forgetPartial(partial);
    this.#partials.set(partial, { bytes, at });
    this.#partialBytes += bytes;
  }

  /** Brings the cache within its limits; at the start, and after the limits or the disk changed. */
  enforce(): Promise<void> {
    return this.#mutex.run(() => this.#makeSpace());
  }

  /** A blob is in the index again, and its file in its place. */
  added(digest: Digest): void {
    this.#unlinkedBytes -= this.#unlinked.get(digest) ?? 0;
    this.#unlinked.delete(digest);
    this.#options.pins.isHere(digest, true);
  }

  /** Drops partial files of ended fills, the oldest first, until so many bytes are free. Returns how many are. */
  async dropPartials(bytes = Number.POSITIVE_INFINITY): Promise<number> {
    return (await this.#dropPartials((freed) => freed.bytes >= bytes)).bytes;
  }

  /**
   * Drops blobs that nobody uses: first the files, then the rows. A crash in between leaves rows without a file, which `finishEarlier` removes;
   * a file without a row would take room that nobody counts. A file that cannot be removed keeps its row, unless it is damaged. Returns
   * what was freed. Never rejects.
   */
  async dropBlobs(rows: readonly BlobRow[], { damaged = false } = {}): Promise<Room> {
    if (rows.length === 0) return { bytes: 0, files: 0 };
    const gone = this.#unlink(rows).then((unlinked) => {
      this.#removeRows(damaged ? rows : unlinked);
      return unlinked;
    });
    // In the same turn as the caller's look whether they are in use.
    for (const { digest } of rows)
      this.#options.dropped(
        digest,
        gone.then(() => {}),
      );
    const unlinked = await gone;
    return { bytes: unlinked.reduce((sum, { size }) => sum + size, 0), files: unlinked.length };
  }

  /** Ends what a process before this one had begun: rows of files that it had removed are no damage. Once, before anything is dropped. */
  finishEarlier(): void {
    try {
      this.#options.index.finishRemovals((digest) => !existsSync(this.#options.layout.blob(digest)));
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Those whose file is gone now. */
  async #unlink(rows: readonly BlobRow[]): Promise<BlobRow[]> {
    try {
      this.#options.index.announceRemoval(rows.map(({ digest }) => digest));
    } catch {
      // A full disk has no room for the note before the files are gone. Without it a crash would leave what looks like damage, and nothing worse.
    }
    const results = await Promise.allSettled(
      rows.map(({ digest }) => rm(this.#options.layout.blob(digest), { force: true })),
    );
    return rows.filter((_, place) => results[place]?.status === 'fulfilled');
  }

  #removeRows(rows: readonly BlobRow[]): void {
    for (const { digest, size } of rows) {
      this.#options.pins.isHere(digest, false);
      if (!this.#unlinked.has(digest)) this.#unlinkedBytes += size;
      this.#unlinked.set(digest, size);
    }
    try {
      this.#options.index.removeBlobs([...this.#unlinked.keys()]);
      this.#unlinked.clear();
      this.#unlinkedBytes = 0;
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    this.#indexFailures++;
    this.#options.indexFailed(error);
  }

  #keptBytes(): number {
    try {
      const { index } = this.#options;
      const { bytes, manifestBytes } = index.totals();
      this.#known = bytes + manifestBytes + index.lists.bytes();
    } catch (error) {
      this.#failed(error);
    }
    return this.#known;
  }

  #forgetPartial(partial: string): void {
    this.#partialBytes -= this.#partials.get(partial)?.bytes ?? 0;
    this.#partials.delete(partial);
  }

  /** Whether there is room for so much more without dropping anything. */
  #isThere(more: number): boolean {
    const free = this.#free();
    if (free instanceof Promise) return false;
    const short = this.#shortage(free);
    return this.used + more <= this.#limits.maxSize && short.bytes + more <= 0 && short.files <= 0;
  }

  async #makeSpace(): Promise<void> {
    const { maxSize } = this.#limits;
    const failures = this.#indexFailures;
    if (this.used > maxSize) await this.#evict({ bytes: this.used - LOW_SHARE * maxSize, files: 0 });
    // What the index cannot say or do now is no reason to end a fill; it is made good at the next eviction.
    if (this.used > maxSize && failures === this.#indexFailures)
      throw new CacheError('no-room', 'everything in the cache is in use or pinned');
    const short = this.#shortage(await this.#free());
    if (short.bytes <= 0 && short.files <= 0) return;
    await this.#evict(short);
    if (this.#shortage(await this.#free()).bytes > 0) throw this.#minFree();
  }

  /** Refuses what the disk could not hold even if everything were dropped. */
  #checkDisk(promised: number): void {
    const free = this.#free();
    if (free instanceof Promise) return;
    const evictable = this.#keptBytes() - this.#options.pins.totals.heldBytes + this.#partialBytes;
    const toCome = this.#promised - this.#taken + promised;
    if (this.#shortage(free).bytes + toCome > evictable) throw this.#minFree();
  }

  #minFree(): CacheError {
    const { minFree } = this.#limits;
    return new CacheError('min-free', `the disk has less than cache.minFree (${minFree} bytes) to spare`);
  }

  /** What the disk would lack of `minFree`, and of files, once everything is written for which there is room. */
  #shortage(free: Room): Room {
    return { bytes: this.#limits.minFree + this.#unwritten - free.bytes, files: FREE_FILES - free.files };
  }

  #free(): MaybePromise<Room> {
    const { freeBytes, layout } = this.#options;
    if (freeBytes === undefined) return freeOf(layout.partials);
    const bytes = freeBytes();
    const room = (count: number): Room => ({ bytes: count, files: Number.POSITIVE_INFINITY });
    return bytes instanceof Promise ? bytes.then(room, () => UNKNOWN) : room(bytes);
  }

  /** Drops until so much is free, what was used longest ago first. With `either`, bytes or files will do. */
  async #evict(wanted: Room, until: 'both' | 'either' = 'both'): Promise<Room> {
    const enough = ({ bytes, files }: Room): boolean =>
      until === 'both'
        ? bytes >= wanted.bytes && files >= wanted.files
        : bytes >= wanted.bytes || files >= wanted.files;
    let freed: Room = { bytes: 0, files: 0 };
    const spared = new Map<Digest, number>();
    const dropPartials = async (before: number): Promise<void> => {
      const more = await this.#dropPartials((bySoFar) => enough(sum(freed, bySoFar)), before);
      freed = sum(freed, more);
    };
    this.#options.flush();
    try {
      for (const rows of this.#options.index.leastRecent(BATCH)) {
        await dropPartials(rows[0]?.lastUse ?? 0);
        const victims: BlobRow[] = [];
        let hoped = freed;
        for (const row of rows) {
          if (enough(hoped)) break;
          if (this.#options.inUse(row.digest) || this.#unlinked.has(row.digest)) continue;
          if (this.#options.pins.hasBlob(row.digest)) {
            spared.set(row.digest, steadyNow());
            continue;
          }
          victims.push(row);
          hoped = { bytes: hoped.bytes + row.size, files: hoped.files + 1 };
        }
        const dropped = await this.dropBlobs(victims);
        freed = sum(freed, dropped);
        this.#options.evicted(dropped.files);
        if (enough(freed)) break;
        await turn();
      }
      // The next one does not come by them first. Not before the walk has ended, which finds what is used meanwhile again.
      if (spared.size > 0) this.#options.index.touchBlobs(spared);
    } catch (error) {
      this.#failed(error);
    }
    await dropPartials(Number.POSITIVE_INFINITY);
    return freed;
  }

  /** Drops partial files that were used last before `before`, ms; the one that was used longest ago first. */
  async #dropPartials(enough: (freed: Room) => boolean, before = Number.POSITIVE_INFINITY): Promise<Room> {
    let freed: Room = { bytes: 0, files: 0 };
    if (enough(freed)) return freed;
    // Those that an earlier process left were found in the order of their names.
    const oldestFirst = [...this.#partials].filter(([, { at }]) => at <= before).sort(([, a], [, b]) => a.at - b.at);
    for (const [partial, left] of oldestFirst) {
      if (enough(freed)) break;
      // A fill has taken it up meanwhile.
      if (this.#partials.get(partial) !== left) continue;
      this.#forgetPartial(partial);
      await this.#options.dropPartial(partial);
      freed = sum(freed, { bytes: left.bytes, files: PARTIAL_FILES });
    }
    return freed;
  }
}
