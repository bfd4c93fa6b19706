import type { Digest } from '../oci/names.ts';
import type { Givers } from './index-port.ts';

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

/** A registry that gave a digest, and how far that proof reaches (see `Shown`). */
export interface Giver {
  readonly registry: string;
  readonly open: boolean;
}

/**
 * Port: what lies in a store that several gateways share, and which registries gave it: rows beside the objects, in the same database as the alias
 * table, asked for where this machine's own index knows nothing. Every method is atomic, durable when it resolves, and may reject; then the
 * store is taken to have nothing. test/conformance/object-index.ts is its contract.
 */
export interface ObjectIndex {
  /** Null where there is none, and where it is condemned. */
  find(digest: Digest): Promise<{ readonly object: StoredObject; readonly givers: Givers } | null>;
  /** The object is in the store, whole and verified, and this registry gave it: adds what is new; one that was condemned lives again. */
  put(object: Pick<StoredObject, 'digest' | 'kind' | 'size'>, giver: Giver): Promise<void>;
  /** The registry has denied it: its proof is void. */
  deny(registry: string, digest: Digest): Promise<void>;
  /** Sets times of use to now. */
  touch(digests: readonly Digest[]): Promise<void>;
  /** Bytes of all that is not condemned. */
  bytes(): Promise<number>;
  /** Condemns those used longest ago until at most `bytes` are left, no more than `limit` at once. Returns how many. */
  condemn(bytes: number, limit: number): Promise<number>;
  /** Those condemned at least `graceMs` ago, no more than `limit`. */
  doomed(graceMs: number, limit: number): Promise<readonly StoredObject[]>;
  /** Forgets them; those that live again meanwhile stay. Returns those forgotten, whose bytes may now be removed. */
  forget(digests: readonly Digest[]): Promise<readonly Digest[]>;
}
