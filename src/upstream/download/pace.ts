/** Over how long a pace is measured: long against the pauses of a good link, short enough that a download which was fast once does not pass for fast. */
const WINDOW_MS = 3_000;

/** How fast a transfer has been lately. */
export class Pace {
  #since = performance.now();
  #bytes = 0;
  #measured = Number.POSITIVE_INFINITY;

  /** It starts, or goes on after a rest: nothing is known of it. */
  begin(): void {
    this.#since = performance.now();
    this.#bytes = 0;
    this.#measured = Number.POSITIVE_INFINITY;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Infinity until it has been measured, so that what has just begun is not taken for slow. To be asked now and then, so that the window moves on. */
  get bytesPerSecond(): number {
    const elapsed = performance.now() - this.#since;
    if (elapsed >= WINDOW_MS) {
      this.#measured = (this.#bytes * 1000) / elapsed;
      this.#since += elapsed;
      this.#bytes = 0;
    }
    return this.#measured;
  }
}
