import { setTimeout as timer } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Locks } from '../../src/kit/locks.ts';

export interface LocksHarness {
  /** Another node's view of the same locks. */
  open(): Locks | Promise<Locks>;
  /** As `open`, after every holder has gone: what is durable is there. */
  restart(): Locks | Promise<Locks>;
  /** Keeps the renewals of this node from arriving. */
  cutOff?(locks: Locks): void | Promise<void>;
  /** Ends that. */
  mend?(locks: Locks): void | Promise<void>;
}

const NAME = 'order hub.example.com';
const lease = { leaseMs: 60_000 };

/** The contract of Locks. @param leasesEnd whether a holder can lose a lock without releasing it; the harness has `cutOff` then */
export function locksConformance(
  name: string,
  leasesEnd: boolean,
  harness: () => LocksHarness | Promise<LocksHarness>,
): void {
  describe(`Locks: ${name}`, () => {
    let nodes: LocksHarness;
    let one: Locks;
    let other: Locks;
    beforeEach(async () => {
      nodes = await harness();
      one = await nodes.open();
      other = await nodes.open();
    });

    it('grants a name to one holder at a time, on any node', async () => {
      let holders = 0;
      let most = 0;
      const work = async (locks: Locks) => {
        const lock = await locks.acquire(NAME, lease);
        most = Math.max(most, ++holders);
        await timer(1);
        holders--;
        await lock.release();
      };
      await Promise.all([one, other, one, other, one].map(work));
      expect(most).toBe(1);
    });

    it('says at once that a name is held, and that another is free', async () => {
      const lock = await one.acquire(NAME, lease);
      expect(await other.tryAcquire(NAME, lease)).toBeNull();
      expect(await one.tryAcquire(NAME, lease)).toBeNull();
      const free = await other.tryAcquire('another', lease);
      expect(free?.name).toBe('another');
      await lock.release();
      const again = await other.tryAcquire(NAME, lease);
      expect(again).not.toBeNull();
      await Promise.all([free?.release(), again?.release()]);
    });

    it('releases once: the next holder is not disturbed by a second release', async () => {
      const first = await one.acquire(NAME, lease);
      await first.release();
      const second = await other.acquire(NAME, lease);
      await first.release();
      expect(await one.tryAcquire(NAME, lease)).toBeNull();
      await second.release();
    });

    it('numbers grants upwards, on every node and after a restart', async () => {
      const fences: number[] = [];
      const grant = async (locks: Locks) => {
        const lock = await locks.acquire(NAME, lease);
        fences.push(lock.fence);
        await lock.release();
      };
      for (const locks of [one, other, one]) await grant(locks);
      await grant(await nodes.restart());
      expect(fences).toEqual([...new Set(fences)].sort((a, b) => a - b));
    });

    it('ends the waiting of whoever gives up, who does not get the lock later', async () => {
      const lock = await one.acquire(NAME, lease);
      const impatient = new AbortController();
      const waiting = other.acquire(NAME, { ...lease, signal: impatient.signal });
      const patient = other.acquire(NAME, lease);
      impatient.abort(new Error('gave up'));
      await expect(waiting).rejects.toThrow('gave up');
      await lock.release();
      const next = await patient;
      await next.release();
      const free = await one.tryAcquire(NAME, lease);
      expect(free).not.toBeNull();
      await free?.release();
      await expect(one.acquire(NAME, { ...lease, signal: impatient.signal })).rejects.toThrow('gave up');
    });

    it('says who holds a lock, where the holder left a note, until it is released', async () => {
      expect(await other.holder(NAME)).toBeNull();
      const lock = await one.acquire(NAME, { ...lease, note: 'node one' });
      expect([await one.holder(NAME), await other.holder(NAME)]).toEqual(['node one', 'node one']);
      expect(await other.tryAcquire(NAME, { ...lease, note: 'node two' })).toBeNull();
      expect(await other.holder('another')).toBeNull();
      await lock.release();
      expect(await other.holder(NAME)).toBeNull();
      const silent = await other.acquire(NAME, lease);
      expect(await one.holder(NAME)).toBeNull();
      await silent.release();
    });

    it('keeps a lock longer than its lease while its holder lives', async () => {
      const lock = await one.acquire(NAME, { leaseMs: 500 });
      await timer(1_200);
      expect(lock.lost.aborted).toBe(false);
      expect(await other.tryAcquire(NAME, lease)).toBeNull();
      await lock.release();
    });

    if (!leasesEnd) return;

    it('passes on the lock of a holder that is cut off, and lets that one know', async () => {
      const lock = await one.acquire(NAME, { leaseMs: 100 });
      await nodes.cutOff?.(one);
      const next = await other.acquire(NAME, lease);
      expect(next.fence).toBeGreaterThan(lock.fence);
      if (!lock.lost.aborted) await new Promise((resolve) => lock.lost.addEventListener('abort', resolve));
      expect(lock.lost.reason).toBeInstanceOf(Error);
      await nodes.mend?.(one);
      await lock.release();
      expect(await one.tryAcquire(NAME, lease)).toBeNull();
      await next.release();
    });
  });
}
