import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import type { Locks } from '../../src/kit/locks.ts';
import { PostgresHistoryStore } from '../../src/postgres/history-store.ts';
import { PostgresObjectIndex } from '../../src/postgres/object-index.ts';
import type { PostgresStores } from '../../src/postgres/open.ts';
import { PostgresWarmStore } from '../../src/postgres/warm-store.ts';
import { aliasStoreConformance } from '../conformance/alias-store.ts';
import { certStoreConformance } from '../conformance/cert-store.ts';
import { challengesConformance } from '../conformance/challenges.ts';
import { counterStoreConformance } from '../conformance/counter-store.ts';
import { historyStoreConformance } from '../conformance/history-store.ts';
import { locksConformance } from '../conformance/locks.ts';
import { objectIndexConformance } from '../conformance/object-index.ts';
import { userStoreConformance } from '../conformance/user-store.ts';
import { warmStoreConformance } from '../conformance/warm-store.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { openNode } from '../support/postgres-stores.ts';
import { describeWith } from '../support/programs.ts';
import { Relay } from '../support/relay.ts';
import type { StoreHarness } from '../support/store-harness.ts';

describeWith(POSTGRES, 'over PostgreSQL', () => {
  let server: PostgresServer;
  let url: string;
  beforeAll(async () => {
    server = await PostgresServer.start();
    url = await server.createDatabase();
  });
  afterAll(() => server.stop());

  /** Stores of several nodes over one empty database. */
  async function nodes<T>(pick: (stores: PostgresStores) => T): Promise<StoreHarness<T>> {
    await server.empty(url);
    const open = async () => pick(await openNode(url));
    return { store: await open(), another: open, reopen: open };
  }

  aliasStoreConformance('PostgresAliasStore', () => nodes(({ aliases }) => aliases));
  userStoreConformance('PostgresUserStore', () => nodes(({ users }) => users));
  objectIndexConformance('PostgresObjectIndex', async () => {
    const url = await server.createDatabase();
    const { database, locks } = await openNode(url);
    const another = async () => new PostgresObjectIndex((await openNode(url)).database);
    return {
      index: new PostgresObjectIndex(database),
      locks,
      another,
      pass: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    };
  });
  historyStoreConformance('PostgresHistoryStore', async () => {
    const url = await server.createDatabase();
    const { database, locks } = await openNode(url);
    const another = async () => new PostgresHistoryStore((await openNode(url)).database);
    return { store: new PostgresHistoryStore(database), locks, another };
  });
  counterStoreConformance('PostgresCounterStore', () => nodes(({ counters }) => counters));
  warmStoreConformance('PostgresWarmStore', () => nodes(({ database, feed }) => new PostgresWarmStore(database, feed)));

  async function twoNodes<T>(pick: (stores: PostgresStores) => T) {
    await server.empty(url);
    const [one, two] = [await openNode(url), await openNode(url)];
    return { store: pick(one), other: pick(two), reopen: async () => pick(await openNode(url)), locks: one.locks };
  }

  certStoreConformance('PostgreSQL', () => twoNodes(({ certificates }) => certificates));
  challengesConformance('PostgreSQL', () => twoNodes(({ challenges }) => challenges));

  locksConformance('PostgreSQL', true, async () => {
    await server.empty(url);
    const relays = new Map<Locks, Relay>();
    const open = async () => {
      const relay = await Relay.start(server.port);
      onTestFinished(() => relay.stop());
      const behind = new URL(url);
      behind.port = String(relay.port);
      const { locks } = await openNode(behind.href);
      relays.set(locks, relay);
      return locks;
    };
    return {
      open,
      restart: open,
      cutOff: (locks) => relays.get(locks)?.cut(),
      mend: (locks) => relays.get(locks)?.mend(),
    };
  });

  it('keeps nothing secret in the clear', async () => {
    const url = await server.createDatabase();
    const { aliases, certificates, challenges } = await openNode(url);
    const [at, host, directory, key] = [Date.now(), 'hub.example.com', 'https://ca.example/directory', 'geheim'];
    const registry = { endpoints: ['https://quay.io'], public: false, realms: [], named: [], ca: null };
    const proxy = 'socks5://me:geheim@10.0.0.1:1080';
    const credentials = { username: 'me', password: 'geheim' };
    await aliases.apply({ putRegistries: [{ ...registry, host: 'quay.io', proxy, credentials }] }, 0);
    await certificates.putAccount({ directory, key, url: null });
    await certificates.putOrder({ host, directory, key, url: 'https://ca.example/order/1', createdAt: at });
    await challenges.put({ type: 'tls-alpn-01', host, chain: 'chain', key, expiresAt: at + 60_000 });
    const tables = await server.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", url);
    expect(tables).toContain('registries');
    const rows = await server.query(
      tables.map((table) => `SELECT row_to_json(t) FROM "${table}" AS t;`).join('\n'),
      url,
    );
    expect(rows.join('\n')).toContain('quay.io');
    expect(rows.join('\n')).not.toContain('geheim');
    expect((await aliases.load()).registries).toMatchObject([{ proxy, credentials }]);
  });
});
