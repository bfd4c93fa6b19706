import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Locks } from '../../../src/kit/locks.ts';
import { SqliteCertStore } from '../../../src/sqlite/cert-store.ts';
import { SqliteChallenges } from '../../../src/sqlite/challenge-store.ts';
import { type Database, openDatabase } from '../../../src/sqlite/database.ts';
import { SqliteLocks } from '../../../src/sqlite/locks.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { certStoreConformance } from '../../conformance/cert-store.ts';
import { challengesConformance } from '../../conformance/challenges.ts';
import { MemoryCertStore } from '../../support/cert-store.ts';
import { MemoryChallenges } from '../../support/challenges.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';

/** Two holders of one open database, and what opens the file again. */
function onDisk<T>(make: (database: Database) => T): { store: T; other: T; reopen: () => T; locks: Locks } {
  const directory = mkdtempSync(join(tmpdir(), 'cert-store-'));
  const open = () => openDatabase(join(directory, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  const databases = [open()];
  onTestFinished(() => {
    for (const database of databases) database.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return {
    store: make(databases[0]!),
    other: make(databases[0]!),
    locks: new SqliteLocks(databases[0]!),
    reopen() {
      const database = open();
      databases.push(database);
      return make(database);
    },
  };
}

certStoreConformance('SQLite', () => onDisk((database) => new SqliteCertStore(database)));
challengesConformance('SQLite', () => onDisk((database) => new SqliteChallenges(database)));

certStoreConformance('memory', () => {
  const table = new LockTable();
  const store = new MemoryCertStore(table);
  const other = new MemoryCertStore(store);
  return { store, other, reopen: () => new MemoryCertStore(store), locks: new MemoryLocks(table) };
});
challengesConformance('memory', () => {
  const table = new LockTable();
  const store = new MemoryChallenges(table);
  const other = new MemoryChallenges(store);
  return { store, other, reopen: () => new MemoryChallenges(store), locks: new MemoryLocks(table) };
});
