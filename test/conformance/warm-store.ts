import { describe, expect, test } from 'vitest';
import type { WarmRow, WarmRun, WarmStore } from '../../src/images/warm-store.ts';
import { eventually } from '../support/eventually.ts';
import type { StoreHarness } from '../support/store-harness.ts';

const rowOf = (image: string, more: Partial<WarmRow> = {}): WarmRow => ({
  image,
  platforms: ['linux/amd64'],
  referrers: false,
  pin: false,
  schedule: '0 3 * * *',
  createdAt: '2026-11-22T05:00:00.000Z',
  ...more,
});

const runOf = (image: string, node: string, more: Partial<WarmRun> = {}): WarmRun => ({
  image,
  node,
  startedAt: '2026-11-22T05:00:00.000Z',
  endedAt: '2026-11-22T05:00:10.000Z',
  error: null,
  retryAt: null,
  succeededAt: '2026-11-22T05:00:10.000Z',
  digest: `sha256:${'a'.repeat(64)}`,
  // More than 32 bits hold.
  bytes: 5_000_000_000,
  fetched: 7,
  ...more,
});

const [ALPINE, QUAY] = ['docker.io/library/alpine:3', 'quay.io/org/app:1'];

/** What every `WarmStore` keeps to. */
export function warmStoreConformance(
  name: string,
  open: () => StoreHarness<WarmStore> | Promise<StoreHarness<WarmStore>>,
): void {
  describe(`${name} is a WarmStore`, () => {
    test('keeps one row an image, whole', async () => {
      const { store, another, reopen } = await open();
      expect(await store.load()).toEqual({ rows: [], runs: [] });
      const pinned = rowOf(ALPINE, { platforms: null, referrers: true, pin: true, schedule: null });
      await store.put(rowOf(QUAY));
      await store.put(rowOf(ALPINE));
      await store.put(pinned);
      for (const one of [store, await another(), await reopen()])
        expect((await one.load()).rows).toEqual([pinned, rowOf(QUAY)]);
    });

    test('keeps the last run of each node, and those of a row that is put anew', async () => {
      const { store, reopen } = await open();
      await store.put(rowOf(ALPINE));
      await store.noteRun(runOf(ALPINE, 'b'));
      await store.noteRun(runOf(ALPINE, 'a'));
      const failed = runOf(ALPINE, 'a', {
        error: 'quay.io: "no"',
        retryAt: '2026-11-22T06:00:00.000Z',
        succeededAt: null,
        digest: null,
      });
      await store.noteRun(failed);
      await store.put(rowOf(ALPINE, { pin: true }));
      expect((await (await reopen()).load()).runs).toEqual([failed, runOf(ALPINE, 'b')]);
    });

    test('forgets a row with its runs, and notes none of what is gone', async () => {
      const { store, another } = await open();
      await store.put(rowOf(ALPINE));
      await store.put(rowOf(QUAY));
      await store.noteRun(runOf(ALPINE, 'a'));
      await store.noteRun(runOf(QUAY, 'a'));
      expect(await store.remove(ALPINE)).toBe(true);
      expect(await store.remove(ALPINE)).toBe(false);
      await store.noteRun(runOf(ALPINE, 'a'));
      expect(await (await another()).load()).toEqual({ rows: [rowOf(QUAY)], runs: [runOf(QUAY, 'a')] });
    });

    test('tells other holders of changed rows, and of runs nobody', async () => {
      const { store, another } = await open();
      const other = await another();
      let told = 0;
      const end = other.watch(() => told++);
      await store.put(rowOf(ALPINE));
      await eventually('told of a row', () => told === 1);
      await store.noteRun(runOf(ALPINE, 'a'));
      await store.remove(ALPINE);
      await eventually('told of its end', () => told === 2);
      end();
    });
  });
}
