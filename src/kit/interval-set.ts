/** A run of bytes `[from, to)`, offsets from the start of the content. `to` is Infinity where the content's size is not known yet. */
export interface Extent {
  readonly from: number;
  readonly to: number;
}

/**
 * A set of byte offsets, kept as sorted, disjoint extents that never touch. It serves for the bytes that are there (the cache) as well as
 * for those that are missing or that a connection is to fetch (upstream). Mostly there are few extents, about one for each connection, but a blob
 * of which only parts are read has thousands: what is asked often searches by halves.
 */
export class IntervalSet {
  readonly #extents: { from: number; to: number }[] = [];

  constructor(extents: readonly Extent[] = []) {
    for (const { from, to } of extents) this.add(from, to);
  }

  /** What of `[0, size)` is not in `extents`. */
  static complement(extents: readonly Extent[], size: number = Number.POSITIVE_INFINITY): IntervalSet {
    const set = new IntervalSet([{ from: 0, to: size }]);
    for (const { from, to } of extents) set.remove(from, to);
    return set;
  }

  get empty(): boolean {
    return this.#extents.length === 0;
  }

  /** How many bytes; Infinity where the last extent has no end. */
  get bytes(): number {
    let sum = 0;
    for (const { from, to } of this.#extents) sum += to - from;
    return sum;
  }

  /** The lowest offset in the set; 0 where it is empty. */
  get start(): number {
    return this.#extents[0]?.from ?? 0;
  }

  /** The end of the highest extent, exclusive; 0 where the set is empty. */
  get end(): number {
    return this.#extents.at(-1)?.to ?? 0;
  }

  /** A copy, in ascending order. */
  list(): Extent[] {
    return this.#extents.map(({ from, to }) => ({ from, to }));
  }

  /** How many extents. */
  get count(): number {
    return this.#extents.length;
  }

  /** Whether any byte of `[from, to)` is in the set. */
  overlaps(from: number, to: number): boolean {
    const extent = this.#extents[this.#indexOfEndAtLeast(from + 1)];
    return extent !== undefined && extent.from < to && from < to;
  }

  /** The end of the extent that covers `offset`; `offset` itself where that byte is not in the set. */
  endFrom(offset: number): number {
    const extent = this.#extents[this.#indexOfEndAtLeast(offset + 1)];
    return extent !== undefined && extent.from <= offset ? extent.to : offset;
  }

  /** The nearest bytes at or behind `offset`: one extent, or the rest of one; null where there are none. */
  nextFrom(offset: number): Extent | null {
    const extent = this.#extents[this.#indexOfEndAtLeast(offset + 1)];
    return extent === undefined ? null : { from: Math.max(extent.from, offset), to: extent.to };
  }

  /** Puts `[from, to)` in; it may overlap what is there, and joins with what it touches. */
  add(from: number, to: number): void {
    if (to <= from) return;
    const extents = this.#extents;
    const first = this.#indexOfEndAtLeast(from);
    const merged = { from, to };
    let next = first;
    for (let extent = extents[next]; extent !== undefined && extent.from <= to; extent = extents[++next]) {
      if (extent.from < merged.from) merged.from = extent.from;
      if (extent.to > merged.to) merged.to = extent.to;
    }
    extents.splice(first, next - first, merged);
  }

  /** Takes `[from, to)` out. Returns the parts of it that were in the set. */
  remove(from: number, to: number = Number.POSITIVE_INFINITY): Extent[] {
    const removed: Extent[] = [];
    if (to <= from) return removed;
    const extents = this.#extents;
    const first = this.#indexOfEndAtLeast(from);
    const kept: { from: number; to: number }[] = [];
    let next = first;
    for (let extent = extents[next]; extent !== undefined && extent.from < to; extent = extents[++next]) {
      if (extent.from < from) kept.push({ from: extent.from, to: Math.min(extent.to, from) });
      if (extent.to > from) removed.push({ from: Math.max(extent.from, from), to: Math.min(extent.to, to) });
      if (extent.to > to) kept.push({ from: to, to: extent.to });
    }
    if (removed.length > 0) extents.splice(first, next - first, ...kept);
    return removed;
  }

  /** Takes everything out, and returns it. */
  clear(): Extent[] {
    return this.#extents.splice(0);
  }

  /** Takes out the nearest bytes at or behind `offset`, at most `limit` of one extent (rounded up to whole bytes); null where there are none. */
  takeNext(limit: number, offset = 0): Extent | null {
    for (const extent of this.#extents) {
      if (extent.to > offset) return this.#take(Math.max(extent.from, offset), extent.to, limit);
    }
    return null;
  }

  /** Takes out bytes of the extent that begins exactly at `from`, at most `limit` (rounded up to whole bytes); null where none begins there. */
  takeAt(from: number, limit: number): Extent | null {
    for (const extent of this.#extents) {
      if (extent.from === from) return this.#take(from, extent.to, limit);
    }
    return null;
  }

  #take(from: number, end: number, limit: number): Extent {
    const to = Math.min(end, from + Math.ceil(limit));
    this.remove(from, to);
    return { from, to };
  }

  /** The first extent that ends at or behind `offset`: those before it neither overlap nor touch what begins there. */
  #indexOfEndAtLeast(offset: number): number {
    const extents = this.#extents;
    let [low, high] = [0, extents.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((extents[middle]?.to ?? offset) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
