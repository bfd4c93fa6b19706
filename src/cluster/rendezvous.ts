import { createHash } from 'node:crypto';
import type { Digest } from '../oci/names.ts';
import type { Node } from './nodes.ts';

/**
 * How good a claim a node has to a digest: the highest of all fetches it (rendezvous hashing, Thaler and Ravishankar 1998). Each node reckons it for itself;
 * where one joins or leaves, only what is its own changes hands. 48 bits of SHA-256, so that claims are spread evenly however ids are chosen.
 */
function claimOf(node: string, digest: Digest): number {
  return createHash('sha256').update(`${node} ${digest}`).digest().readUIntBE(0, 6);
}

/** The nodes that may be asked for a digest, the one whose it is first: those that others reach and that are not ending. */
export function rankedFor<N extends Node>(nodes: readonly N[], digest: Digest): N[] {
  return nodes
    .filter(({ address, draining }) => address !== null && !draining)
    .map((node) => ({ node, claim: claimOf(node.id, digest) }))
    .sort((a, b) => b.claim - a.claim || (a.node.id < b.node.id ? -1 : 1))
    .map(({ node }) => node);
}

/** Whose a digest is; null where no node can be asked. */
export function ownerOf(nodes: readonly Node[], digest: Digest): Node | null {
  return rankedFor(nodes, digest)[0] ?? null;
}

/** What a node has of a blob, as it tells those who ask: where the leader is gone, it says who goes on. */
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
