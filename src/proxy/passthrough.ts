import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import type { BlobKey } from '../oci/names.ts';
import { contentRange } from '../oci/range.ts';
import { VerifiedSource } from '../oci/transfer.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { blobHeaders, type Reply } from './reply.ts';

/** Blobs straight from the upstream, past the cache. */
export class Passthrough {
  readonly #upstream: Upstream;

  constructor(upstream: Upstream) {
    this.#upstream = upstream;
  }

  /** The whole blob, checked on its way. `signal` ends it when the client leaves. */
  async whole(key: BlobKey, signal: AbortSignal): Promise<Reply> {
    const { source, size } = await this.#upstream.openBlob(key, null, signal);
    return {
      status: 200,
      headers: blobHeaders(key.digest, size),
      body: new VerifiedSource(source, key.digest),
      from: 'upstream',
    };
  }

  /** A part of it; null where the upstream would rather send the whole. */
  async part(
    key: BlobKey,
    range: { from: number; to?: number | undefined },
    signal: AbortSignal,
  ): Promise<Reply | null> {
    const stream = await this.#upstream.openBlob(key, bounds(range), signal);
    const { contentRange: part, source } = stream;
    if (stream.status === 200 || part === undefined) {
      await source.close();
      return null;
    }
    const headers = {
      ...blobHeaders(key.digest, part.to - part.from),
      'content-range': contentRange(part, part.size),
    };
    return { status: 206, headers, body: source, from: 'upstream' };
  }

  /** From an offset to the end, for a reader whose cache failed in the middle. */
  async rest(key: BlobKey, from: number, signal: AbortSignal): Promise<ByteSource> {
    const stream = await this.#upstream.openBlob(key, from === 0 ? null : { from }, signal);
    if (from === 0 || stream.status === 206) return stream.source;
    return new SkippingSource(stream.source, from);
  }
}

function bounds(range: { from: number; to?: number | undefined } | Extent): { from: number; to?: number } {
  return range.to === undefined ? { from: range.from } : { from: range.from, to: range.to };
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
