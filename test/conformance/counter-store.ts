import { describe, expect, test } from 'vitest';
import type { CounterStore } from '../../src/access/counters.ts';
import type { StoreHarness } from '../support/store-harness.ts';

const KEEP = ['2026-11-22', '2026-11'];
const day = (client: string, bytes: number) => ({ period: '2026-11-22', client, bytes });
const month = (bytes: number) => ({ period: '2026-11', client: '*', bytes });

/** What every `CounterStore` keeps to. */
export function counterStoreConformance(
  name: string,
  open: () => StoreHarness<CounterStore> | Promise<StoreHarness<CounterStore>>,
): void {
  describe(`${name} is a CounterStore`, () => {
    test('adds to counters, returns the totals, and gives back those of the periods asked for', async () => {
      const { store, another, reopen } = await open();
      expect(await store.load(KEEP)).toEqual([]);
      expect(await store.add([day('192.0.2.1', 3), month(Number.MAX_SAFE_INTEGER)])).toEqual([
        day('192.0.2.1', 3),
        month(Number.MAX_SAFE_INTEGER),
      ]);
      expect(await store.add([day('192.0.2.1', 5)])).toEqual([day('192.0.2.1', 8)]);
      for (const one of [await another(), await reopen()]) {
        expect(new Set(await one.load(KEEP))).toEqual(new Set([day('192.0.2.1', 8), month(Number.MAX_SAFE_INTEGER)]));
      }
      expect(await store.load(['2026-11'])).toEqual([month(Number.MAX_SAFE_INTEGER)]);
    });

    test('takes away what a holder gives back, however many do at once', async () => {
      const { store, another } = await open();
      const holders = [store, await another(), await another()];
      await Promise.all(holders.map((one) => one.add([month(100), day('user:ci', 30)])));
      expect(await store.add([month(-40), day('user:ci', 0)])).toEqual([month(260), day('user:ci', 90)]);
      await Promise.all(holders.map((one) => one.add([month(-60), day('user:ci', -30)])));
      expect(new Set(await store.load(KEEP))).toEqual(new Set([month(80), day('user:ci', 0)]));
    });

    test('forgets the periods that are not to be kept', async () => {
      const { store } = await open();
      const old = { period: '2026-11-21', client: 'user:ci', bytes: 1 };
      await store.add([old, month(1)]);
      await store.keepOnly(['2026-11-21', '2026-11']);
      expect(await store.load(['2026-11-21'])).toEqual([old]);
      await store.keepOnly(['2026-11-22', '2026-11']);
      expect(await store.load(['2026-11-21', '2026-11'])).toEqual([month(1)]);
    });

    test('what several holders add at once is all counted', async () => {
      const { store, another } = await open();
      const holders = [store, await another(), await another()];
      const totals = await Promise.all(holders.map((one) => one.add([day('user:ci', 10), month(10)])));
      expect(totals.map(([own]) => own?.bytes).toSorted()).toEqual([10, 20, 30]);
      expect(new Set(await store.load(KEEP))).toEqual(new Set([day('user:ci', 30), month(30)]));
    });

    test("another holder's change is seen through watch, until it is ended", async () => {
      const { store, another } = await open();
      const other = await another();
      let seen = 0;
      const end = store.watch(() => seen++);
      await other.add([month(1)]);
      await expect.poll(() => seen).toBe(1);
      expect(await store.load(KEEP)).toEqual([month(1)]);
      end();
      await other.add([month(1)]);
      expect(seen).toBe(1);
    });
  });
}
