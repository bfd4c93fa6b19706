import { Askers } from '../kit/askers.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { RegistryError } from '../oci/errors.ts';
import type { BlobKey } from '../oci/names.ts';
import { contentRange } from '../oci/range.ts';
import { canHaveSize, VerifiedSource } from '../oci/transfer.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { blobHeaders, type Pull, type Reply } from './reply.ts';

/** Blobs straight from the upstream, past the cache. */
export class Passthrough {
  readonly #upstream: Upstream;

  constructor(upstream: Upstream) {
    this.#upstream = upstream;
  }

  /**
   * The whole blob, checked on its way. The pull's signal ends it when the client leaves.
   * @param options.expected its size as a manifest of the repository says it; undefined where none does
   * @param options.gave called when all of it has come and the digest is right
   * @throws {RegistryError} the upstream's, and upstreamWrong where it announces another size
   */
  async whole(
    key: BlobKey,
    { expected, gave }: { expected: number | undefined; gave: () => void },
    { signal, client }: Pick<Pull, 'signal' | 'client'>,
  ): Promise<Reply> {
    const { source, size } = await this.#upstream.openBlob(key, null, signal, new Askers(client), expected);
    if (!canHaveSize(key.digest, size) || (expected ?? size) !== (size ?? expected)) {
      await source.close();
      throw wrongSize(key, size, expected);
    }
    const verified = new VerifiedSource(source, key.digest, { onRight: gave });
    return {
      status: 200,
      headers: blobHeaders(key.digest, size ?? expected),
      body: size === undefined && expected !== undefined ? new ExactSource(verified, expected) : verified,
      from: 'upstream',
    };
  }

  /** A part of it; null where the upstream would rather send the whole. */
  async part(
    key: BlobKey,
    range: { from: number; to?: number | undefined },
    expected: number | undefined,
    { signal, client }: Pick<Pull, 'signal' | 'client'>,
  ): Promise<Reply | null> {
    const stream = await this.#upstream.openBlob(key, bounds(range), signal, new Askers(client), expected);
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

  /**
   * From an offset to the end, for a reader whose cache failed in the middle. `onFetched` hears of what comes, also of what is passed over where the
   * upstream sends the whole.
   */
  async rest(
    key: BlobKey,
    from: number,
    { signal, client }: Pick<Pull, 'signal' | 'client'>,
    onFetched: (bytes: number) => void,
  ): Promise<ByteSource> {
    const stream = await this.#upstream.openBlob(key, from === 0 ? null : { from }, signal, new Askers(client));
    const source = new CountedSource(stream.source, onFetched);
    return from === 0 || stream.status === 206 ? source : new SkippingSource(source, from);
  }
}

class CountedSource implements ByteSource {
  readonly #inner: ByteSource;
  readonly #onBytes: (bytes: number) => void;

  constructor(inner: ByteSource, onBytes: (bytes: number) => void) {
    this.#inner = inner;
    this.#onBytes = onBytes;
  }

  get length(): number | undefined {
    return this.#inner.length;
  }

  async pull(into: Uint8Array): Promise<number> {
    const count = await this.#inner.pull(into);
    this.#onBytes(count);
    return count;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

function bounds(range: { from: number; to?: number | undefined } | Extent): { from: number; to?: number } {
  return range.to === undefined ? { from: range.from } : { from: range.from, to: range.to };
}

export function wrongSize({ registry, digest }: BlobKey, size: number | undefined, right?: number): RegistryError {
  const reason = `it announces ${size} bytes of ${digest}${right === undefined ? '' : `, which has ${right}`}`;
  return new RegistryError('upstreamWrong', { facts: { registry, reason } });
}

/**
 * A body that was announced with a length which its upstream did not say. The last byte is given only when nothing follows it, so that a body of
 * another length never looks whole.
 */
export class ExactSource implements ByteSource {
  readonly length: number;
  readonly #inner: ByteSource;
  #left: number;

  constructor(inner: ByteSource, length: number) {
    this.#inner = inner;
    this.length = length;
    this.#left = length;
  }

  async pull(into: Uint8Array): Promise<number> {
    if (this.#left === 0) return 0;
    if (this.#left > 1) {
      const count = await this.#inner.pull(into.subarray(0, Math.min(into.length, this.#left - 1)));
      if (count === 0) throw new TruncatedError('the upstream ended before the length that its manifest gives');
      this.#left -= count;
      return count;
    }
    const count = await this.#inner.pull(into.subarray(0, 1));
    if (count === 0 || (await this.#inner.pull(new Uint8Array(1))) > 0) {
      throw new TruncatedError('the upstream has not the length that its manifest gives');
    }
    this.#left = 0;
    return 1;
  }

  close(): Promise<void> {
    return this.#inner.close();
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
