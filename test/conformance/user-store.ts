import { describe, expect, test } from 'vitest';
import type { UserRow, UserStore } from '../../src/access/users.ts';

const row = (name: string, fill: number): UserRow => ({
  name,
  tokenHash: new Uint8Array(32).fill(fill),
  createdAt: '2026-11-22T05:00:00.000Z',
});

export function userStoreConformance(name: string, open: () => { store: UserStore; reopen: () => UserStore }): void {
  describe(`${name} is a UserStore`, () => {
    test('keeps users, and the first of a name', () => {
      const { store, reopen } = open();
      expect(store.load()).toEqual([]);
      expect(store.add(row('ci', 1))).toBe(true);
      expect(store.add(row('ci', 2))).toBe(false);
      expect(store.add(row('CI', 3))).toBe(true);
      for (const one of [store, reopen()]) expect(new Set(one.load())).toEqual(new Set([row('ci', 1), row('CI', 3)]));
    });

    test('says whether there was one to remove', () => {
      const { store, reopen } = open();
      store.add(row('ci', 1));
      expect(store.remove('ci')).toBe(true);
      expect(store.remove('ci')).toBe(false);
      expect(reopen().load()).toEqual([]);
    });
  });
}
