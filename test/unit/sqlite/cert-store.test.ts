import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { SqliteCertStore } from '../../../src/sqlite/cert-store.ts';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { gatewayMigrations } from '../../../src/sqlite/migrations/gateway.ts';
import { certStoreConformance } from '../../conformance/cert-store.ts';

certStoreConformance('SQLite', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cert-store-'));
  const open = () => openDatabase(join(directory, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  const databases = [open()];
  onTestFinished(() => {
    for (const database of databases) database.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return {
    store: new SqliteCertStore(databases[0]!),
    reopen() {
      const database = open();
      databases.push(database);
      return new SqliteCertStore(database);
    },
  };
});
