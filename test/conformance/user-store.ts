import { describe, expect, test } from 'vitest';
import type { StoredUser, UserStore } from '../../src/access/users.ts';
import type { StoreHarness } from '../support/store-harness.ts';

const row = (name: string, fill: number): StoredUser => ({
  name,
  tokenHash: new Uint8Array(32).fill(fill),
  createdAt: '2026-11-22T05:00:00.000Z',
  issuedAt: '2026-11-22T05:00:00.000Z',
  expiresAt: null,
  previous: null,
});

/** What every `UserStore` keeps to. */
export function userStoreConformance(
  name: string,
  open: () => StoreHarness<UserStore> | Promise<StoreHarness<UserStore>>,
): void {
  describe(`${name} is a UserStore`, () => {
    test('keeps users, and the first of a name', async () => {
      const { store, another, reopen } = await open();
      expect(await store.load()).toEqual({ users: [], everAdded: false });
      expect(await store.add(row('ci', 1))).toBe(true);
      expect(await store.add(row('ci', 2))).toBe(false);
      expect(await store.add(row('CI', 3))).toBe(true);
      for (const one of [store, await another(), await reopen()]) {
        expect(new Set((await one.load()).users)).toEqual(new Set([row('ci', 1), row('CI', 3)]));
      }
    });

    test('puts one row in place of another, with everything in it', async () => {
      const { store, reopen } = await open();
      await store.add(row('ci', 1));
      const changed: StoredUser = {
        ...row('ci', 2),
        issuedAt: '2026-11-23T05:00:00.000Z',
        expiresAt: '2027-11-23T05:00:00.000Z',
        previous: { tokenHash: row('ci', 1).tokenHash, until: '2026-11-24T05:00:00.000Z' },
      };
      expect(await store.replace(changed)).toBe(true);
      expect(await store.replace(row('dev', 1))).toBe(false);
      expect((await (await reopen()).load()).users).toEqual([changed]);
    });

    test('keeps the latest use of each user, and none of one that is gone', async () => {
      const { store, reopen } = await open();
      await store.add(row('ci', 1));
      await store.add(row('dev', 1));
      const [early, late] = ['2026-11-22T05:01:00.000Z', '2026-11-22T05:02:00.000Z'];
      await store.noteUses(new Map([['ci', late]]));
      await store.noteUses(
        new Map([
          ['ci', early],
          ['nobody', late],
        ]),
      );
      expect(await (await reopen()).lastUses()).toEqual(new Map([['ci', late]]));
      await store.replace(row('ci', 2));
      expect(await store.lastUses()).toEqual(new Map([['ci', late]]));
      await store.remove('ci');
      await store.add(row('ci', 1));
      expect(await store.lastUses()).toEqual(new Map());
    });

    test('says whether there was one to remove', async () => {
      const { store, reopen } = await open();
      await store.add(row('ci', 1));
      expect(await store.remove('ci')).toBe(true);
      expect(await store.remove('ci')).toBe(false);
      // That there was one is known for good.
      expect(await (await reopen()).load()).toEqual({ users: [], everAdded: true });
    });

    test('of two holders that add one name at once, one succeeds', async () => {
      const { store, another } = await open();
      const other = await another();
      const added = await Promise.all([store.add(row('ci', 1)), other.add(row('ci', 2))]);
      expect(added.toSorted()).toEqual([false, true]);
      expect(await store.load()).toEqual(await other.load());
    });

    test("another holder's change is seen through watch, until it is ended", async () => {
      const { store, another } = await open();
      const other = await another();
      let seen = 0;
      const end = store.watch(() => seen++);
      await other.add(row('ci', 1));
      await expect.poll(() => seen).toBe(1);
      expect((await store.load()).users).toEqual([row('ci', 1)]);
      await other.remove('ci');
      await expect.poll(() => seen).toBe(2);
      end();
      await other.add(row('ci', 1));
      expect(seen).toBe(2);
    });
  });
}
