import type { ByteSource } from '../kit/byte-source.ts';
import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { BlobKey, BlobSink } from '../oci/transfer.ts';

/**
 * Blobs as files, one fill a digest, any number of readers behind its watermark.
 * Who may have a blob (`holds`) is asked here and decided by the caller.
 */
export interface BlobCache {
  /** The blob, whole or still growing; null where it is not here. Pinned until `release`. */
  find(digest: Digest): BlobHandle | null;
  /** Starts a fill, or joins the one that runs. `fetch` goes on when every reader has left; it is aborted only by `close`. */
  fill(key: BlobKey, fetch: (sink: BlobSink, signal: AbortSignal) => Promise<void>): BlobHandle;
  /** Whether this repository is known to hold the blob. */
  holds(repository: RepositoryKey, digest: Digest): boolean;
  /** Remembers that this repository holds these blobs (a manifest of it names them, or an upstream HEAD there succeeded). */
  link(repository: RepositoryKey, digests: readonly Digest[]): void;
  /** Ends fills (what is on disk is taken up at the next start) and flushes the index. */
  close(): Promise<void>;
}

export interface BlobHandle {
  readonly digest: Digest;
  /** Resolves as soon as the whole size is known; undefined where the upstream never says. Rejects when the fill fails before. */
  size(): Promise<number | undefined>;
  /** Bytes from offset 0 that can be read now. */
  readonly available: number;
  readonly complete: boolean;
  /** Bytes `[from, to)`; `to` undefined reads to the end. The source follows the fill. */
  open(range?: { from: number; to?: number | undefined }): ByteSource;
  /** Lets eviction have it once every source is closed too. */
  release(): void;
}
