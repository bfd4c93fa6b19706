import type { Extent } from '../kit/extent.ts';

/** Which bytes are there: sorted, disjoint, merged extents. Few at any time (one for each connection of a fill). */
export class ExtentSet {
  readonly #extents: { from: number; to: number }[] = [];

  constructor(extents: readonly Extent[] = []) {
    for (const { from, to } of extents) this.add(from, to);
  }

  add(from: number, to: number): void {
    if (to <= from) return;
    let first = 0;
    while (first < this.#extents.length && (this.#extents[first]?.to ?? 0) < from) first++;
    let last = first;
    const merged = { from, to };
    for (; last < this.#extents.length; last++) {
      const extent = this.#extents[last];
      if (extent === undefined || extent.from > to) break;
      merged.from = Math.min(merged.from, extent.from);
      merged.to = Math.max(merged.to, extent.to);
    }
    this.#extents.splice(first, last - first, merged);
  }

  /** Whether any byte of `[from, to)` is in the set. */
  overlaps(from: number, to: number): boolean {
    return this.#extents.some((extent) => extent.from < to && from < extent.to);
  }

  /** The end of the run that starts at or before `offset` and covers it; `offset` itself where that byte is not there. */
  endFrom(offset: number): number {
    for (const { from, to } of this.#extents) {
      if (from > offset) break;
      if (to > offset) return to;
    }
    return offset;
  }

  get bytes(): number {
    return this.#extents.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  list(): Extent[] {
    return this.#extents.map(({ from, to }) => ({ from, to }));
  }
}
