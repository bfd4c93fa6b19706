import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import { SqliteAliasStore } from '../../../src/sqlite/alias-store.ts';
import { SqliteCounterStore } from '../../../src/sqlite/counter-store.ts';
import { type Database, openDatabase } from '../../../src/sqlite/database.ts';
import { SqliteHistoryStore } from '../../../src/sqlite/history-store.ts';
import { SqliteLocks } from '../../../src/sqlite/locks.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { SqliteObjectIndex } from '../../../src/sqlite/object-index.ts';
import { SqliteUserStore } from '../../../src/sqlite/user-store.ts';
import { SqliteWarmStore } from '../../../src/sqlite/warm-store.ts';
import { aliasStoreConformance } from '../../conformance/alias-store.ts';
import { counterStoreConformance } from '../../conformance/counter-store.ts';
import { historyStoreConformance } from '../../conformance/history-store.ts';
import { objectIndexConformance } from '../../conformance/object-index.ts';
import { userStoreConformance } from '../../conformance/user-store.ts';
import { warmStoreConformance } from '../../conformance/warm-store.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';
import { MemoryHistoryStore } from '../../support/memory-history.ts';
import { MemoryObjectIndex } from '../../support/memory-object-index.ts';
import { MemoryWarmStore } from '../../support/memory-warm-store.ts';
import type { StoreHarness } from '../../support/store-harness.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0).reverse()) cleanup();
});

/** A store on a database file, others over the same open database, and others over another connection to the file. */
function onDisk<T>(make: (database: Database) => T): () => StoreHarness<T> {
  return () => {
    const dir = mkdtempSync(join(tmpdir(), 'gateway-store-'));
    cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
    const open = (): Database => {
      const database = openDatabase(join(dir, 'gateway.db'), gatewayMigrations, { durability: 'full' });
      cleanups.push(() => database.close());
      return database;
    };
    const database = open();
    return { store: make(database), another: () => make(database), reopen: () => make(open()) };
  };
}

aliasStoreConformance(
  'SqliteAliasStore',
  onDisk((database) => new SqliteAliasStore(database)),
);
userStoreConformance(
  'SqliteUserStore',
  onDisk((database) => new SqliteUserStore(database)),
);
counterStoreConformance(
  'SqliteCounterStore',
  onDisk((database) => new SqliteCounterStore(database)),
);
warmStoreConformance(
  'SqliteWarmStore',
  onDisk((database) => new SqliteWarmStore(database)),
);
warmStoreConformance('MemoryWarmStore', () => {
  const store = new MemoryWarmStore();
  return { store, another: () => store.another(), reopen: () => store.another() };
});
objectIndexConformance('SqliteObjectIndex', async () => {
  let now = 1_000_000;
  const { store, another } = onDisk((database) => ({
    index: new SqliteObjectIndex(database, () => now),
    locks: new SqliteLocks(database),
  }))();
  return {
    ...store,
    another: async () => (await another()).index,
    pass: async (ms) => {
      now += ms;
    },
  };
});
objectIndexConformance('MemoryObjectIndex', async () => {
  let now = 1_000_000;
  const table = new LockTable();
  const index = new MemoryObjectIndex(() => now, table);
  return {
    index,
    locks: new MemoryLocks(table),
    another: () => index.another(),
    pass: async (ms) => {
      now += ms;
    },
  };
});
historyStoreConformance('SqliteHistoryStore', async () => {
  const { store, another } = onDisk((database) => ({
    store: new SqliteHistoryStore(database),
    locks: new SqliteLocks(database),
  }))();
  return { ...store, another: async () => (await another()).store };
});
historyStoreConformance('MemoryHistoryStore', () => {
  const table = new LockTable();
  const store = new MemoryHistoryStore(table);
  return { store, locks: new MemoryLocks(table), another: () => store.another() };
});
