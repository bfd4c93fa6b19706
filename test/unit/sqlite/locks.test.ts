import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { SqliteLocks } from '../../../src/sqlite/locks.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { locksConformance } from '../../conformance/locks.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';

locksConformance('SQLite', false, () => {
  const directory = mkdtempSync(join(tmpdir(), 'locks-'));
  const openFile = () => openDatabase(join(directory, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  let database = openFile();
  onTestFinished(() => {
    database.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return {
    open: () => new SqliteLocks(database),
    restart() {
      database.close();
      database = openFile();
      return new SqliteLocks(database);
    },
  };
});

locksConformance('memory', true, () => {
  const table = new LockTable();
  return {
    open: () => new MemoryLocks(table),
    restart: () => new MemoryLocks(table),
    cutOff: (locks) => (locks as MemoryLocks).cutOff(),
  };
});
