import type { Statement } from 'better-sqlite3';
import { prepareAll } from './cache-statements.ts';
import type { Database } from './database.ts';
import { UseTimes } from './use-times.ts';

/** The statements of the log; each finds its rows by a key. */
export const USE_SQL = {
  addUse: 'INSERT INTO uses (at, digest, blob) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET blob = excluded.blob',
  removeUse: 'DELETE FROM uses WHERE at = ? AND blob = ?',
  removeUpTo: 'DELETE FROM uses WHERE (at, digest) <= (?, ?)',
  usesAfter: 'SELECT at, digest, blob FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT ?',
  // Without digests, which would cost more than the rest; then the last of them alone.
  timesAfter: 'SELECT blob, at FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT ?',
  placeAfter: 'SELECT at, digest FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT 1 OFFSET ?',
} as const;

/** Entries that are read back at once after a start: a few ms. */
const READ_SLICE = 5_000;
/** Entries at the old end that are looked at in one step. */
const PAGE = 100;
/** Steps that go with a batch of uses: less than a ms, and seldom more than one of them finds anything. */
const TRIM = 10;

/** A place in the log, just behind the entry of this time and digest. */
export interface UsePlace {
  readonly at: number;
  readonly digest: Buffer;
}

export interface UseEntry extends UsePlace {
  /** Number of the blob. */
  readonly blob: number;
}

const START: UsePlace = { at: -1, digest: Buffer.alloc(0) };

/**
 * When blobs were last used: a log in order of time. A use is appended, and what the log said of the blob before is outdated from then on,
 * until it is swept up. To change a row for each use instead would write two pages of two trees, each somewhere else: of a million blobs,
 * a hundred uses dirty two hundred pages that way, and a handful this way.
 *
 * Which entry is a blob's newest is known in memory. After a start the log is read back in slices, or at once for whoever asks for its order.
 * Every method that writes is called in a transaction; after one that failed `forget` must be called.
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

  /** A blob is new, or was put in again. */
  put(digest: Buffer, blob: number, at: number): void {
    this.remove(blob);
    this.#append(digest, blob, at);
  }

  /** A blob was used. An earlier use than is known says nothing. */
  touch(digest: Buffer, blob: number, at: number): void {
    if (at > (this.#newest.get(blob) ?? -1)) this.#append(digest, blob, at);
  }

  /** A blob is gone. What is outdated of it stays until it is swept up. */
  remove(blob: number): void {
    const at = this.#newest.get(blob);
    if (at === undefined) return;
    this.#newest.delete(blob);
    this.#run.removeUse.run(at, blob);
  }

  /** When a blob was used last, ms since 1970. */
  lastUse(blob: number): number | undefined {
    this.#readBack(Number.POSITIVE_INFINITY);
    return this.#newest.get(blob);
  }

  /**
   * The blobs used longest ago, the oldest first, from behind a place on. Outdated entries on the way are removed.
   * `find` gives what is known of a blob, or null for one that is gone.
   */
  oldest<T>(limit: number, after: UsePlace | null, find: (entry: UseEntry) => T | null): T[] {
    this.#readBack(Number.POSITIVE_INFINITY);
    if (after === null) this.#trim(Number.POSITIVE_INFINITY);
    const found: T[] = [];
    let place = after ?? START;
    for (;;) {
      const entries = this.#run.usesAfter.all(place.at, place.digest, PAGE) as UseEntry[];
      for (const entry of entries) {
        if (found.length === limit) return found;
        const newest = this.#newest.get(entry.blob) === entry.at;
        const one = newest ? find(entry) : null;
        if (one !== null) found.push(one);
        else if (newest) this.remove(entry.blob);
        else this.#run.removeUse.run(entry.at, entry.blob);
        place = entry;
      }
      if (entries.length < PAGE) return found;
    }
  }

  /**
   * What goes with a batch of uses: a slice of the log is read back, or some of what is outdated is swept up. Every entry is looked at again
   * after as many uses as there are entries, so the log comes to two entries a blob where uses are spread evenly, and fewer where they are not.
   */
  tend(uses: number): void {
    if (this.#readUpTo !== null) this.#readBack(READ_SLICE);
    else {
      this.#trim(TRIM);
      this.#sweep(uses);
    }
  }

  /** Memory is thrown away, and the log read again: a transaction failed, and what it wrote is undone. */
  forget(): void {
    this.#newest.clear();
    this.#readUpTo = START;
    this.#swept = START;
  }

  /** A log that cannot be read does not keep the program from starting; whoever uses it meets the error again. */
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

  /** Drops outdated entries at the old end, up to the first that is not; at most so many pages of them. */
  #trim(pages: number): void {
    for (let page = 0; page < pages; page++) {
      const times = this.#times(START, PAGE);
      const kept = times.findIndex(([blob, at]) => this.#newest.get(blob) === at);
      const outdated = kept === -1 ? times.length : kept;
      if (outdated === 0) return;
      const { at, digest } = this.#place(START, outdated);
      this.#run.removeUpTo.run(at, digest);
      if (outdated < PAGE) return;
    }
  }

  /** Drops outdated entries among the next ones, going round. */
  #sweep(limit: number): void {
    if (limit === 0) return;
    const times = this.#times(this.#swept, limit);
    this.#swept = times.length < limit ? START : this.#place(this.#swept, limit);
    for (const [blob, at] of times) if (this.#newest.get(blob) !== at) this.#run.removeUse.run(at, blob);
  }

  /** What this run has seen itself is newer than anything that is read. */
  #readBack(limit: number): void {
    for (let left = limit; left > 0 && this.#readUpTo !== null; left -= READ_SLICE) {
      const times = this.#times(this.#readUpTo, READ_SLICE);
      for (const [blob, at] of times) {
        if (at > (this.#newest.get(blob) ?? -1)) this.#newest.set(blob, at);
      }
      this.#readUpTo = times.length < READ_SLICE ? null : this.#place(this.#readUpTo, READ_SLICE);
    }
  }

  #times({ at, digest }: UsePlace, limit: number): [blob: number, at: number][] {
    return this.#run.timesAfter.all(at, digest, limit) as [number, number][];
  }

  /** Of the entry so many places on. */
  #place({ at, digest }: UsePlace, entries: number): UsePlace {
    return this.#run.placeAfter.get(at, digest, entries - 1) as UsePlace;
  }
}
