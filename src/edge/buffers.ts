/**
 * How much one client is lent while so many bytes are lent: large enough that the cost of a read, of TLS records and of a write is spread
 * thin, smaller in a crowd of slow clients, where what counts is what all of them hold together. Node holds what was written once more,
 * encrypted, so 200 pulls hold 32 MiB at most in a process and 500 hold 50; less where they share what they read.
 */
const STEPS = [
  { upTo: 8 * 1024 * 1024, size: 256 * 1024 },
  { upTo: 10 * 1024 * 1024, size: 128 * 1024 },
  { upTo: 12 * 1024 * 1024, size: 64 * 1024 },
  { upTo: Number.POSITIVE_INFINITY, size: 32 * 1024 },
];
const SIZES = STEPS.map(({ size }) => size).reverse();
/** Buffers of one size that are kept for the next; more are left to the garbage collector. */
const KEPT = 16;

/**
 * Buffers for bodies. The one that came back last goes out first: it is still in the processor's cache, and clients that take everything
 * at once share a few.
 */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>(SIZES.map((size) => [size, []]));
  #out = 0;

  /** How much a client is lent at a time, by how much all of them have. */
  get step(): number {
    return STEPS.find(({ upTo }) => this.#out < upTo)?.size ?? 0;
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

  /** So many bytes are out: a buffer, or a part of one that a further client is sent, for whom Node holds it encrypted once more. */
  lend(bytes: number): void {
    this.#out += bytes;
  }

  returned(bytes: number): void {
    this.#out -= bytes;
  }

  get idle(): boolean {
    return this.#out === 0;
  }

  /** Keeps none for the next. */
  clear(): void {
    for (const free of this.#free.values()) free.length = 0;
  }
}
