import type { ByteSource } from '../kit/byte-source.ts';
import type { Extent } from '../kit/interval-set.ts';
import type { Digest } from '../oci/names.ts';

/** What a walk over the store finds. `modified`: ms since 1970, by the store's clock. */
export interface ListedObject {
  readonly digest: Digest;
  readonly size: number;
  readonly modified: number;
}

/** What a failure of a store is about. */
export type StoreTrouble =
  | 'unreachable'
  | 'credentials'
  | 'denied'
  | 'clock'
  | 'no-bucket'
  | 'region'
  | 'slow'
  | 'other';

/** The store does not have the object (any more). */
export class MissingObject extends Error {
  override readonly name = 'MissingObject';

  constructor(digest: Digest) {
    super(`the store does not have ${digest}`);
  }
}

/** What the store has under this digest cannot be its content: it has another size than was put there. */
export class WrongObject extends Error {
  override readonly name = 'WrongObject';
}

/**
 * Port: a store that several gateways share, a second level of the cache between this machine's directory and the upstream, such as an object
 * store. It keeps content by digest and knows nothing of repositories or of who may have what.
 *
 * Every method may reject: the cache logs that and goes on as if the store did not have the content. The digest of what it gives is checked
 * like the upstream's. `signal` is aborted when nobody wants the result. test/conformance/blob-tier.ts is its contract.
 */
export interface BlobTier {
  /** Null where the store does not have it. */
  stat(digest: Digest, signal: AbortSignal): Promise<{ readonly size: number } | null>;
  /** The bytes `[from, to)`, at least one, of what it has. The caller closes the source. @throws {MissingObject}, {WrongObject} */
  open(digest: Digest, range: Extent, signal: AbortSignal): Promise<ByteSource>;
  /**
   * Keeps content: `source` knows its `length`, and gives all of its bytes, the last of them only once they are known to be right. Resolves once
   * the store has it; before that, and where the source or the store fails, nothing of it can be had there. The caller closes the source.
   */
  store(digest: Digest, source: ByteSource, signal: AbortSignal): Promise<void>;
  /** Removes them; those that are not there are no error. A thousand at once, at most. */
  remove(digests: readonly Digest[], signal: AbortSignal): Promise<void>;
  /** In the order of digests; a page may be empty before the last. */
  list(
    after: Digest | null,
    limit: number,
    signal: AbortSignal,
  ): Promise<{ readonly objects: readonly ListedObject[]; readonly last: boolean }>;
  /** A URL by which a client without credentials gets it, with ranges too, for so many seconds; null where the store has none. */
  link(digest: Digest, seconds: number): Promise<string | null>;
  /** Removes what killed processes left of what they stored, begun before `before` (ms since 1970). Returns how many. */
  clearLeftovers(before: number, signal: AbortSignal): Promise<number>;
  /** Null where the store can be used; else why not, for an operator. Never rejects. */
  check(signal: AbortSignal): Promise<{ readonly trouble: StoreTrouble; readonly message: string } | null>;
  /** Ends what is kept open. */
  close(): void;
}
