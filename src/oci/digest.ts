import { createHash, type Hash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';

/** `sha256:<64 hex>` or `sha512:<128 hex>`, lower case, checked (image-spec, *Digests*). */
export type Digest = string & { readonly __digest: unique symbol };

const HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };

/** Parses a digest; null where it is none that this gateway can verify. */
export function parseDigest(text: string): Digest | null {
  const colon = text.indexOf(':');
  const hex = text.slice(colon + 1);
  if (colon < 1 || HEX_LENGTH[text.slice(0, colon)] !== hex.length || !/^[0-9a-f]+$/.test(hex)) return null;
  return text as Digest;
}

export function digestAlgorithm(digest: Digest): 'sha256' | 'sha512' {
  return digest.startsWith('sha512:') ? 'sha512' : 'sha256';
}

export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** Most bytes that are held back until the digest is known. */
const HELD = 64 * 1024;

const NOTHING = new Uint8Array(0);

/**
 * Checks the digest of a blob, or of the rest of one, while it is read past the cache: the bytes read last are held back until newer ones have
 * come or the digest has proved right, so that no reader ever gets the whole of a wrong body.
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
