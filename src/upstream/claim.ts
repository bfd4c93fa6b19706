import type { Extent } from '../kit/interval-set.ts';

/** What one connection has undertaken to fetch: sorted, disjoint runs that shrink from the front as bytes come, and from the back as others take over. */
export class Claim {
  #runs: { from: number; to: number }[];

  constructor(runs: readonly Extent[]) {
    this.#runs = runs.map(({ from, to }) => ({ from, to }));
  }

  get done(): boolean {
    return this.#runs.length === 0;
  }

  /** The lowest byte that is not here yet. */
  get from(): number {
    return this.#runs[0]?.from ?? 0;
  }

  get to(): number {
    return this.#runs.at(-1)?.to ?? 0;
  }

  get bytes(): number {
    return this.#runs.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  /** Which parts of `[from, to)`, bytes that just arrived, are wanted; they count as fetched from now on. */
  arrived(from: number, to: number): Extent[] {
    const wanted: Extent[] = [];
    for (let run = this.#runs[0]; run !== undefined && run.from < to; run = this.#runs[0]) {
      const end = Math.min(run.to, to);
      const start = Math.max(run.from, from);
      if (start < end) wanted.push({ from: start, to: end });
      run.from = end;
      if (run.from < run.to) break;
      this.#runs.shift();
    }
    return wanted;
  }

  /** More to fetch; runs may come in any order. */
  add(runs: readonly Extent[]): void {
    this.#runs.push(...runs.map(({ from, to }) => ({ from, to })));
    this.#runs.sort((a, b) => a.from - b.from);
  }

  /** Gives up what lies from `at` on. */
  cut(at: number): Extent[] {
    const given: Extent[] = [];
    const kept: { from: number; to: number }[] = [];
    for (const run of this.#runs) {
      if (run.to > at) given.push({ from: Math.max(at, run.from), to: run.to });
      if (run.from < at) kept.push({ from: run.from, to: Math.min(at, run.to) });
    }
    this.#runs = kept;
    return given;
  }

  giveUp(): Extent[] {
    return this.cut(0);
  }
}
