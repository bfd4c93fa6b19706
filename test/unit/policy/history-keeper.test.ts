import { expect, test } from 'vitest';
import type { Digest } from '../../../src/oci/names.ts';
import { HistoryKeeper } from '../../../src/policy/history-keeper.ts';
import { contentOf } from '../../support/cache-rig.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';
import { MemoryHistoryStore } from '../../support/memory-history.ts';

const DAY = 24 * 60 * 60_000;
const NOW = 1_000 * DAY;
const APP = { registry: 'docker.io', repository: 'library/app' };
const digestOf = (name: string): Digest => contentOf(Buffer.from(name)).digest;

/** Content that was last seen so many days ago; what is left of it, in days, and what was said, after the keeper was there. */
async function keep(seenAgo: readonly number[], { most = 1_000, cooldown = null as number | null } = {}) {
  const table = new LockTable();
  const store = new MemoryHistoryStore(table);
  const digests = seenAgo.map((days) => digestOf(`${days}`));
  const seen = seenAgo.map((days, at) => ({ ...APP, digest: digests[at] as Digest, at: NOW - days * DAY }));
  await store.record({ tags: [], seen, named: [] });
  const said: string[] = [];
  const locks = new MemoryLocks(table);
  const log = { warn: (_: unknown, message?: string) => said.push(message ?? '') };
  const keeper = new HistoryKeeper({
    store,
    locks,
    config: () => ({ cooldown }),
    log: log as never,
    now: () => NOW,
    most,
  });
  const lock = await locks.acquire('drop history', { leaseMs: 60_000 });
  await keeper.drop(lock, lock.lost);
  await lock.release();
  const left = await store.firstSeen(APP, digests);
  return { left: seenAgo.filter((_, at) => left.has(digests[at] as Digest)), said };
}

test('what was not seen for 400 days goes, or for twice the cooldown where that is longer', async () => {
  expect(await keep([1, 399, 401])).toEqual({ left: [1, 399], said: [] });
  expect(await keep([399, 500, 601], { cooldown: 300 * DAY })).toEqual({ left: [399, 500], said: [] });
});

test('of more than is to be remembered what was seen longest ago goes, and nothing that may be in use', async () => {
  expect(await keep([1, 2, 9, 20, 30], { most: 3 })).toEqual({ left: [1, 2, 9], said: [] });
  expect(await keep([20, 21, 22], { most: 1, cooldown: 21 * DAY })).toMatchObject({ left: [20, 21, 22] });
  const crowded = await keep([1, 2, 3, 9, 20], { most: 2 });
  expect(crowded.left).toEqual([1, 2, 3]);
  expect(crowded.said).toEqual([expect.stringContaining('limits.requestsPerMinute')]);
});
