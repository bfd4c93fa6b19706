import { describe, expect, test } from 'vitest';
import type { CounterStore } from '../../src/access/quotas.ts';

export function counterStoreConformance(
  name: string,
  open: () => { store: CounterStore; reopen: () => CounterStore },
): void {
  describe(`${name} is a CounterStore`, () => {
    test('sets counters and gives back those of the periods asked for', () => {
      const { store, reopen } = open();
      const keep = ['2026-11-22', '2026-11'];
      const day = { period: '2026-11-22', client: '192.0.2.1', bytes: 5 };
      const month = { period: '2026-11', client: '*', bytes: Number.MAX_SAFE_INTEGER };
      store.save([{ ...day, bytes: 3 }, month], keep);
      store.save([day], keep);
      expect(new Set(reopen().load(keep))).toEqual(new Set([day, month]));
      expect(store.load(['2026-11'])).toEqual([month]);
    });

    test('forgets the periods that are not to be kept', () => {
      const { store } = open();
      const old = { period: '2026-11-21', client: 'user:ci', bytes: 1 };
      store.save([old], ['2026-11-21']);
      expect(store.load(['2026-11-21'])).toEqual([old]);
      store.save([], ['2026-11-22']);
      expect(store.load(['2026-11-21'])).toEqual([]);
    });
  });
}
