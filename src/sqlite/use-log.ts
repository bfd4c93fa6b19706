import type { Statement } from 'better-sqlite3';
import { steadyNow } from '../kit/time.ts';
import { type Database, prepareAll } from './database.ts';

/** The statements of the log; each finds its rows by a key. */
export const USE_SQL = {
  addUse: 'INSERT INTO uses (at, digest, blob) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET blob = excluded.blob',
  removeUse: 'DELETE FROM uses WHERE at = ? AND blob = ?',
  removeBetween: 'DELETE FROM uses WHERE (at, digest) > (?, ?) AND (at, digest) <= (?, ?)',
  usesAfter: 'SELECT at, digest, blob FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT ?',
  // Without digests, which would cost more than the rest; `placeAfter` then reads the digest of the last entry alone.
  timesAfter: 'SELECT blob, at FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT ?',
  placeAfter: 'SELECT at, digest FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT 1 OFFSET ?',
} as const;

/** Entries read back in one step after a start: a few ms. */
const READ_SLICE = 5_000;
/** Entries looked at, and deleted where they are outdated, in one step: a few ms where all have to be deleted one by one. */
const SWEEP_SLICE = 1_000;

/** A place in the log, just behind the entry of this time and digest. */
export interface UsePlace {
  readonly at: number;
  readonly digest: Buffer;
}

export interface UseEntry extends UsePlace {
  /** Number of the blob. */
  readonly blob: number;
}

/** ms since 1970 that is put in place of a time that cannot be. */
const LONG_AGO = 0;

/** Before the first entry. */
export const START: UsePlace = { at: -1, digest: Buffer.alloc(0) };

/**
 * When blobs were last used: a log in order of time. A use is appended, which makes the blob's earlier entry outdated; outdated entries are
 * deleted later ("swept"). Updating a row for each use instead would write to two places of two trees: of a million blobs, a hundred uses
 * then write two hundred pages, and a handful with the log.
 *
 * Which entry is a blob's newest is known in memory. After a start the log is read back in slices first: by `tend`, `tidy` and `walk`.
 * Every method that writes must be called in a transaction; when a transaction has failed, `forget` must be called.
 */
export class UseLog {
  readonly #run: Readonly<Record<keyof typeof USE_SQL, Statement>>;
  readonly #newest = new UseTimes();
  /** How far the log has been read since the start; null for to its end. */
  #readUpTo: UsePlace | null = START;
  #swept = START;

  constructor(database: Database) {
    this.#run = prepareAll(database, USE_SQL);
    this.#run.timesAfter.raw();
    if (this.#isEmpty()) this.#readUpTo = null;
  }

  /** A blob was added, or added again. */
  put(digest: Buffer, blob: number, at: number): void {
    this.remove(blob);
    this.#append(digest, blob, at);
  }

  /** A blob was used. A use earlier than the newest one known changes nothing. */
  touch(digest: Buffer, blob: number, at: number): void {
    if (at > (this.#newest.get(blob) ?? -1)) this.#append(digest, blob, at);
  }

  /** A blob was removed. Its outdated entries stay until they are swept. */
  remove(blob: number): void {
    const at = this.#newest.get(blob);
    if (at === undefined) return;
    this.#newest.delete(blob);
    this.#run.removeUse.run(at, blob);
  }

  /** When a blob was used last, ms since 1970. Reads back at once what is not yet. */
  lastUse(blob: number): number | undefined {
    while (this.#readUpTo !== null) this.#readBack(this.#readUpTo);
    return this.#newest.get(blob);
  }

  /**
   * One step of a walk over the newest uses, the oldest first: those just behind a place, no more than `limit`, and where to go on; null at the
   * end. Outdated entries on the way are removed. So that no step is long, there may be none: first the log has to be read back, and a
   * stretch of outdated entries takes as many steps as it is long.
   */
  walk(from: UsePlace, limit: number): { readonly uses: readonly UseEntry[]; readonly next: UsePlace | null } {
    if (this.#readUpTo !== null) {
      this.#readBack(this.#readUpTo);
      return { uses: [], next: from };
    }
    let place = from;
    // What is outdated comes in stretches: where all was, there is probably more.
    for (let [looked, page] = [0, limit]; looked < SWEEP_SLICE; looked += page, page *= 2) {
      const { kept, next } = this.#sweep(place, page);
      if (next === null || kept > 0) {
        const uses = this.#run.usesAfter.all(place.at, place.digest, Math.min(kept, limit)) as UseEntry[];
        return { uses, next: kept > limit ? (uses.at(-1) ?? null) : next };
      }
      place = next;
    }
    return { uses: [], next: place };
  }

  /**
   * To be called with each batch of uses: reads back a slice of the log, or sweeps as many entries as there were uses. Every entry is thus
   * looked at again after as many uses as there are entries, so the log has at most about two entries for each blob.
   */
  tend(uses: number): void {
    if (this.#readUpTo !== null) this.#readBack(this.#readUpTo);
    else if (uses > 0) this.#swept = this.#sweep(this.#swept, uses).next ?? START;
  }

  /** One step of putting the whole log in order: reads it back, then sweeps it from a place on. Returns where to go on; null at the end. */
  tidy(from: UsePlace): UsePlace | null {
    if (this.#readUpTo === null) return this.#sweep(from, SWEEP_SLICE).next;
    this.#readBack(this.#readUpTo);
    return from;
  }

  /** A transaction failed, and what it wrote is undone: what is in memory is dropped, and the log is read back again. */
  forget(): void {
    this.#newest.clear();
    this.#readUpTo = START;
    this.#swept = START;
  }

  /** A log that cannot be read does not keep the program from starting; the methods that read it will throw. */
  #isEmpty(): boolean {
    try {
      return this.#times(START, 1).length === 0;
    } catch {
      return false;
    }
  }

  #append(digest: Buffer, blob: number, at: number): void {
    this.#run.addUse.run(at, digest, blob);
    this.#newest.set(blob, at);
  }

  /** Looks at `limit` entries behind a place, and deletes those that are outdated. Returns how many stay, and the place of the next; null at the end. */
  #sweep(from: UsePlace, limit: number): { readonly kept: number; readonly next: UsePlace | null } {
    const times = this.#times(from, limit);
    const next = times.length < limit ? null : this.#place(from, limit);
    const outdated = times.filter(([blob, at]) => this.#newest.get(blob) !== at);
    if (next !== null && outdated.length === limit) {
      this.#run.removeBetween.run(from.at, from.digest, next.at, next.digest);
    } else {
      for (const [blob, at] of outdated) this.#run.removeUse.run(at, blob);
    }
    return { kept: times.length - outdated.length, next };
  }

  /** Reads one slice. Uses of this run are newer than anything that is read. */
  #readBack(from: UsePlace): void {
    const times = this.#times(from, READ_SLICE);
    if ((times.at(-1)?.[1] ?? 0) > steadyNow()) {
      this.#readUpTo = this.#bringBack(from);
      return;
    }
    for (const [blob, at] of times) {
      if (at > (this.#newest.get(blob) ?? -1)) this.#newest.set(blob, at);
    }
    this.#readUpTo = times.length < READ_SLICE ? null : this.#place(from, READ_SLICE);
  }

  /**
   * The same for a slice at the end of the log where times are still to come: they were kept while the clock was wrong, and are long ago. Their
   * entries are moved to the beginning of the log, since at its end they would keep their blobs for ever.
   */
  #bringBack(from: UsePlace): UsePlace | null {
    const now = steadyNow();
    const entries = this.#run.usesAfter.all(from.at, from.digest, SWEEP_SLICE) as UseEntry[];
    for (const { at, digest, blob } of entries) {
      const newest = this.#newest.get(blob);
      if (at > now) {
        this.#run.removeUse.run(at, blob);
        if (newest === undefined) this.#append(digest, blob, LONG_AGO);
      } else if (at > (newest ?? -1)) this.#newest.set(blob, at);
    }
    return entries.length < SWEEP_SLICE ? null : (entries.at(-1) ?? null);
  }

  #times({ at, digest }: UsePlace, limit: number): [blob: number, at: number][] {
    return this.#run.timesAfter.all(at, digest, limit) as [number, number][];
  }

  /** Of the entry so many places on. */
  #place({ at, digest }: UsePlace, entries: number): UsePlace {
    return this.#run.placeAfter.get(at, digest, entries - 1) as UsePlace;
  }
}

/** Numbers of blobs in one block of `UseTimes`. Blobs are evicted in about the order in which they came, so whole blocks become empty. */
const BLOCK = 256;

/** When each blob was last used, by its number: 8 bytes for each blob, where a `Map` of numbers takes 50. */
export class UseTimes {
  readonly #blocks = new Map<number, { readonly times: Float64Array; held: number }>();

  /** ms since 1970; undefined where it is not known. */
  get(blob: number): number | undefined {
    const time = this.#blocks.get(Math.floor(blob / BLOCK))?.times[blob % BLOCK];
    return time === undefined || Number.isNaN(time) ? undefined : time;
  }

  set(blob: number, time: number): void {
    const number = Math.floor(blob / BLOCK);
    let block = this.#blocks.get(number);
    if (block === undefined) {
      block = { times: new Float64Array(BLOCK).fill(Number.NaN), held: 0 };
      this.#blocks.set(number, block);
    }
    if (Number.isNaN(block.times[blob % BLOCK])) block.held++;
    block.times[blob % BLOCK] = time;
  }

  delete(blob: number): void {
    const number = Math.floor(blob / BLOCK);
    const block = this.#blocks.get(number);
    if (block === undefined || Number.isNaN(block.times[blob % BLOCK])) return;
    block.times[blob % BLOCK] = Number.NaN;
    if (--block.held === 0) this.#blocks.delete(number);
  }

  clear(): void {
    this.#blocks.clear();
  }
}
