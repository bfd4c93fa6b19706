import { describe, expect, test } from 'vitest';
import type { AliasRow, AliasStore } from '../../src/aliases/store.ts';
import type { RegistryEntry } from '../../src/aliases/table.ts';

const quay: RegistryEntry = {
  host: 'quay.io',
  endpoints: ['https://quay.io', 'http://10.0.0.5:5000/mirror'],
  proxy: 'socks5h://127.0.0.1:1080',
  credentials: { username: 'bot', password: 'sécret:"\'' },
  public: true,
};
const plain: RegistryEntry = {
  host: 'localhost:5000',
  endpoints: ['http://localhost:5000'],
  proxy: null,
  credentials: null,
  public: false,
};
const alias = (name: string, registry: string, certificate = true): AliasRow => ({ name, registry, certificate });

/** What every `AliasStore` keeps to. `open` gives a new store; `reopen` one on what the first has written, where that can be. */
export function aliasStoreConformance(name: string, open: () => { store: AliasStore; reopen: () => AliasStore }): void {
  describe(`${name} is an AliasStore`, () => {
    test('is new until the first change, an empty one included', () => {
      const { store, reopen } = open();
      expect(store.isNew()).toBe(true);
      expect(store.load()).toEqual({ registries: [], aliases: [] });
      store.apply({});
      expect(store.isNew()).toBe(false);
      expect(reopen().isNew()).toBe(false);
    });

    test('gives back every field as it was put', () => {
      const { store, reopen } = open();
      store.apply({
        putRegistries: [quay, plain],
        putAliases: [alias('quay', 'quay.io'), alias('hub.corp.example', 'quay.io', false)],
      });
      for (const one of [store, reopen()]) {
        const { registries, aliases } = one.load();
        expect(new Set(registries)).toEqual(new Set([quay, plain]));
        expect(new Set(aliases)).toEqual(
          new Set([alias('quay', 'quay.io'), alias('hub.corp.example', 'quay.io', false)]),
        );
      }
    });

    test('replaces by key, also a registry that aliases stand for', () => {
      const { store } = open();
      store.apply({ putRegistries: [quay, plain], putAliases: [alias('a', 'quay.io')] });
      const changed = { ...quay, credentials: null, proxy: null, public: false };
      store.apply({ putRegistries: [changed], putAliases: [alias('a', 'localhost:5000', false)] });
      expect(store.load().registries).toContainEqual(changed);
      expect(store.load().aliases).toEqual([alias('a', 'localhost:5000', false)]);
    });

    test('removes an alias and its registry in one change; removing what is not there is no error', () => {
      const { store } = open();
      store.apply({ putRegistries: [quay], putAliases: [alias('quay', 'quay.io')] });
      store.apply({ removeAliases: ['quay', 'nobody'], removeRegistries: ['quay.io', 'nowhere.example'] });
      expect(store.load()).toEqual({ registries: [], aliases: [] });
      expect(store.isNew()).toBe(false);
    });

    test('a change that fails half-way changes nothing', () => {
      const { store } = open();
      store.apply({ putRegistries: [quay], putAliases: [alias('quay', 'quay.io')] });
      const before = store.load();
      expect(() =>
        store.apply({ removeAliases: ['quay'], putRegistries: [plain], putAliases: [alias('x', 'nowhere.example')] }),
      ).toThrow();
      expect(() => store.apply({ putAliases: [alias('y', 'quay.io')], removeRegistries: ['quay.io'] })).toThrow();
      expect(store.load()).toEqual(before);
    });
  });
}
