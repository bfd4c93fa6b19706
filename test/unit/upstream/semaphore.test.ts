import { expect, it } from 'vitest';
import { type Purpose, type Release, Semaphore } from '../../../src/upstream/semaphore.ts';

const forever = new AbortController().signal;

/** Asks for permits and notes in which order they are granted. */
function requestsTo(semaphore: Semaphore) {
  const granted: string[] = [];
  const releases: Release[] = [];
  const ask = async (purpose: Purpose, key: string, name = `${purpose} ${key}`, signal = forever) => {
    releases.push(await semaphore.acquire(purpose, key, signal));
    granted.push(name);
  };
  return { granted, releases, ask };
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

it('grants documents before fills, and fills before segments', async () => {
  const semaphore = new Semaphore({ total: 1 });
  const { granted, releases, ask } = requestsTo(semaphore);
  for (const purpose of ['fill', 'segment', 'fill', 'document'] as const) void ask(purpose, 'a');
  await settle();
  expect(granted).toEqual(['fill a']);
  expect(semaphore.waiting).toBe(3);
  for (let i = 0; i < 4; i++) {
    releases[i]?.();
    await settle();
  }
  expect(granted).toEqual(['fill a', 'document a', 'fill a', 'segment a']);
  expect(semaphore.inUse).toBe(0);
});

it('lets keys take turns, so that one registry with a hundred layers holds up no other', async () => {
  const semaphore = new Semaphore({ total: 1 });
  const { granted, releases, ask } = requestsTo(semaphore);
  for (let i = 0; i < 4; i++) void ask('fill', 'greedy');
  void ask('fill', 'modest');
  for (let i = 0; i < 5; i++) {
    await settle();
    releases[i]?.();
  }
  expect(granted.indexOf('fill modest')).toBeLessThanOrEqual(2);
});

it('keeps to the limits of a purpose and of a key', async () => {
  const semaphore = new Semaphore({ total: 10, fill: 2, segment: 3, segmentPerKey: 2 });
  const { granted, ask } = requestsTo(semaphore);
  for (let i = 0; i < 3; i++) void ask('fill', 'a');
  for (let i = 0; i < 3; i++) void ask('segment', 'a');
  for (let i = 0; i < 3; i++) void ask('segment', 'b');
  void ask('document', 'a');
  await settle();
  const count = (name: string) => granted.filter((it) => it === name).length;
  expect([count('fill a'), count('segment a'), count('segment b'), count('document a')]).toEqual([2, 2, 1, 1]);
});

it('forgets who leaves, and counts a release once', async () => {
  const semaphore = new Semaphore({ total: 1 });
  const { granted, releases, ask } = requestsTo(semaphore);
  void ask('fill', 'a', 'first');
  await settle();
  const leaving = new AbortController();
  const left = ask('fill', 'a', 'left', leaving.signal);
  void ask('fill', 'a', 'second');
  leaving.abort(new Error('gone'));
  await expect(left).rejects.toThrow('gone');
  releases[0]?.();
  releases[0]?.();
  await settle();
  expect(granted).toEqual(['first', 'second']);
  expect(semaphore.inUse).toBe(1);
  expect(semaphore.waiting).toBe(0);
});
