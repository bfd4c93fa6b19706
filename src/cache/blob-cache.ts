import type { ByteSource } from '../kit/byte-source.ts';
import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { BlobKey, BlobSink } from '../oci/transfer.ts';

/**
 * Blobs as files, one fill a digest, any number of readers behind its watermark.
 * Who may have a blob (`holds`, `accessOf`) is asked here and decided by the caller.
 */
export interface BlobCache {
  /**
   * False where a blob would not be kept: `cache.maxSize` is 0, the disk is failing, or it is known to be larger than the cache.
   * The caller then streams it through (`upstream.openBlob`).
   */
  accepts(digest: Digest): boolean;
  /** The blob, whole or still growing; null where it is not here (a file that is missing or cut short is dropped and counts as not here). */
  find(digest: Digest): BlobHandle | null;
  /** Starts a fill, or joins the one that runs. `fetch` goes on when every reader has left; it is aborted by `close`, and where the cache cannot go on. */
  fill(key: BlobKey, fetch: (sink: BlobSink, signal: AbortSignal) => Promise<void>): BlobHandle;
  /** Whether this repository is known to hold the blob or manifest. */
  holds(repository: RepositoryKey, digest: Digest): boolean;
  /** The same, with whether only the operator's credentials open it; null where it is not known to hold it. */
  accessOf(repository: RepositoryKey, digest: Digest): 'public' | 'private' | null;
  /** Remembers that this repository holds these (a manifest of it names them, or an upstream HEAD there succeeded). */
  link(repository: RepositoryKey, digests: readonly Digest[], options?: { readonly private?: boolean }): void;
  /** Ends fills (what is on disk is taken up at the next start) and flushes the index. */
  close(): Promise<void>;
}

export interface BlobHandle {
  readonly digest: Digest;
  /**
   * Resolves as soon as the whole size is known; undefined where the upstream never says.
   * Rejects with the fetch's own error when that fails before, so that the client gets the upstream's real answer.
   */
  size(): Promise<number | undefined>;
  /** Bytes from offset 0 that can be read now. */
  readonly available: number;
  readonly complete: boolean;
  /** Bytes `[from, to)`; `to` undefined reads to the end. The source follows the fill. */
  open(range?: { from: number; to?: number | undefined }, options?: OpenOptions): ByteSource;
  /** Lets eviction have it once every source is closed too. */
  release(): void;
}

export interface OpenOptions {
  /**
   * Opens the upstream at this offset, to the end of the blob. Used when the cache itself fails in the middle (full or broken disk, damaged file,
   * a blob too large to keep): the client must get its bytes all the same. Without it the source ends short.
   */
  readonly continueFrom?: (offset: number) => Promise<ByteSource>;
}
