import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Nodes } from '../../src/cluster/nodes.ts';
import { eventually } from '../support/eventually.ts';

export interface NodesHarness {
  /** A node that has joined; each call makes another one, where there can be several. */
  join(): Promise<Nodes>;
  close(): Promise<void>;
}

/** The contract of Nodes. @param alone whether there is never more than one */
export function nodesConformance(name: string, alone: boolean, harness: () => Promise<NodesHarness>): void {
  describe(`Nodes: ${name}`, () => {
    let fleet: NodesHarness;
    beforeEach(async () => {
      fleet = await harness();
    });
    afterEach(() => fleet.close());

    it('has this node among those that live', async () => {
      const one = await fleet.join();
      expect(one.live()).toEqual([one.self]);
      expect(one.self.draining).toBe(false);
      expect(await one.settled()).toEqual({ nodes: [] });
      await one.drain();
      await one.close();
    });

    if (alone) return;

    it('knows of those that join, end and leave, and tells it', async () => {
      const [one, other] = [await fleet.join(), await fleet.join()];
      let told = 0;
      const unwatch = one.watch(() => told++);
      await eventually('the other to be known', () => one.live().length === 2);
      expect(one.live().map(({ id }) => id)).toEqual([one.self.id, other.self.id].sort());
      const before = one.live();
      await other.drain();
      await eventually('the other to end', () => one.live().some(({ draining }) => draining));
      expect(one.live().find(({ draining }) => draining)?.id).toBe(other.self.id);
      expect(before.some(({ draining }) => draining)).toBe(false);
      await other.close();
      await eventually('the other to leave', () => one.live().length === 1);
      expect(told).toBeGreaterThan(0);
      unwatch();
    });
  });
}
