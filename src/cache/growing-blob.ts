/** How the growth of a blob ended. */
export type Outcome = { readonly kind: 'complete' } | { readonly kind: 'failed'; readonly error: Error };

/**
 * All that a reader must know of a blob that may still be growing: where its bytes lie, how far they may be read,
 * and how it ended. Narrow, so that a reader in another process can be given the same view.
 */
export interface GrowingBlob {
  /** Where the bytes lie now; it changes once, when the blob is whole. */
  readonly path: string;
  /** Undefined until known. */
  readonly size: number | undefined;
  /** Bytes from offset 0 that may be read; all of them only once the digest is right. */
  readonly available: number;
  /** Null while it grows. */
  readonly outcome: Outcome | null;
  /** Calls once, at the next change of `available` or `outcome`. */
  onAdvance(listener: () => void): void;
}

/** A blob that lies in the cache whole. */
export function wholeBlob(path: string, size: number): GrowingBlob {
  return { path, size, available: size, outcome: { kind: 'complete' }, onAdvance: () => {} };
}
