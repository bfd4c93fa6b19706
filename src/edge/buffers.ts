/** Bytes of one buffer of a body; a pull holds two. Large enough that the cost of a read, of TLS records and of a write is spread thin. */
const BUFFER_SIZE = 256 * 1024;
/** In a crowd the machine is busy anyway, and what counts is what all of them hold together: 500 pulls about 45 MiB. */
const CROWD_SIZE = 32 * 1024;
/** Large buffers in use (two a pull), from which on the next pulls get small ones. */
const CROWD = 64;
/** Buffers kept for the next pull; more are left to the garbage collector. */
const KEPT = 32;

/** Buffers that go from pull to pull, so that bodies cost no allocation. */
export class BufferPool {
  readonly #free: Buffer[] = [];
  #large = 0;

  take(): Buffer {
    if (this.#large >= CROWD) return Buffer.allocUnsafeSlow(CROWD_SIZE);
    this.#large++;
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BUFFER_SIZE);
  }

  /** Only when neither a read nor a write can touch it any more. */
  give(buffer: Buffer): void {
    if (buffer.length < BUFFER_SIZE) return;
    this.#large--;
    if (this.#free.length < KEPT) this.#free.push(buffer);
  }
}
