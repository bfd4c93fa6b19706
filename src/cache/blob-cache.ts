import type { Askers } from '../kit/askers.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import type { BlobKey, Digest } from '../oci/names.ts';
import type { BlobSink } from '../oci/transfer.ts';
import type { FactStore } from './facts.ts';
import type { FillKey } from './files.ts';
import type { Asked } from './wishes.ts';

/** Brings to a sink what it lacks of a blob, from the upstream. `askers`: the clients that it is for, whose number grows. */
export type Fetch = (sink: BlobSink, signal: AbortSignal, askers: Askers) => Promise<void>;

export interface FillOptions {
  /** For whom the bytes are fetched: `Pull.client`; left out where nobody asked for them. */
  readonly client?: string;
  /** Whoever asked for it pays elsewhere: nothing is taken of its quotas here. */
  readonly unpaid?: boolean;
  /** Those who ask for it; left out where that is the client alone. Whoever is given the growing blob joins them. */
  readonly askers?: Askers;
  /** The second level may give the bytes: this repository may be given kept content of this digest. Otherwise only its registry may. */
  readonly tier?: boolean;
  /** What is asked for at first: only parts are fetched until more is; left out where all of it is wanted. */
  readonly part?: Asked;
  /** The repository is known to hold the blob, so that what an earlier fill left may be given without asking its registry again. */
  readonly known?: boolean;
  /** As a manifest of the repository says it. */
  readonly expectedSize?: number | undefined;
  /** Called when it has ended, whichever way. Not where the call joins a fill that runs. */
  readonly ended?: (() => void) | undefined;
  /** Called when the registry's GET has brought the bytes and their digest has proved right. */
  readonly gave?: () => void;
  /** Called when the registry's GET has brought what is not the blob. */
  readonly wrong?: () => void;
}

/**
 * Blobs as files: whole and verified ones belong to their digest; what is still growing, or was left half-fetched, belongs to the registry that it
 * comes from, and only its readers see its bytes, its size and its pace. One fill for each, any number of readers behind it.
 * The cache remembers which repository said and gave what (`facts`); whether a client may have it is decided by the caller.
 */
export interface BlobCache {
  readonly facts: FactStore;
  /**
   * False where a blob would not be kept: `cache.maxSize` is 0, the disk is failing, or this registry said that it is larger than the cache.
   * The caller then streams it through (`upstream.openBlob`).
   */
  accepts(key: FillKey): boolean;
  /** Whether the blob is here, or is just being brought, as far as the index knows; no use of it is counted. */
  isHere(key: FillKey): boolean;
  /** Whether a fill that this client begins would go on while nobody reads it. */
  mayFillAhead(client: string): boolean;
  /** The whole, verified blob; null where it is not here (a file that is missing or cut short is dropped and counts as not here). */
  kept(digest: Digest): BlobHandle | null;
  /** The blob as this registry is just bringing it; null where no fill of it runs. It is in this client's turn from now on, too. */
  growing(key: FillKey, client?: string): BlobHandle | null;
  /**
   * Starts a fill, or joins the one that runs, whether or not the blob is kept. Where there is a second level (`BlobTier`) and it may be used, it
   * is asked first, and `fetch` brings only what it does not have. A fill goes on when every reader has left; it is aborted by `close`, and where
   * the cache cannot go on. At its end the blob is kept; where it was kept before, the second copy is dropped.
   */
  fill(key: BlobKey & FillKey, fetch: Fetch, options?: FillOptions): BlobHandle;
  /** Ends fills (what is on disk is resumed after the next start) and flushes the index. */
  close(): Promise<void>;
}

export interface BlobHandle {
  readonly digest: Digest;
  /**
   * Resolves as soon as the whole size is known; undefined where the upstream never says.
   * Rejects with the fetch's own error when that fails before, so that the client gets the upstream's real answer.
   */
  size(): Promise<number | undefined>;
  /** Bytes from offset 0 that a reader of the whole can have now. */
  readonly available: number;
  readonly complete: boolean;
  /** The whole size where it is known by now. */
  readonly knownSize: number | undefined;
  /** When it was fetched, ms since 1970; of one that is growing, when that began. */
  readonly since: number;
  /** Through which repository of its registry the bytes come; null where they are all here. */
  readonly repository: string | null;
  /** Bytes `[from, to)`; `to` undefined reads to the end. The source follows the fill. */
  open(range?: { from: number; to?: number | undefined }, options?: OpenOptions): ByteSource;
  /**
   * Resolves when what a source, opened before, lacks first is on its way: at once, unless the fill rested and has to be answered anew.
   * Rejects with what has failed the fill. `from`: where the source begins; undefined for the whole, any part of which may be lacking.
   */
  coming(from: number | undefined): Promise<void>;
  /** One more hold on the same blob, to be released by itself. */
  hold(): BlobHandle;
  /** Ends this user's hold: the blob may be evicted once its handles are released and its sources closed. */
  release(): void;
}

export interface OpenOptions {
  /** The client named no end of its range, and may leave after a few bytes: no more is fetched ahead of it than it has taken, within bounds. */
  readonly openEnded?: boolean;
  /** One reply carries the whole blob, this range being a part of it: its end waits for the digest. Left out where the range itself is the whole. */
  readonly wholeReply?: boolean;
  /**
   * Opens the upstream at this offset, to the end of the blob. Used when the cache itself fails in the middle (full or broken disk, damaged file,
   * a blob too large to keep): the client must get its bytes all the same. Without it the source ends short.
   */
  readonly continueFrom?: (offset: number) => Promise<ByteSource>;
  /**
   * The fill was begun through another repository of the registry: what its registry refuses to that one says nothing of this reader's, who goes
   * on by `continueFrom`.
   */
  readonly byAnother?: boolean;
}

/**
 * Why the cache does not keep a blob although the upstream gives it: the pull then goes on without the cache.
 * `too-large`: larger than the whole cache; `no-room`: everything in the cache is in use; `min-free`: the disk has no more than
 * `cache.minFree` left; `disk`: a system call failed; `damaged`: the kept file is not what was put there.
 */
export type CacheErrorReason = 'too-large' | 'no-room' | 'min-free' | 'disk' | 'damaged';

/** The cache's own failure, never the upstream's: a reader that meets it continues from the upstream where it stopped. */
export class CacheError extends Error {
  override readonly name = 'CacheError';
  readonly reason: CacheErrorReason;

  constructor(reason: CacheErrorReason, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.reason = reason;
  }
}
