/**
 * A body that is read by pulling: the reader brings the buffer, so one buffer serves a whole pull
 * and a slow client holds back nothing but itself.
 */
export interface ByteSource {
  /** Bytes from first to last; undefined where the upstream did not say. */
  readonly length: number | undefined;
  /**
   * Copies the next bytes into `into` and resolves to their count, at least 1; 0 at the end.
   * Waits while the bytes are still on their way.
   * @throws {TruncatedError} when the rest will never come: end the response short, never as if it were whole.
   */
  pull(into: Uint8Array): Promise<number>;
  /**
   * Waits as `pull` would, without a buffer. True when the next pull reads from a file, false when it may have to wait all
   * the same. Left out where that cannot be told.
   */
  ready?(): Promise<boolean>;
  /** Where the next bytes lie, so that two who want the same can share one read; left out, or null, where they do not lie in a file. */
  place?(): FilePlace | null;
  /** Goes on behind bytes of this place that were got from another's read. There with `place`. */
  pass?(count: number): void;
  /** Frees what the source holds; may be called at any time, more than once. */
  close(): Promise<void>;
  /** Where the bytes lie in a file, so that another process of this machine can read them itself; left out, or null, where they do not. */
  share?(): SharedRead | null;
}

/** The next bytes of a reader. */
export interface FilePlace {
  /** The same object for all who read the same content. */
  readonly file: object;
  readonly position: number;
  /** End of what may be read by now, exclusive. */
  readonly end: number;
  /** Somebody else reads it too. */
  readonly shared: boolean;
}

/** A file that may still grow: where its bytes lie, how far they may be read, and how it ended. */
export interface FileView {
  /** Where the bytes lie now; it changes once, when the content is whole. */
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

/** All that a reader in another process needs; the source stays open, and pins the file, until that reader is done. */
export interface SharedRead {
  readonly view: FileView;
  /** Next byte to be read. */
  readonly from: number;
  /** End, exclusive; undefined reads to the end of the content. */
  readonly to: number | undefined;
  /** Opens the upstream at an offset, to the end of the content, where the file fails the reader. */
  readonly continueFrom: ((offset: number) => Promise<ByteSource>) | undefined;
  /** The file is not what was kept. */
  readonly onDamage: (reason: string) => void;
  /** Counts what was read. */
  readonly onRead: (bytes: number) => void;
}

/** A body broke off for good; the client must see a short body and an ended connection. */
export class TruncatedError extends Error {
  override readonly name = 'TruncatedError';
}
