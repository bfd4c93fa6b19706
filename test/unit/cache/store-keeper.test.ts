import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { StoreKeeper } from '../../../src/cache/store-keeper.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { contentOf } from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';
import { MemoryTier } from '../../support/memory-tier.ts';

const { signal } = new AbortController();
const under = { name: 'evict store', fence: 1 };

/** A store of so many objects of 1,000 bytes, the oldest first. */
async function store(count: number, maxSize: number | null, times = {}) {
  const tier = new MemoryTier();
  const digests = [];
  for (let at = 0; at < count; at++) {
    const { digest, bytes } = contentOf(randomBytes(1_000));
    await tier.holds(digest, bytes);
    digests.push(digest);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  const options = {
    ...tier.parts,
    locks: new MemoryLocks(new LockTable()),
    maxSize: () => maxSize,
    log: silentLog(),
    times,
  };
  return { tier, digests, options, keeper: new StoreKeeper(options) };
}

describe('whoever keeps the shared store', () => {
  it('condemns what was used longest ago, and removes it when nobody can be reading it any more', async () => {
    const { tier, digests, keeper, options } = await store(5, 3_000, { grace: 60_000 });
    await keeper.keepWithin(under, signal);
    expect(await tier.objects.bytes()).toBe(3_000);
    expect([await tier.objects.find(digests[0] ?? digests[4]!), tier.blobs.size]).toEqual([null, 5]);
    // One of them is stored again, and lives.
    await tier.objects.put({ digest: digests[0]!, kind: 'blob', size: 1_000 }, []);
    const later = new StoreKeeper({ ...options, maxSize: () => null, times: { grace: 0 } });
    await later.keepWithin(under, signal);
    expect([...tier.blobs.keys()].toSorted()).toEqual(digests.filter((_, at) => at !== 1).toSorted());
  });

  it('removes objects that nobody knows of once they are old, and forgets what the store does not have', async () => {
    const { tier, digests, keeper } = await store(3, null, { leftAfter: -1, walkPause: 0 });
    const stray = contentOf(randomBytes(10));
    tier.blobs.set(stray.digest, stray.bytes);
    tier.blobs.delete(digests[1]!);
    await keeper.walk(signal);
    expect([...tier.blobs.keys()].toSorted()).toEqual([digests[0]!, digests[2]!].toSorted());
    expect(await tier.objects.find(digests[1]!)).toBeNull();
    expect(await tier.objects.bytes()).toBe(2_000);
  });

  it('leaves alone what may be of an upload that has just ended', async () => {
    const { tier, keeper } = await store(0, null);
    const fresh = contentOf(randomBytes(10));
    tier.blobs.set(fresh.digest, fresh.bytes);
    await keeper.walk(signal);
    expect(tier.blobs.size).toBe(1);
  });

  it('is one at a time, by itself, and ends', async () => {
    const { tier, options } = await store(4, 2_000);
    const held = await options.locks.tryAcquire('evict store', { leaseMs: 1_000 });
    const keeper = StoreKeeper.start({ ...options, times: { interval: 5, grace: 0 } });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(tier.blobs.size).toBe(4);
    await held?.release();
    await eventually('it is within its bound', () => tier.blobs.size === 2);
    await keeper.close();
  });
});
