import type { Fence } from '../kit/locks.ts';
import type { Shown } from '../oci/credentials.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';

export type ObjectKind = 'blob' | 'manifest';

/** What a shared store (`BlobTier`) holds under one digest, as the index of that store has it. Times in epoch milliseconds, by the index's clock. */
export interface StoredObject {
  readonly digest: Digest;
  readonly kind: ObjectKind;
  /** Bytes. */
  readonly size: number;
  readonly lastUse: number;
  /** From when on it may be removed: it is given to nobody new since. Null for one that is not to be removed. */
  readonly condemnedAt: number | null;
}

/** A repository that gave a digest, and how far that proof reaches. */
export interface Giver {
  readonly repository: RepositoryKey;
  readonly shown: Shown;
}

export interface FoundObject {
  readonly object: StoredObject;
  /** Those that count now: a denial takes them away. */
  readonly givers: readonly Giver[];
}

/** Givers kept of one object: what is overlooked beyond them is only fetched once more. */
export const MAX_GIVERS = 64;

/**
 * Port: what lies in a store that several gateways share, and which repositories gave it: rows beside the objects, in the same database as the alias
 * table, asked for where this machine's own index knows nothing. Every method is atomic, durable when it resolves (but `touch`), and may reject; then
 * the store is taken to have nothing. `under`: what only the holder of that lock may do; others are refused with a `FencedError` where several processes
 * share the index. test/conformance/object-index.ts is its contract.
 */
export interface ObjectIndex {
  /** Null where there is none, and where it is condemned. */
  find(digest: Digest): Promise<FoundObject | null>;
  /** The object is in the store, whole and verified, and these gave it: adds what is new; one that was condemned lives again. */
  put(object: Pick<StoredObject, 'digest' | 'kind' | 'size'>, givers: readonly Giver[]): Promise<void>;
  /** The registry has denied this repository, or one digest of it: its proof is void. */
  deny(repository: RepositoryKey, digest?: Digest): Promise<void>;
  /** Sets times of use to now. A crash may lose the newest. */
  touch(digests: readonly Digest[]): Promise<void>;
  /** The store has no such objects, or wrong bytes for them: forgets them at once. */
  drop(digests: readonly Digest[]): Promise<void>;
  /** Bytes of all that is not condemned. */
  bytes(): Promise<number>;
  /** In the order of digests, condemned ones too; for walks over everything. */
  after(digest: Digest | null, limit: number): Promise<readonly StoredObject[]>;
  /** Condemns those used longest ago until at most `bytes` are left, no more than `limit` at once. Returns how many. */
  condemn(bytes: number, limit: number, under?: Fence): Promise<number>;
  /** Those condemned at least `graceMs` ago, no more than `limit`. */
  doomed(graceMs: number, limit: number): Promise<readonly StoredObject[]>;
  /** Forgets those of them that are still condemned. Returns those forgotten, whose bytes may now be removed. */
  forget(digests: readonly Digest[], under?: Fence): Promise<readonly Digest[]>;
}
