import type { ByteSource } from '../kit/byte-source.ts';
import type { Lent } from './fresh-bytes.ts';
import type { Want } from './wishes.ts';

/**
 * A body whose bytes may lie in a file of the cache. Two readers of the same file can then share one read, and another process of this
 * machine can read the file itself. A body that does not lie in a file leaves the methods out: every `ByteSource` is a `FileSource`.
 */
export interface FileSource extends ByteSource {
  /**
   * Waits as `pull` would, but without a buffer. Resolves to true when the next pull reads from a file, to false when it may have to wait
   * all the same.
   */
  ready?(): Promise<boolean>;
  /** Where the next bytes lie; null where they do not lie in a file (any more). */
  place?(): FilePlace | null;
  /** The next bytes, `most` at most, by reference, and moves on behind them; null where they are to be read from the file. There only beside `ready`. */
  lend?(most: number): Lent | null;
  /** Moves on behind `count` bytes that were taken from another reader's buffer. There whenever `place` is. */
  pass?(count: number): void;
  /** What another process needs in order to read the file itself; null where the bytes do not lie in a file (any more). */
  share?(): SharedRead | null;
}

/** Where the next bytes of a reader lie. */
export interface FilePlace {
  /** The same object for all readers of the same content. */
  readonly file: object;
  readonly position: number;
  /** End of what may be read by now, exclusive. */
  readonly end: number;
  /** There is more than one reader of this content. */
  readonly shared: boolean;
}

/** A file that may still grow, in any order: where its bytes lie, which of them may be read, and how the growth ended. */
export interface FileView {
  /** Where the bytes lie now; it changes once, when the content is complete. */
  readonly path: string;
  /** Undefined until known. */
  readonly size: number | undefined;
  /** Where the bytes end that are there from an offset on without a gap; the offset itself where its byte is not there. */
  writtenFrom(offset: number): number;
  /** The bytes from here on are the tail, which waits for the digest in a reply that carries the whole content; Infinity once it is verified. */
  readonly tail: number;
  /** All of the content is being fetched, so that the tail can wait for the digest in every reply. */
  readonly whole: boolean;
  /** Null while it grows. */
  readonly outcome: Outcome | null;
  /**
   * Calls once, when the byte at an offset can be read (see {@link readableFrom}) or the growth has ended.
   * @returns what ends the wait
   */
  onReadable(offset: number, wholeReply: boolean, listener: () => void): () => void;
}

/**
 * Where the bytes end that may be read from an offset on; the offset itself where there is none yet.
 * @param wholeReply one reply carries the content from its first byte to its last: it gets the end of it only once the digest is right
 */
export function readableFrom(view: FileView, offset: number, wholeReply: boolean): number {
  const end = view.writtenFrom(offset);
  return wholeReply || view.whole ? Math.max(offset, Math.min(end, view.tail)) : end;
}

/** How the growth ended. */
export type Outcome = { readonly kind: 'complete' } | { readonly kind: 'failed'; readonly error: Error };

/** Of a blob that is read whole. Ended once, by either of these; where the bytes are wrong the reader's `onDamage` is called instead. */
export interface Check {
  /** The bytes are right. */
  right(): void;
  /** The reader has left before the end. */
  abandoned(): void;
}

/** All that a reader in another process needs; the source stays open, and keeps the file from eviction, until that reader is done. */
export interface SharedRead {
  readonly view: FileView;
  /** Next byte to be read. */
  readonly from: number;
  /** End, exclusive; undefined reads to the end of the content. */
  readonly to: number | undefined;
  /** Opens the upstream at an offset, to the end of the content, where the file fails the reader. */
  readonly continueFrom: ((offset: number) => Promise<ByteSource>) | undefined;
  /** As in the options of `BlobReader`. */
  readonly byAnother?: boolean | undefined;
  /** To be called where the file is not what was put there. */
  readonly onDamage: (reason: string) => void;
  /** Counts bytes that were read. */
  readonly onRead: (bytes: number) => void;
  /** One reply carries the whole content, in this body or in several that follow each other. */
  readonly wholeReply: boolean;
  /** Where it is to be checked on the way: as in the options of `BlobReader`. */
  readonly check?: Check | undefined;
  /** To be told where the reader waits; undefined where nobody has to know, since the bytes come in order or are there. */
  readonly want: Pick<Want, 'waits'> | undefined;
}
