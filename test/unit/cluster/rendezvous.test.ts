import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { Node } from '../../../src/cluster/nodes.ts';
import { ownerOf, placeAmong, rankedFor } from '../../../src/cluster/rendezvous.ts';
import type { Digest } from '../../../src/oci/names.ts';

const digest = (n: number) => `sha256:${createHash('sha256').update(String(n)).digest('hex')}` as Digest;
const node = (id: string, options: Partial<Node> = {}): Node => ({
  id,
  address: `${id}:9500`,
  version: '1',
  draining: false,
  ...options,
});
const nodes = (count: number) => Array.from({ length: count }, (_, n) => node(`node${n}`));
const DIGESTS = Array.from({ length: 9_000 }, (_, n) => digest(n));

describe('whose a digest is', () => {
  it('is spread evenly over the nodes, however alike their ids are', () => {
    for (const count of [2, 3, 9]) {
      const shares = new Map<string, number>();
      for (const each of DIGESTS) {
        const { id } = ownerOf(nodes(count), each) ?? node('none');
        shares.set(id, (shares.get(id) ?? 0) + 1);
      }
      const even = DIGESTS.length / count;
      expect(shares.size).toBe(count);
      // Five standard deviations of a fair throw.
      for (const share of shares.values()) expect(Math.abs(share - even)).toBeLessThan(5 * Math.sqrt(even));
    }
  });

  it('does not depend on the order in which nodes are known', () => {
    const known = nodes(5);
    for (const each of DIGESTS.slice(0, 50)) {
      expect(rankedFor([...known].reverse(), each)).toEqual(rankedFor(known, each));
    }
  });

  it('changes only to a node that joins, and only from one that leaves', () => {
    const four = nodes(4);
    const five = nodes(5);
    let moved = 0;
    for (const each of DIGESTS) {
      const before = ownerOf(four, each)?.id;
      const after = ownerOf(five, each)?.id;
      if (before === after) continue;
      moved++;
      expect(after).toBe('node4');
    }
    expect(Math.abs(moved - DIGESTS.length / 5)).toBeLessThan(200);
  });

  it('is nobody’s that others do not reach, or that is ending', () => {
    const some = [node('a', { address: null }), node('b', { draining: true }), node('c')];
    for (const each of DIGESTS.slice(0, 50)) expect(rankedFor(some, each).map(({ id }) => id)).toEqual(['c']);
    expect(ownerOf(some.slice(0, 2), digest(0))).toBeNull();
  });
});

describe('the bids for a leader’s place', () => {
  const bid = (id: string, held: number, competes = true) => ({ node: id, held, competes });

  it('put first whoever holds most, and each in another place', () => {
    const bids = [bid('a', 10), bid('b', 30), bid('c', 20), bid('d', 30), bid('e', 0)];
    const places = bids.map((own) =>
      placeAmong(
        own,
        bids.filter((other) => other !== own),
        digest(1),
      ),
    );
    expect([...places].sort()).toEqual([0, 1, 2, 3, 4]);
    expect([places[1], places[3]].sort()).toEqual([0, 1]);
    expect([places[2], places[0], places[4]]).toEqual([2, 3, 4]);
  });

  it('leave out those who would not go on', () => {
    expect(placeAmong(bid('a', 10), [bid('b', 90, false), bid('a', 50)], digest(1))).toBe(0);
  });
});
