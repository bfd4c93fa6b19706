import type { Readable } from 'node:stream';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { reasonOf } from './failures.ts';

/** A response body read by pulling. Nothing is read ahead beyond the stream's own buffer, so a slow client holds back the upstream. */
export class BodySource implements ByteSource {
  readonly length: number | undefined;
  readonly #body: Readable;
  readonly #count: (bytes: number) => void;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;
  #ended = false;
  #error: Error | null = null;
  #wake: (() => void) | null = null;

  /** `count` is told of every piece that is read. */
  constructor(body: Readable, length: number | undefined, count: (bytes: number) => void) {
    this.length = length;
    this.#count = count;
    this.#body = body;
    const wake = (): void => {
      this.#wake?.();
      this.#wake = null;
    };
    body.on('readable', wake);
    body.on('end', () => {
      this.#ended = true;
      wake();
    });
    body.on('error', (error) => {
      this.#error = error;
      wake();
    });
    body.on('close', wake);
  }

  async pull(into: Uint8Array): Promise<number> {
    while (this.#at === this.#chunk.length) {
      const chunk = this.#body.read() as Uint8Array | null;
      if (chunk !== null) {
        this.#chunk = chunk;
        this.#at = 0;
        this.#count(chunk.length);
        continue;
      }
      if (this.#ended) return 0;
      if (this.#error !== null || this.#body.destroyed) {
        throw new TruncatedError(`the upstream's body broke off: ${reasonOf(this.#error)}`, { cause: this.#error });
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const end = Math.min(this.#chunk.length, this.#at + into.length);
    into.set(this.#chunk.subarray(this.#at, end));
    const count = end - this.#at;
    this.#at = end;
    return count;
  }

  async close(): Promise<void> {
    this.#body.destroy();
    this.#wake?.();
  }
}
