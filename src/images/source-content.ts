import { createHash, type Hash } from 'node:crypto';
import { OperatorError } from '../kit/operator-error.ts';
import { type BlobKey, type Digest, digestAlgorithm, digestHex } from '../oci/names.ts';
import type { ImageSource } from './image-source.ts';
import type { BlobContent } from './push-target.ts';
import { SteadyBlob, type SteadyBlobOptions } from './steady-blob.ts';

/** Bytes read at once of what is only hashed. */
const SKIP_CHUNK = 256 * 1024;

/**
 * A blob of a source, read from wherever it is wanted. Every byte is hashed once, in order, whatever is read again, so that the digest is that of all that
 * was given.
 */
export class SourceContent implements BlobContent {
  readonly digest: Digest;
  readonly size: number;
  readonly #options: Omit<SteadyBlobOptions, 'from'>;
  readonly #hash: Hash;
  #body: SteadyBlob | null = null;
  #at = 0;
  /** Bytes from the first that are in the hash. */
  #hashed = 0;

  constructor(options: Omit<SteadyBlobOptions, 'from'>) {
    this.digest = options.key.digest;
    this.size = options.size;
    this.#options = options;
    this.#hash = createHash(digestAlgorithm(options.key.digest));
  }

  async seek(offset: number): Promise<void> {
    if (offset !== this.#at) {
      // What lies before and was not hashed yet is read: nothing is skipped of what the digest is for.
      const from = Math.min(offset, this.#hashed);
      if (from !== this.#at) await this.close();
      this.#at = from;
    }
    const skipped = Buffer.allocUnsafe(this.#at < offset ? SKIP_CHUNK : 0);
    while (this.#at < offset) await this.pull(skipped.subarray(0, Math.min(SKIP_CHUNK, offset - this.#at)));
  }

  async pull(into: Uint8Array): Promise<number> {
    this.#body ??= new SteadyBlob({ ...this.#options, from: this.#at });
    const count = await this.#body.pull(into);
    const fresh = this.#at + count - this.#hashed;
    if (fresh > 0) {
      this.#hash.update(into.subarray(count - fresh, count));
      this.#hashed += fresh;
    }
    this.#at += count;
    return count;
  }

  async verify(): Promise<void> {
    await this.seek(this.size);
    // A copy, so that it can be asked again.
    if (this.#hash.copy().digest('hex') === digestHex(this.digest)) return;
    const { registry, repository } = this.#options.key;
    throw new OperatorError(
      'IMAGE_DAMAGED',
      `${registry}/${repository}: what came as ${this.digest} is something else`,
    );
  }

  /** May be called more than once. */
  async close(): Promise<void> {
    const body = this.#body;
    this.#body = null;
    await body?.close();
  }
}

/** How large a blob is of which no descriptor says it (schema 1): read through where its registry does not say either. @throws {SourceError} */
export async function sizeOf(source: ImageSource, key: BlobKey, signal: AbortSignal): Promise<number> {
  const { size, body } = await source.blob(key, 0, signal);
  try {
    if (size !== undefined) return size;
    const chunk = Buffer.allocUnsafe(SKIP_CHUNK);
    let read = 0;
    for (let count = await body.pull(chunk); count > 0; count = await body.pull(chunk)) read += count;
    return read;
  } finally {
    await body.close();
  }
}
