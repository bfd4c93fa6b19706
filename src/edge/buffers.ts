/**
 * How much a client is sent at a time while there are so many: large enough that the cost of a turn (a read in another thread, a write and
 * its end) is spread thin, which matters most with one or two clients, who share no read; smaller in a crowd: what a process holds beside
 * these buffers grows with them, for each connection (measured with 500 clients; where Node keeps it was not found).
 */
const STEPS = [
  { clients: 32, size: 512 * 1024 },
  { clients: 96, size: 128 * 1024 },
  { clients: 192, size: 64 * 1024 },
  { clients: Number.POSITIVE_INFINITY, size: 32 * 1024 },
];
/** From the smallest step to the largest: beyond the smallest, a body's end takes less than twice what it needs. */
const SIZES = [32, 64, 128, 256, 512].map((kib) => kib * 1024);
/** Buffers of one size that are kept for the next; more are left to the garbage collector. */
const KEPT = 16;

/**
 * Buffers for bodies. The one that came back last goes out first: it is still in the processor's cache, and clients that take everything
 * at once share a few.
 */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>(SIZES.map((size) => [size, []]));
  #clients = 0;

  /** A client begins to be sent a body. */
  join(): void {
    this.#clients++;
  }

  /** Its body is over. */
  leave(): void {
    this.#clients--;
  }

  /** How much a client is sent at a time. */
  get step(): number {
    return STEPS.find(({ clients }) => this.#clients <= clients)?.size ?? 0;
  }

  /** No larger than a step, nor than is needed for so many bytes. */
  take(bytes: number): Buffer {
    const most = Math.min(bytes, this.step);
    const size = SIZES.find((each) => each >= most) ?? this.step;
    return this.#free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  }

  /** Only when nothing reads from it any more. */
  give(buffer: Buffer): void {
    const free = this.#free.get(buffer.length);
    if (free !== undefined && free.length < KEPT) free.push(buffer);
  }

  /** Nobody is sent anything. */
  get idle(): boolean {
    return this.#clients === 0;
  }

  /** Keeps none for the next. */
  clear(): void {
    for (const free of this.#free.values()) free.length = 0;
  }
}
