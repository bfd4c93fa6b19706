import { createHash, type Hash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { jitter, sleep } from '../kit/time.ts';
import { type BlobKey, type Digest, digestAlgorithm, digestHex } from '../oci/names.ts';
import { type ImageSource, SourceError } from './image-source.ts';
import type { BlobContent } from './push-target.ts';

/** Failures in a row, without a byte between them, after which a source is given up. */
const TRIES = 5;
/** Before a source is asked again, ms; doubled each time. */
const FIRST_WAIT_MS = 500;
/** The longest wait that a source may ask for, ms. */
const MOST_MS = 5 * 60_000;
/** Bytes read at once of what is only hashed. */
const SKIP_CHUNK = 256 * 1024;

/**
 * A blob of a source, read from wherever it is wanted. A source that breaks off is asked again from where it stopped. Every byte is hashed once, in
 * order, whatever is read again, so that the digest is that of all that was given.
 */
export class SourceContent implements BlobContent {
  readonly digest: Digest;
  readonly #source: ImageSource;
  readonly #key: BlobKey;
  readonly #firstWait: number;
  readonly #hash: Hash;
  #size: number | undefined;
  #body: ByteSource | null = null;
  #at = 0;
  /** Bytes from the first that are in the hash. */
  #hashed = 0;
  #ended = false;

  constructor(source: ImageSource, key: BlobKey, size: number | undefined, firstWait = FIRST_WAIT_MS) {
    this.digest = key.digest;
    this.#source = source;
    this.#key = key;
    this.#size = size;
    this.#firstWait = firstWait;
    this.#hash = createHash(digestAlgorithm(key.digest));
  }

  get size(): number | undefined {
    return this.#size;
  }

  async seek(offset: number, signal: AbortSignal): Promise<void> {
    if (offset !== this.#at) {
      // What lies before and was not hashed yet is read: nothing is skipped of what the digest is for.
      const from = Math.min(offset, this.#hashed);
      if (from !== this.#at) await this.close();
      this.#at = from;
    }
    const skipped = Buffer.allocUnsafe(this.#at < offset ? SKIP_CHUNK : 0);
    while (this.#at < offset) {
      const count = await this.pull(skipped.subarray(0, Math.min(SKIP_CHUNK, offset - this.#at)), signal);
      if (count === 0) throw this.#wrong(`has ${this.#at} bytes, fewer than were read of it before`);
    }
  }

  async pull(into: Uint8Array, signal: AbortSignal): Promise<number> {
    for (let failures = 0; ; ) {
      if (this.#size !== undefined && this.#at >= this.#size) return 0;
      try {
        this.#body ??= await this.#open(signal);
        const count = await this.#body.pull(into);
        if (count === 0 && this.#size !== undefined) throw new TruncatedError(`it ended after ${this.#at} bytes`);
        this.#take(into.subarray(0, count));
        return count;
      } catch (error) {
        await this.close();
        signal.throwIfAborted();
        failures += 1;
        const wait = Math.max(jitter(this.#firstWait * 2 ** failures), retryAfterOf(error));
        if (!mayPass(error) || failures >= TRIES || wait > MOST_MS) throw this.#failed(error);
        await sleep(wait, signal);
      }
    }
  }

  async verify(signal: AbortSignal): Promise<void> {
    if (this.#ended) return;
    const end = this.#size ?? Number.POSITIVE_INFINITY;
    if (this.#at !== this.#hashed) await this.seek(this.#hashed, signal);
    const rest = Buffer.allocUnsafe(SKIP_CHUNK);
    while (this.#hashed < end && (await this.pull(rest, signal)) > 0);
    if (this.#size !== undefined && this.#hashed !== this.#size)
      throw this.#wrong(`has ${this.#hashed} bytes, and its manifest says ${this.#size}`);
    if (this.#hash.digest('hex') !== digestHex(this.digest)) throw this.#wrong('is of another digest');
    this.#ended = true;
    await this.close();
  }

  /** May be called more than once. */
  async close(): Promise<void> {
    const body = this.#body;
    this.#body = null;
    await body?.close();
  }

  async #open(signal: AbortSignal): Promise<ByteSource> {
    const { size, body } = await this.#source.blob(this.#key, this.#at, signal);
    if (size !== undefined && this.#size !== undefined && size !== this.#size) {
      await body.close();
      throw this.#wrong(`has ${size} bytes, and its manifest says ${this.#size}`);
    }
    this.#size ??= size;
    return body;
  }

  #take(bytes: Uint8Array): void {
    const fresh = this.#at + bytes.length - this.#hashed;
    if (this.#size !== undefined && this.#at + bytes.length > this.#size)
      throw this.#wrong(`has more than the ${this.#size} bytes that its manifest says`);
    if (fresh > 0) {
      this.#hash.update(bytes.subarray(bytes.length - fresh));
      this.#hashed += fresh;
    }
    this.#at += bytes.length;
  }

  #wrong(how: string): SourceError {
    const { registry, repository } = this.#key;
    return new SourceError(400, 'DIGEST_INVALID', `the blob ${this.digest} of ${registry}/${repository} ${how}`);
  }

  #failed(error: unknown): SourceError {
    if (error instanceof SourceError) return error;
    const { registry, repository } = this.#key;
    const why = error instanceof Error ? error.message : String(error);
    return new SourceError(
      502,
      'UNAVAILABLE',
      `the blob ${this.digest} of ${registry}/${repository} broke off: ${why}`,
    );
  }
}

function mayPass(error: unknown): boolean {
  if (error instanceof SourceError) return error.status >= 500 || error.status === 429;
  return error instanceof TruncatedError || (error instanceof Error && 'code' in error);
}

function retryAfterOf(error: unknown): number {
  return error instanceof SourceError ? (error.retryAfter ?? 0) * 1000 : 0;
}
