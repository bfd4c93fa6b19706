import { setTimeout as timer } from 'node:timers/promises';
import { afterEach, expect, it, vi } from 'vitest';
import { Reloader } from '../../../src/kit/async.ts';

afterEach(() => vi.useRealTimers());

/** Loads that end when the test says so. */
function slowLoads() {
  const ends: (() => void)[] = [];
  const load = () => new Promise<void>((end) => ends.push(end));
  return { ends, load };
}

it('makes one load of many requests that wait, and none at the same time as another', async () => {
  const { ends, load } = slowLoads();
  const reloader = new Reloader(load, () => {});
  const first = reloader.now();
  await timer(1);
  const later = Promise.all([reloader.now(), reloader.now(), reloader.now()]);
  reloader.request();
  await timer(1);
  expect(ends).toHaveLength(1);
  ends[0]?.();
  await first;
  await timer(1);
  expect(ends).toHaveLength(2);
  ends[1]?.();
  await later;
  await timer(1);
  expect(ends).toHaveLength(2);
});

it('says that a load failed, and goes on', async () => {
  let broken = true;
  const reloader = new Reloader(
    async () => {
      if (broken) throw new Error('no store');
    },
    () => {},
  );
  await expect(reloader.now()).rejects.toThrow('no store');
  broken = false;
  await reloader.now();
});

it('tries again by itself after a request that failed, until it is closed', async () => {
  vi.useFakeTimers();
  let loads = 0;
  const failed = vi.fn();
  const reloader = new Reloader(async () => {
    loads++;
    throw new Error('no store');
  }, failed);
  reloader.request();
  await vi.advanceTimersByTimeAsync(0);
  expect(failed).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(loads).toBeGreaterThan(2);
  await reloader.close();
  const before = loads;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(loads).toBe(before);
});
