import { randomBytes } from 'node:crypto';
import type { FileSource, SharedRead } from '../cache/shared-read.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { BLOB } from '../oci/media-types.ts';
import { contentRange } from '../oci/range.ts';

/** Parts that are open at a time, the one that is being sent among them, so that a cold blob's are fetched together. */
const PARTS_OPEN = 16;
/** … and more where those are small, until they have so many bytes: a thousand tiny ones are all fetched at once, and little of a client that goes is in vain. */
const BYTES_OPEN = 1024 * 1024;

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

/** Parts in the order asked; `open` is called for some parts at a time, when it is their turn soon. */
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
  /** Of this part and those that follow. */
  #sources: ByteSource[] = [];
  #opened = 0;
  /** Bytes of the parts that are open. */
  #bytesOpen = 0;
  #left: number;
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
    this.#left = sizeOf(extents[0]);
  }

  async pull(into: Uint8Array): Promise<number> {
    for (;;) {
      if (this.#closed) throw new TruncatedError('the source is closed');
      if (this.#text !== null) return this.#pullText(this.#text, into);
      const source = this.#current();
      if (source === undefined) return 0;
      const count = await source.pull(into.subarray(0, Math.min(into.length, this.#left)));
      if (count === 0) throw new TruncatedError('a part ended early');
      this.#left -= count;
      if (this.#left === 0) await this.#nextPart();
      return count;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.#sources.splice(0).map((source) => source.close()));
  }

  #current(): ByteSource | undefined {
    while (this.#opened < this.#part + PARTS_OPEN || this.#bytesOpen < BYTES_OPEN) {
      const extent = this.#extents[this.#opened];
      if (extent === undefined) break;
      this.#sources.push(this.#open(extent));
      this.#bytesOpen += sizeOf(extent);
      this.#opened++;
    }
    return this.#sources[0];
  }

  #pullText(text: Uint8Array, into: Uint8Array): number {
    const count = Math.min(text.length, into.length);
    into.set(text.subarray(0, count));
    this.#text = count === text.length ? null : text.subarray(count);
    return count;
  }

  async #nextPart(): Promise<void> {
    const source = this.#sources.shift();
    this.#bytesOpen -= sizeOf(this.#extents[this.#part]);
    this.#part += 1;
    this.#left = sizeOf(this.#extents[this.#part]);
    this.#text = this.#heads[this.#part] ?? this.#end;
    await source?.close();
  }
}

function sizeOf(extent: Extent | undefined): number {
  return extent === undefined ? 0 : extent.to - extent.from;
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
