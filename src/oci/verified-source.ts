import { createHash, type Hash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { type Digest, digestAlgorithm, digestHex } from './digest.ts';

/** Most bytes that wait for the digest. */
const HELD = 64 * 1024;

const NOTHING = new Uint8Array(0);

/**
 * A whole blob, or the rest of one, streamed past the cache, checked on its way: the bytes read last wait until newer ones have come or the digest is right,
 * so that a wrong body is never whole.
 */
export class VerifiedSource implements ByteSource {
  readonly #inner: ByteSource;
  readonly #digest: Digest;
  readonly #hash: Hash;
  /** Two buffers in turn: one is handed out while the other waits. */
  #reading = Buffer.allocUnsafe(HELD);
  #other = Buffer.allocUnsafe(HELD);
  #out: Uint8Array = NOTHING;
  #waiting: Uint8Array = NOTHING;
  #ended = false;

  /** `before`: the hash of what the client has already, where `inner` goes on from there. */
  constructor(inner: ByteSource, digest: Digest, before: Hash = createHash(digestAlgorithm(digest))) {
    this.#inner = inner;
    this.#digest = digest;
    this.#hash = before;
  }

  get length(): number | undefined {
    return this.#inner.length;
  }

  async pull(into: Uint8Array): Promise<number> {
    while (this.#out.length === 0) {
      if (this.#ended) return 0;
      await this.#readOn();
    }
    const count = Math.min(this.#out.length, into.length);
    into.set(this.#out.subarray(0, count));
    this.#out = this.#out.subarray(count);
    return count;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #readOn(): Promise<void> {
    const buffer = this.#reading;
    const count = await this.#inner.pull(buffer);
    this.#out = this.#waiting;
    if (count === 0) {
      if (this.#hash.digest('hex') !== digestHex(this.#digest)) {
        throw new TruncatedError(`the bytes are not those of ${this.#digest}`);
      }
      this.#waiting = NOTHING;
      this.#ended = true;
      return;
    }
    this.#waiting = buffer.subarray(0, count);
    this.#hash.update(this.#waiting);
    this.#reading = this.#other;
    this.#other = buffer;
  }
}
