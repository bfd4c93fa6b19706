import { afterAll, beforeAll, onTestFinished } from 'vitest';
import type { Locks } from '../../src/kit/locks.ts';
import type { PostgresStores } from '../../src/postgres/open.ts';
import { aliasStoreConformance } from '../conformance/alias-store.ts';
import { certStoreConformance } from '../conformance/cert-store.ts';
import { challengesConformance } from '../conformance/challenges.ts';
import { counterStoreConformance } from '../conformance/counter-store.ts';
import { locksConformance } from '../conformance/locks.ts';
import { userStoreConformance } from '../conformance/user-store.ts';
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
  counterStoreConformance('PostgresCounterStore', () => nodes(({ counters }) => counters));

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
});
