import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { BlobHandle } from '../cache/blob-cache.ts';
import type { FileSource, SharedRead } from '../cache/shared-read.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { BLOB } from '../oci/media-types.ts';
import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';
import { contentRange, type RangeSpec } from '../oci/range.ts';

/**
 * A range that starts further ahead of a fill than this is passed through. Nearer ones wait: at 2 MiB/s that is two seconds, about
 * what another request costs with its redirect and a slow start of its own, and the bytes are fetched once.
 */
const RANGE_AHEAD = 4 * 1024 * 1024;

/** A cold blob of up to this is fetched whole for any part of it: that costs little more than the part. */
export const SMALL_BLOB = 4 * 1024 * 1024;

/** A part of a cold blob longer than this is no lazy puller's (they read files out of layers) but a download in pieces: the rest will follow. */
export const LARGE_PART = 8 * 1024 * 1024;

/** Once a cold blob's parts add up to so much of it, or so many bytes, fetching it whole is the cheaper way. */
const PARTS_SHARE = 0.5;
export const PARTS_BYTES = 64 * 1024 * 1024;

const COUNTED_BLOBS = 4096;

/**
 * Decides when ranges of a blob that is not here start a fill. Lazy pullers (stargz, nydus, soci) read a few small parts of large layers: fetching
 * those whole would cost what lazy pulling saves. A resumed or chunked download wants it all in the end.
 */
export class ColdRanges {
  readonly #passed = new LRUCache<string, number>({ max: COUNTED_BLOBS });

  /** Whether to fetch the whole blob for this request. A part that is passed through instead is counted. */
  startsFill(key: RepositoryKey, digest: Digest, specs: readonly RangeSpec[], size: number | undefined): boolean {
    const [spec] = specs;
    // Several parts can only be cut from a blob that is here; an open end asks for the rest of it.
    if (specs.length !== 1 || spec === undefined) return true;
    if (size !== undefined && size <= SMALL_BLOB) return true;
    if (spec.kind === 'from' && spec.to === undefined) return true;
    const length = spec.kind === 'suffix' ? spec.length : (spec.to ?? 0) - spec.from;
    if (length > LARGE_PART) return true;
    const name = contentId(key, digest);
    const sum = (this.#passed.get(name) ?? 0) + length;
    if (sum > PARTS_BYTES || (size !== undefined && sum > size * PARTS_SHARE)) {
      this.#passed.delete(name);
      return true;
    }
    this.#passed.set(name, sum);
    return false;
  }
}

/** Whether a part of a growing blob is so far ahead that the upstream gives it sooner. */
export function isFarAhead(extent: Extent, handle: BlobHandle): boolean {
  return !handle.complete && extent.from - handle.available > RANGE_AHEAD;
}

/** Whether the parts together are as much as the whole, which is then the better answer (RFC 9110, 14.2 lets a server ignore such a Range). */
export function exceeds(extents: readonly Extent[], size: number): boolean {
  let sum = 0;
  for (const { from, to } of extents) sum += to - from;
  return sum > size;
}

/** Several ranges as one body (RFC 9110, 14.6): the exact length is known before the first byte. */
export interface Multipart {
  readonly contentType: string;
  readonly source: ByteSource & { readonly length: number };
}

/** Parts in the order asked; `open` is called for one part at a time, when its turn comes. */
export function multipart(
  extents: readonly Extent[],
  size: number,
  open: (extent: Extent) => ByteSource,
  boundary: string = randomBytes(16).toString('hex'),
): Multipart {
  const heads = extents.map((extent) =>
    Buffer.from(
      `\r\n--${boundary}\r\ncontent-type: ${BLOB}\r\ncontent-range: ${contentRange(extent, size)}\r\n\r\n`,
      'latin1',
    ),
  );
  const end = Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1');
  let length = end.length;
  for (const head of heads) length += head.length;
  for (const extent of extents) length += extent.to - extent.from;
  return {
    contentType: `multipart/byteranges; boundary=${boundary}`,
    source: new MultipartSource(extents, heads, end, length, open),
  };
}

class MultipartSource implements ByteSource {
  readonly length: number;
  readonly #extents: readonly Extent[];
  readonly #heads: readonly Buffer[];
  readonly #end: Buffer;
  readonly #open: (extent: Extent) => ByteSource;
  /** Text that is being sent, what of it is left, and the part that follows it. */
  #text: Uint8Array | null;
  #part = 0;
  #source: ByteSource | null = null;
  #left = 0;
  #closed = false;

  constructor(
    extents: readonly Extent[],
    heads: readonly Buffer[],
    end: Buffer,
    length: number,
    open: (extent: Extent) => ByteSource,
  ) {
    this.#extents = extents;
    this.#heads = heads;
    this.#end = end;
    this.#open = open;
    this.length = length;
    this.#text = heads[0] ?? end;
  }

  async pull(into: Uint8Array): Promise<number> {
    for (;;) {
      if (this.#closed) throw new TruncatedError('the source is closed');
      if (this.#text !== null) return this.#pullText(this.#text, into);
      const extent = this.#extents[this.#part];
      if (extent === undefined) return 0;
      if (this.#source === null) {
        this.#source = this.#open(extent);
        this.#left = extent.to - extent.from;
      }
      const count = await this.#source.pull(into.subarray(0, Math.min(into.length, this.#left)));
      if (count === 0) throw new TruncatedError('a part ended early');
      this.#left -= count;
      if (this.#left === 0) await this.#nextPart();
      return count;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const source = this.#source;
    this.#source = null;
    await source?.close();
  }

  #pullText(text: Uint8Array, into: Uint8Array): number {
    const count = Math.min(text.length, into.length);
    into.set(text.subarray(0, count));
    this.#text = count === text.length ? null : text.subarray(count);
    return count;
  }

  async #nextPart(): Promise<void> {
    const source = this.#source;
    this.#source = null;
    this.#part += 1;
    this.#text = this.#heads[this.#part] ?? this.#end;
    await source?.close();
  }
}

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
