/** Numbers of blobs in one block. Blobs go in about the order in which they came, so whole blocks become empty. */
const BLOCK = 256;

/** When each blob was last used, by its number: 8 bytes a blob, where a `Map` of numbers takes 50. */
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
