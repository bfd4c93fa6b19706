import { describe, expect, test } from 'vitest';
import type { AliasStore, StoredAlias, TableChange } from '../../src/aliases/store.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';
import type { StoreHarness } from '../support/store-harness.ts';

const quay: RegistryEntry = {
  host: 'quay.io',
  endpoints: ['https://quay.io', 'http://10.0.0.5:5000/mirror'],
  proxy: 'socks5h://127.0.0.1:1080',
  credentials: { username: 'bot', password: 'sécret:"\'' },
  named: [
    { name: 'team-a', id: 2, for: ['team-a/*'], username: 'robot+a', password: 'sécret of a' },
    { name: 'team-b', id: 2_147_483_646, for: ['team-b/app', 'team-b/*/x'], username: 'bot', password: 'of b' },
  ],
  public: true,
  realms: ['auth.example.com', '[::1]:8443'],
  ca: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n',
};
const plain: RegistryEntry = {
  host: 'localhost:5000',
  endpoints: ['http://localhost:5000'],
  proxy: null,
  credentials: null,
  public: false,
  realms: [],
  named: [],
  ca: null,
};
const alias = (name: string, registry: string, certificate = true): StoredAlias => ({ name, registry, certificate });

/** The rows alone. */
const rows = async (store: AliasStore) => {
  const { registries, aliases } = await store.load();
  return { registries, aliases };
};

/** Applies on the version that the store has now. */
async function apply(store: AliasStore, change: TableChange): Promise<number> {
  const version = await store.apply(change, (await store.load()).version);
  if (version === null) throw new Error('nobody else changes this table');
  return version;
}

/** What every `AliasStore` keeps to. */
export function aliasStoreConformance(
  name: string,
  open: () => StoreHarness<AliasStore> | Promise<StoreHarness<AliasStore>>,
): void {
  describe(`${name} is an AliasStore`, () => {
    test('is new until the first change, an empty one included', async () => {
      const { store, another, reopen } = await open();
      expect(await store.load()).toEqual({ version: 0, isNew: true, registries: [], aliases: [] });
      const version = await apply(store, {});
      expect(version).toBeGreaterThan(0);
      for (const one of [store, await another(), await reopen()]) {
        expect(await one.load()).toEqual({ version, isNew: false, registries: [], aliases: [] });
      }
    });

    test('gives back every field as it was put', async () => {
      const { store, another, reopen } = await open();
      await apply(store, {
        putRegistries: [quay, plain],
        putAliases: [alias('quay', 'quay.io'), alias('hub.corp.example', 'quay.io', false)],
      });
      for (const one of [store, await another(), await reopen()]) {
        const { registries, aliases } = await one.load();
        expect(new Set(registries)).toEqual(new Set([quay, plain]));
        expect(new Set(aliases)).toEqual(
          new Set([alias('quay', 'quay.io'), alias('hub.corp.example', 'quay.io', false)]),
        );
      }
    });

    test('replaces by key, also a registry that aliases stand for', async () => {
      const { store } = await open();
      await apply(store, { putRegistries: [quay, plain], putAliases: [alias('a', 'quay.io')] });
      const changed = { ...quay, credentials: null, proxy: null, public: false, realms: [], named: [], ca: null };
      await apply(store, { putRegistries: [changed], putAliases: [alias('a', 'localhost:5000', false)] });
      expect((await store.load()).registries).toContainEqual(changed);
      expect((await store.load()).aliases).toEqual([alias('a', 'localhost:5000', false)]);
    });

    test('removes an alias and its registry in one change; removing what is not there is no error', async () => {
      const { store } = await open();
      await apply(store, { putRegistries: [quay], putAliases: [alias('quay', 'quay.io')] });
      await apply(store, { removeAliases: ['quay', 'nobody'], removeRegistries: ['quay.io', 'nowhere.example'] });
      expect(await rows(store)).toEqual({ registries: [], aliases: [] });
      expect((await store.load()).isNew).toBe(false);
    });

    test('a change that fails half-way changes nothing, its version included', async () => {
      const { store } = await open();
      await apply(store, { putRegistries: [quay], putAliases: [alias('quay', 'quay.io')] });
      const before = await store.load();
      const change = { removeAliases: ['quay'], putRegistries: [plain], putAliases: [alias('x', 'nowhere.example')] };
      await expect(store.apply(change, before.version)).rejects.toThrow();
      await expect(
        store.apply({ putAliases: [alias('y', 'quay.io')], removeRegistries: ['quay.io'] }, before.version),
      ).rejects.toThrow();
      expect(await store.load()).toEqual(before);
    });

    test('a change on an outdated version is refused, and nothing of it is applied', async () => {
      const { store, another } = await open();
      const other = await another();
      const version = await apply(store, { putRegistries: [quay] });
      const newer = await other.apply({ putAliases: [alias('quay', 'quay.io')] }, version);
      expect(newer).toBeGreaterThan(version);
      const before = await store.load();
      expect(before.version).toBe(newer);
      expect(await store.apply({ removeRegistries: ['quay.io'] }, version)).toBeNull();
      expect(await store.apply({ putRegistries: [plain] }, version)).toBeNull();
      expect(await store.load()).toEqual(before);
    });

    test('of several holders that change one version at once, one succeeds', async () => {
      const { store, another } = await open();
      const holders = [store, await another(), await another()];
      const versions = await Promise.all(holders.map((one) => one.apply({ putRegistries: [quay] }, 0)));
      expect(versions.filter((version) => version !== null)).toHaveLength(1);
    });

    test("another holder's change is seen through watch, until it is ended", async () => {
      const { store, another } = await open();
      const other = await another();
      let seen = 0;
      const end = store.watch(() => seen++);
      await apply(other, { putRegistries: [quay] });
      await expect.poll(() => seen).toBe(1);
      expect((await store.load()).registries).toEqual([quay]);
      expect(await other.apply({}, 0)).toBeNull();
      expect(seen).toBe(1);
      end();
      await apply(other, { putRegistries: [plain] });
      expect(seen).toBe(1);
    });
  });
}
