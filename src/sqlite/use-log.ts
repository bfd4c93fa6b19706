import type { Statement } from 'better-sqlite3';
import { prepareAll } from './cache-statements.ts';
import type { Database } from './database.ts';
import { UseTimes } from './use-times.ts';

/** The statements of the log; each finds its rows by a key. */
export const USE_SQL = {
  addUse: 'INSERT INTO uses (at, digest, blob) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET blob = excluded.blob',
  removeUse: 'DELETE FROM uses WHERE at = ? AND blob = ?',
  removeBetween: 'DELETE FROM uses WHERE (at, digest) > (?, ?) AND (at, digest) <= (?, ?)',
  usesAfter: 'SELECT at, digest, blob FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT ?',
  // Without digests, which would cost more than the rest; then the last of them alone.
  timesAfter: 'SELECT blob, at FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT ?',
  placeAfter: 'SELECT at, digest FROM uses WHERE (at, digest) > (?, ?) ORDER BY at, digest LIMIT 1 OFFSET ?',
} as const;

/** Entries read back in one step after a start: a few ms. */
const READ_SLICE = 5_000;
/** Entries looked at, and swept up where they are outdated, in one step: a few ms where all have to go one by one. */
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

/** Before the first entry. */
export const START: UsePlace = { at: -1, digest: Buffer.alloc(0) };

/**
 * When blobs were last used: a log in order of time. A use is appended, and what the log said of the blob before is outdated from then on,
 * until it is swept up. To change a row for each use instead would write two pages of two trees, each somewhere else: of a million blobs,
 * a hundred uses dirty two hundred pages that way, and a handful this way.
 *
 * Which entry is a blob's newest is known in memory. After a start the log is read back in slices first: by `tend`, `tidy` and `walk`.
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
   * What goes with a batch of uses: a slice of the log is read back, or some of what is outdated is swept up. Every entry is looked at again
   * after as many uses as there are entries, so the log comes to two entries a blob where uses are spread evenly, and fewer where they are not.
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

  /** Looks at so many entries behind a place, and drops those that are outdated. Tells how many stay, and where the next ones are; null at the end. */
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

  /** One slice. What this run has seen itself is newer than anything that is read. */
  #readBack(from: UsePlace): void {
    const times = this.#times(from, READ_SLICE);
    for (const [blob, at] of times) {
      if (at > (this.#newest.get(blob) ?? -1)) this.#newest.set(blob, at);
    }
    this.#readUpTo = times.length < READ_SLICE ? null : this.#place(from, READ_SLICE);
  }

  #times({ at, digest }: UsePlace, limit: number): [blob: number, at: number][] {
    return this.#run.timesAfter.all(at, digest, limit) as [number, number][];
  }

  /** Of the entry so many places on. */
  #place({ at, digest }: UsePlace, entries: number): UsePlace {
    return this.#run.placeAfter.get(at, digest, entries - 1) as UsePlace;
  }
}
