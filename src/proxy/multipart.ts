import { randomBytes } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import { BLOB } from '../oci/media-types.ts';
import { contentRange } from '../oci/range.ts';

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
