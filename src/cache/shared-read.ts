import type { ByteSource } from '../kit/byte-source.ts';

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

/** A file that may still grow: where its bytes lie, how far they may be read, and how the growth ended. */
export interface FileView {
  /** Where the bytes lie now; it changes once, when the content is complete. */
  readonly path: string;
  /** Undefined until known. */
  readonly size: number | undefined;
  /** Bytes from offset 0 that may be read; all of them only once the content is verified. */
  readonly available: number;
  /** Null while it grows. */
  readonly outcome: Outcome | null;
  /** Calls once, at the next change of `available` or `outcome`. */
  onAdvance(listener: () => void): void;
}

/** How the growth ended. */
export type Outcome = { readonly kind: 'complete' } | { readonly kind: 'failed'; readonly error: Error };

/** All that a reader in another process needs; the source stays open, and keeps the file from eviction, until that reader is done. */
export interface SharedRead {
  readonly view: FileView;
  /** Next byte to be read. */
  readonly from: number;
  /** End, exclusive; undefined reads to the end of the content. */
  readonly to: number | undefined;
  /** Opens the upstream at an offset, to the end of the content, where the file fails the reader. */
  readonly continueFrom: ((offset: number) => Promise<ByteSource>) | undefined;
  /** To be called where the file is not what was put there. */
  readonly onDamage: (reason: string) => void;
  /** Counts bytes that were read. */
  readonly onRead: (bytes: number) => void;
}
