import type { ByteSource } from '../kit/byte-source.ts';

/**
 * How large a buffer is while so many bytes are out: large enough that the cost of a read, of TLS records and of a write is spread thin,
 * smaller in a crowd of slow clients, where what counts is what all of them hold together: 200 pulls hold 15 MiB at most in a process, 500
 * hold 25, and Node holds as much again encrypted.
 */
const STEPS = [
  { upTo: 4 * 1024 * 1024, size: 256 * 1024 },
  { upTo: 8 * 1024 * 1024, size: 128 * 1024 },
  { upTo: 12 * 1024 * 1024, size: 64 * 1024 },
  { upTo: Number.POSITIVE_INFINITY, size: 32 * 1024 },
];
/** Buffers of one size that are kept for the next; more are left to the garbage collector. */
const KEPT = 16;
/**
 * Reads of files under way at a time. Bytes that the kernel holds come at once, and more would fill buffers that have left the
 * processor's cache again when their turn to be written comes: 8 at a time cost a fifth more CPU a byte than 2.
 */
const READS = 2;
/** A read that takes longer waits for a disk, or for an upstream where the file is damaged: others go on beside it. */
const PATIENCE_MS = 10;

/** A buffer, and how much of it holds bytes. */
export interface Filled {
  readonly buffer: Buffer;
  readonly count: number;
}

/**
 * Buffers for bodies, lent from a read to the end of its write. The one that came back last goes out first: it is still in the
 * processor's cache, and clients that take everything at once share a few.
 */
export class BufferPool {
  readonly #free = new Map<number, Buffer[]>(STEPS.map(({ size }) => [size, []]));
  readonly #waiting: (() => void)[] = [];
  #out = 0;
  #reads = 0;

  /** The next bytes of a source; count 0 at its end. No buffer is taken before they are here, where the source can tell. */
  async fill(source: ByteSource): Promise<Filled> {
    if (!(await source.ready?.())) return this.#pull(source);
    if (this.#reads < READS) this.#reads++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let patience: NodeJS.Timeout | null = setTimeout(() => {
      patience = null;
      this.#next();
    }, PATIENCE_MS);
    try {
      return await this.#pull(source);
    } finally {
      if (patience !== null) {
        clearTimeout(patience);
        this.#next();
      }
    }
  }

  /** A read is done, or counts no longer. */
  #next(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#reads--;
    else next();
  }

  /** Only when no write can touch it any more. */
  give(buffer: Buffer): void {
    this.#out -= buffer.length;
    const free = this.#free.get(buffer.length);
    if (free !== undefined && free.length < KEPT) free.push(buffer);
  }

  async #pull(source: ByteSource): Promise<Filled> {
    const buffer = this.#take();
    try {
      return { buffer, count: await source.pull(buffer) };
    } catch (error) {
      this.give(buffer);
      throw error;
    }
  }

  #take(): Buffer {
    const size = STEPS.find(({ upTo }) => this.#out < upTo)?.size ?? 0;
    this.#out += size;
    return this.#free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size);
  }
}
