import { createHash, type Hash } from 'node:crypto';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Extent, IntervalSet } from '../kit/interval-set.ts';
import { type Digest, digestAlgorithm, digestHex } from './names.ts';

/**
 * Where a download puts a blob's bytes: the upstream room writes, the cache implements.
 * Chunks may arrive out of order and from several connections; they never overlap what is held.
 */
export interface BlobSink {
  /** What the sink has already (on disk from an earlier fill, or from the second level of the cache); sorted, disjoint. Fetch only the rest. */
  readonly held: readonly Extent[];
  /**
   * Says the blob's whole size as soon as it is known, before the first `write`; undefined if the upstream never says.
   * A second call with another size is an error: the upstream changed its mind.
   */
  begin(size: number | undefined): void;
  /**
   * Keeps bytes at an offset; resolves when the writer may go on (back-pressure of the disk). The sink has copied them when this returns, so the
   * writer may use the chunk's memory again. A rejection ends the download; it is not the upstream's failure.
   */
  write(offset: number, chunk: Uint8Array): Promise<void>;
  /** What is wanted of the blob, and in which order; left out where all of it is, from its first byte to its last. */
  readonly wishes?: Wishes;
  /** Told what is going to write here, and null when that has ended. */
  readonly watch?: (transfer: RunningTransfer | null) => void;
  /** Told of whom the bytes written from now on come; not called where all are the registry's own answer. */
  readonly from?: (source: TransferSource | null) => void;
  /** The blob's size, where it is known before anything of it was fetched (its descriptor in a manifest): an answer with another one is wrong. */
  readonly expectedSize?: number | undefined;
}

/** Another gateway that shares this one's work, where it gives the bytes in the registry's place. */
export interface TransferSource {
  /** Its id. */
  readonly node: string;
  /** It fetches them for this gateway's sake: they count as fetched for whoever asked for them here, and for nobody there. */
  readonly counts: boolean;
}

/** A transfer under way, as those see it who look how it goes. */
export interface RunningTransfer {
  /** Connections to the registry that fetch for it now. */
  readonly connections: number;
  /** Bytes per second lately; Infinity until that has been measured. */
  readonly pace: number;
}

/** A wish for bytes that are missing: what is fetched next. */
export interface Wish extends Extent {
  /**
   * A reader waits for the first of these bytes now, so that another connection for them is worth its cost. What it needs only after bytes
   * that are under way is a wish, but not an urgent one.
   */
  readonly urgent: boolean;
}

/**
 * What readers want of a blob that is being fetched. A download asks whenever one of its connections is free, and goes on in the order of the
 * answers; it ends, although bytes are missing, when nothing is wanted and nothing is under way.
 */
export interface Wishes {
  /** All of it is wanted, in the end. */
  readonly whole: boolean;
  /**
   * The bytes to be fetched next: a part of one extent of `missing`, which is what is neither held nor about to come on a connection; null where
   * nothing more is wanted now. The extent may be as long as it is wanted: a wish from 0 to the end (Infinity while the size is unknown) is
   * one plain GET, any other a request for just this range, so that what is wanted as parts should be wished for in parts of 1 to 8 MiB.
   * While nothing is known of the size, a wish for the first byte tells it. Asking takes nothing: the same question has the same answer until
   * bytes have come or `missing` has changed.
   */
  next(missing: IntervalSet): Wish | null;
  /** Calls the listener whenever there is a new wish, until the function returned is called. */
  onChange(listener: () => void): () => void;
}

/** A blob's body streamed straight through, where it is not kept. */
export interface BlobStream {
  /** 200, or 206 with `contentRange` where the range was honoured. */
  readonly status: 200 | 206;
  readonly contentRange?: { readonly from: number; readonly to: number; readonly size: number | undefined };
  /** Size of the whole blob, where known. */
  readonly size: number | undefined;
  readonly source: ByteSource;
}

const EMPTY: ReadonlySet<string> = new Set(['sha256', 'sha512'].map((name) => createHash(name).digest('hex')));

/** Whether content of this digest can have this size, as far as that can be told without its bytes: only one content of each algorithm is empty. */
export function canHaveSize(digest: Digest, size: number | undefined): boolean {
  return size === undefined || (size === 0) === EMPTY.has(digestHex(digest));
}

/** Most bytes that are held back until the digest is known. */
const HELD = 64 * 1024;

const NOTHING = new Uint8Array(0);

/**
 * Checks the digest of a blob, or of the rest of one, while it is read past the cache: the bytes read last are held back until newer ones have
 * come or the digest has proved right, so that no reader ever gets the whole of a wrong body.
 */
export class VerifiedSource implements ByteSource {
  readonly #inner: ByteSource;
  readonly #digest: Digest;
  readonly #hash: Hash;
  /** Two buffers in turn: one is handed out while the other waits. */
  #reading = Buffer.allocUnsafe(HELD);
  #other = Buffer.allocUnsafe(HELD);
  #out: Uint8Array = NOTHING;
  #waiting: Uint8Array = NOTHING;
  #ended = false;

  readonly #onRight: (() => void) | undefined;

  /**
   * @param options.before the hash of what the client has already, where `inner` goes on from there
   * @param options.onRight called once when all bytes have come and their digest is right
   */
  constructor(
    inner: ByteSource,
    digest: Digest,
    { before, onRight }: { before?: Hash; onRight?: (() => void) | undefined } = {},
  ) {
    this.#inner = inner;
    this.#digest = digest;
    this.#hash = before ?? createHash(digestAlgorithm(digest));
    this.#onRight = onRight;
  }

  get length(): number | undefined {
    return this.#inner.length;
  }

  async pull(into: Uint8Array): Promise<number> {
    while (this.#out.length === 0) {
      if (this.#ended) return 0;
      await this.#readOn();
    }
    const count = Math.min(this.#out.length, into.length);
    into.set(this.#out.subarray(0, count));
    this.#out = this.#out.subarray(count);
    return count;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #readOn(): Promise<void> {
    const buffer = this.#reading;
    const count = await this.#inner.pull(buffer);
    this.#out = this.#waiting;
    if (count === 0) {
      if (this.#hash.digest('hex') !== digestHex(this.#digest)) {
        throw new TruncatedError(`the bytes are not those of ${this.#digest}`);
      }
      this.#waiting = NOTHING;
      this.#ended = true;
      this.#onRight?.();
      return;
    }
    this.#waiting = buffer.subarray(0, count);
    this.#hash.update(this.#waiting);
    this.#reading = this.#other;
    this.#other = buffer;
  }
}
