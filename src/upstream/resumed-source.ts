import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { jitter, sleep } from '../kit/time.ts';
import type { BlobStream } from '../oci/transfer.ts';

/** Attempts in a row that bring no byte: clients that read straight through wait half a minute, not longer. */
const MAX_IDLE_ATTEMPTS = 6;
const BACKOFF_MS = 100;
const BACKOFF_MAX_MS = 8_000;

/**
 * A blob's stream that is taken up where it breaks off, by a new request for the rest; as it was where the end is not known. `open` brings a part.
 */
export function resumed(
  stream: BlobStream,
  open: (range: { from: number; to: number }) => Promise<BlobStream>,
  signal: AbortSignal,
): BlobStream {
  const from = stream.contentRange?.from ?? 0;
  const to = stream.contentRange?.to ?? stream.size;
  if (to === undefined) return stream;
  const reopen = async (offset: number): Promise<ByteSource> => {
    const rest = await open({ from: offset, to });
    const fits = rest.contentRange?.to === to && (stream.size ?? rest.size) === (rest.size ?? stream.size);
    if (fits) return rest.source;
    await rest.source.close();
    throw new TruncatedError('the upstream does not bring the rest of what it broke off');
  };
  return { ...stream, source: new ResumedSource(stream.source, { from, to, reopen, signal }) };
}

class ResumedSource implements ByteSource {
  readonly length: number | undefined;
  readonly #reopen: (offset: number) => Promise<ByteSource>;
  readonly #signal: AbortSignal;
  readonly #left = new AbortController();
  readonly #to: number;
  #source: ByteSource;
  #at: number;
  #idle = 0;

  constructor(
    source: ByteSource,
    options: { from: number; to: number; reopen: (offset: number) => Promise<ByteSource>; signal: AbortSignal },
  ) {
    this.length = source.length;
    this.#source = source;
    this.#at = options.from;
    this.#to = options.to;
    this.#reopen = options.reopen;
    this.#signal = AbortSignal.any([options.signal, this.#left.signal]);
  }

  async pull(into: Uint8Array): Promise<number> {
    for (;;) {
      try {
        const count = await this.#source.pull(into);
        this.#at += count;
        this.#idle = 0;
        return count;
      } catch (error) {
        await this.#source.close();
        if (this.#at >= this.#to) return 0;
        await this.#resume(error);
      }
    }
  }

  async close(): Promise<void> {
    this.#left.abort();
    await this.#source.close();
  }

  /** @throws {TruncatedError} where the rest will not come. */
  async #resume(cause: unknown): Promise<void> {
    for (;;) {
      if (this.#signal.aborted || this.#idle++ >= MAX_IDLE_ATTEMPTS) throw truncated(cause);
      try {
        await sleep(jitter(Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.#idle)), this.#signal);
        this.#source = await this.#reopen(this.#at);
        if (!this.#signal.aborted) return;
        await this.#source.close();
      } catch (error) {
        if (error instanceof TruncatedError) throw error;
      }
    }
  }
}

function truncated(cause: unknown): TruncatedError {
  return cause instanceof TruncatedError ? cause : new TruncatedError('the body broke off', { cause });
}
