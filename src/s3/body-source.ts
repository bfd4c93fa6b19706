import type { Readable } from 'node:stream';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';

/** The body of an answer of the store, read by pulling. What the network breaks off ends short, never as if it were whole. */
export class BodySource implements ByteSource {
  readonly length: number;
  readonly #body: Readable;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #left: number;

  /** @param length bytes that were asked for */
  constructor(body: Readable, length: number) {
    this.length = length;
    this.#left = length;
    this.#body = body;
    this.#chunks = body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  }

  async pull(into: Uint8Array): Promise<number> {
    if (this.#left === 0) return 0;
    while (this.#chunk.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done === true) throw new TruncatedError(`the store ended ${this.#left} bytes early`);
      this.#chunk = value;
    }
    const count = Math.min(this.#chunk.length, into.length, this.#left);
    into.set(this.#chunk.subarray(0, count));
    this.#chunk = this.#chunk.subarray(count);
    this.#left -= count;
    return count;
  }

  async close(): Promise<void> {
    // A connection whose body was read to its end is used again.
    if (this.#left > 0) this.#body.destroy();
    else this.#body.resume();
  }
}
