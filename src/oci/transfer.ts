import type { ByteSource } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';

/**
 * Where a download puts a blob's bytes: the upstream room writes, the cache implements.
 * Chunks may arrive out of order and from several connections; they never overlap what is held.
 */
export interface BlobSink {
  /** What is on disk already (a fill taken up after a restart); sorted, disjoint. Fetch only the rest. */
  readonly held: readonly Extent[];
  /**
   * Says the blob's whole size as soon as it is known, before the first `write`; undefined if the upstream never says.
   * A second call with another size is an error: the upstream changed its mind.
   */
  begin(size: number | undefined): void;
  /**
   * Keeps bytes at an offset; resolves when the writer may go on (back-pressure of the disk). The sink owns the chunk from now on: it may
   * still wait for the disk when this resolves, so the writer must not reuse its memory. A rejection ends the download; it is not the upstream's failure.
   */
  write(offset: number, chunk: Uint8Array): Promise<void>;
}

/** A blob's body streamed straight through, for a range that lies far ahead of a fill, or with no cache. */
export interface BlobStream {
  /** 200, or 206 with `contentRange` where the range was honoured. */
  readonly status: 200 | 206;
  readonly contentRange?: { readonly from: number; readonly to: number; readonly size: number | undefined };
  /** Size of the whole blob, where known. */
  readonly size: number | undefined;
  readonly source: ByteSource;
}
