import type { Extent } from '../kit/interval-set.ts';

/** Bytes still to be fetched that nobody is fetching: sorted, disjoint runs. The last is open (`to` is Infinity) while the size is unknown. */
export class Gaps {
  #runs: Extent[];

  /** Everything but what is held (sorted, disjoint). */
  constructor(held: readonly Extent[], size: number = Number.POSITIVE_INFINITY) {
    this.#runs = [];
    let at = 0;
    for (const { from, to } of held) {
      if (from > at) this.#runs.push({ from: at, to: from });
      at = Math.max(at, to);
    }
    if (at < size) this.#runs.push({ from: at, to: size });
  }

  get empty(): boolean {
    return this.#runs.length === 0;
  }

  get bytes(): number {
    return this.#runs.reduce((sum, { from, to }) => sum + to - from, 0);
  }

  list(): readonly Extent[] {
    return this.#runs;
  }

  /** Takes out the lowest bytes, at most `limit` of one run. */
  takeFirst(limit: number): Extent | null {
    const [first] = this.#runs;
    return first === undefined ? null : this.takeAt(first.from, limit);
  }

  /** Takes out bytes that begin exactly at `from`; null where they are not missing or someone else fetches them. */
  takeAt(from: number, limit: number): Extent | null {
    const index = this.#runs.findIndex((run) => run.from === from);
    const run = this.#runs[index];
    if (run === undefined) return null;
    const taken = { from, to: Math.min(run.to, from + Math.ceil(limit)) };
    if (taken.to === run.to) this.#runs.splice(index, 1);
    else this.#runs[index] = { from: taken.to, to: run.to };
    return taken;
  }

  takeAll(): Extent[] {
    return this.#runs.splice(0);
  }

  /** Puts back what was taken and not fetched. */
  give({ from, to }: Extent): void {
    if (to <= from) return;
    let at = this.#runs.findIndex((run) => run.from > from);
    if (at < 0) at = this.#runs.length;
    this.#runs.splice(at, 0, { from, to });
    const [before, given, after] = [this.#runs[at - 1], { from, to }, this.#runs[at + 1]];
    if (after !== undefined && after.from === to) {
      given.to = after.to;
      this.#runs.splice(at, 2, given);
    }
    if (before !== undefined && before.to === from) this.#runs.splice(at - 1, 2, { from: before.from, to: given.to });
  }

  /** The size became known. */
  trim(size: number): void {
    this.#runs = this.#runs
      .filter((run) => run.from < size)
      .map((run) => ({ from: run.from, to: Math.min(run.to, size) }));
  }
}
