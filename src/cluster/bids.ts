import type { Digest } from '../oci/names.ts';
import { claimOf } from './rendezvous.ts';

/** What a node has of a blob whose leader is gone, as it tells those who ask. */
export interface Bid {
  /** `Node.id`. */
  readonly node: string;
  /** Bytes of its partial file. */
  readonly held: number;
  /** It fetches the blob too, and would go on in the leader's place. */
  readonly competes: boolean;
}

/**
 * How many others come before a node that would go on in a leader's place: whoever holds more bytes, and of those that hold as many, whoever has the
 * better claim to the digest. All who know the same bids come to the same order, in which no two have the same place.
 */
export function placeAmong(own: Bid, others: readonly Bid[], digest: Digest): number {
  const claim = claimOf(own.node, digest);
  return others.filter(({ node, held, competes }) => {
    if (!competes || node === own.node) return false;
    return held === own.held ? claimOf(node, digest) > claim : held > own.held;
  }).length;
}
