import { createHash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { sleep } from '../kit/time.ts';
import { type BlobKey, digestAlgorithm, digestHex } from '../oci/names.ts';
import { GATEWAY_GONE, type ImageSource, SourceError } from './image-source.ts';

export interface SteadyBlobOptions {
  readonly source: ImageSource;
  readonly key: BlobKey;
  /** Of the whole, as its descriptor says. */
  readonly size: number;
  /** The first byte that is wanted. */
  readonly from: number;
  readonly signal: AbortSignal;
  /** Waits; of the test's own. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** Tries without a byte in between, of a registry that fails. */
const TRIES = 4;
/** For how long a gateway is waited for that has ended, ms: it is started again, and reads what it has. */
const GATEWAY_WAIT = 60_000;
const FIRST_WAIT = 500;
const LONGEST_WAIT = 5_000;

/**
 * A blob of an image that is read on where it stopped, when the connection breaks, the registry fails for a moment, or the gateway is started again.
 * Exactly the bytes that its descriptor says are given: a source that has more or fewer is refused. Nothing is hashed here.
 */
export class SteadyBlob implements ByteSource {
  readonly length: number;
  readonly #options: SteadyBlobOptions;
  #at: number;
  #open: ByteSource | null = null;
  #beginning: Promise<ByteSource> | null = null;
  #tries = 0;
  /** When a gateway was first missed, by `performance.now`; null while it is there. */
  #missedAt: number | null = null;

  constructor(options: SteadyBlobOptions) {
    this.#options = options;
    this.#at = options.from;
    this.length = options.size - options.from;
  }

  /** Has the source begin before anything is read of it: a gateway fetches what it lacks meanwhile. What goes wrong with that, `pull` meets. */
  begin(): void {
    if (this.#open !== null || this.#beginning !== null || this.#at === this.#options.size) return;
    this.#beginning = this.#ask();
    this.#beginning.catch(() => {});
  }

  /** @throws {SourceError} where it cannot be had, after all tries; {OperatorError} `IMAGE_DAMAGED` */
  async pull(into: Uint8Array): Promise<number> {
    const { size, key } = this.#options;
    for (;;) {
      // What broke off at its very end lacks nothing.
      if (this.#open === null && this.#at === size) return 0;
      try {
        this.#open ??= await (this.#beginning ?? this.#ask());
        this.#beginning = null;
        const count = await this.#open.pull(into);
        if (count === 0 && this.#at === size) return 0;
        if (count === 0 || this.#at + count > size)
          throw new OperatorError(
            'IMAGE_DAMAGED',
            `${key.registry}/${key.repository}: ${key.digest} has ${count === 0 ? 'fewer' : 'more'} bytes than the ${size} that its manifest says`,
          );
        this.#at += count;
        this.#tries = 0;
        this.#missedAt = null;
        return count;
      } catch (error) {
        await this.close();
        await this.#patience(error);
      }
    }
  }

  /** All of it, where it is small, with the digest that it should have. @throws as `pull` */
  async whole(): Promise<Uint8Array> {
    const { size, key } = this.#options;
    const bytes = Buffer.allocUnsafe(size + 1);
    let length = 0;
    for (;;) {
      const count = await this.pull(bytes.subarray(length));
      if (count === 0) break;
      length += count;
    }
    const whole = bytes.subarray(0, length);
    if (createHash(digestAlgorithm(key.digest)).update(whole).digest('hex') !== digestHex(key.digest)) {
      throw new OperatorError(
        'IMAGE_DAMAGED',
        `${key.registry}/${key.repository}: what came as ${key.digest} is something else`,
      );
    }
    return whole;
  }

  async close(): Promise<void> {
    const [open, beginning] = [this.#open, this.#beginning];
    this.#open = null;
    this.#beginning = null;
    await open?.close();
    // Nobody waits for what was not waited for before.
    if (open === null) void beginning?.then((body) => body.close()).catch(() => {});
  }

  async #ask(): Promise<ByteSource> {
    const { source, key, size, signal } = this.#options;
    const blob = await source.blob(key, this.#at, signal);
    if (blob.size === undefined || blob.size === size) return blob.body;
    await blob.body.close();
    throw new OperatorError(
      'IMAGE_DAMAGED',
      `${key.registry}/${key.repository}: ${key.digest} has ${blob.size} bytes, and its manifest says ${size}`,
    );
  }

  /** Waits for another try, or gives up. */
  async #patience(error: unknown): Promise<void> {
    const { signal, wait = sleep } = this.#options;
    signal.throwIfAborted();
    const gone = error instanceof SourceError && error.code === GATEWAY_GONE;
    if (gone) {
      this.#missedAt ??= performance.now();
      if (performance.now() - this.#missedAt > GATEWAY_WAIT) throw error;
    } else {
      const passing = error instanceof TruncatedError || (error instanceof SourceError && error.status >= 500);
      this.#tries += 1;
      if (!passing || this.#tries >= TRIES) throw asSourceError(error);
    }
    const asked = error instanceof SourceError ? (error.retryAfter ?? 0) * 1000 : 0;
    if (asked > GATEWAY_WAIT) throw error;
    await wait(Math.max(asked, Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.max(0, this.#tries - 1))), signal);
  }
}

function asSourceError(error: unknown): unknown {
  if (!(error instanceof TruncatedError)) return error;
  return new SourceError(502, 'UNAVAILABLE', `a blob broke off again and again: ${error.message}`);
}
