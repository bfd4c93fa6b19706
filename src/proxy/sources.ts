import type { FileSource, SharedRead } from '../cache/shared-read.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';

/** Calls `after` once when a source is closed: for what must live as long as it does. */
export class WithCleanup implements FileSource {
  readonly #inner: FileSource;
  readonly #after: () => void;
  #closed = false;

  constructor(inner: FileSource, after: () => void) {
    this.#inner = inner;
    this.#after = after;
  }

  get length(): number | undefined {
    return this.#inner.length;
  }

  pull(into: Uint8Array): Promise<number> {
    return this.#inner.pull(into);
  }

  share(): SharedRead | null {
    return this.#closed ? null : (this.#inner.share?.() ?? null);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#inner.close();
    } finally {
      this.#after();
    }
  }
}

/** Reads past the first `skip` bytes, for an upstream that sends the whole where a part was asked for. */
export class SkippingSource implements ByteSource {
  readonly #inner: ByteSource;
  #skip: number;

  constructor(inner: ByteSource, skip: number) {
    this.#inner = inner;
    this.#skip = skip;
  }

  get length(): number | undefined {
    return this.#inner.length === undefined ? undefined : Math.max(0, this.#inner.length - this.#skip);
  }

  async pull(into: Uint8Array): Promise<number> {
    while (this.#skip > 0) {
      const count = await this.#inner.pull(into.subarray(0, Math.min(into.length, this.#skip)));
      if (count === 0) throw new TruncatedError('the upstream ended before the part that was asked for');
      this.#skip -= count;
    }
    return this.#inner.pull(into);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
