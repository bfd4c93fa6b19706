/**
 * Bytes of one buffer of a body; a pull holds two. Large enough that the cost of a read, a TLS record batch and a write
 * is spread thin, small enough that 200 pulls at once hold 50 MiB.
 */
const BUFFER_SIZE = 128 * 1024;
/** Buffers kept for the next pull; more are left to the garbage collector. */
const KEPT = 64;

/** Buffers that go from pull to pull, so that bodies cost no allocation. */
export class BufferPool {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_SIZE);
  }

  /** Only when neither a read nor a write can touch it any more. */
  give(buffer: Buffer): void {
    if (this.#free.length < KEPT) this.#free.push(buffer);
  }
}
