import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { SqliteCertStore } from '../../src/sqlite/cert-store.ts';
import { openDatabase } from '../../src/sqlite/database.ts';
import { gatewayMigrations } from '../../src/sqlite/migrations/gateway.ts';

/** A store of the real kind, for one test. */
export function temporaryCertStore(): SqliteCertStore {
  const directory = mkdtempSync(join(tmpdir(), 'cert-store-'));
  const database = openDatabase(join(directory, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  onTestFinished(() => {
    database.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return new SqliteCertStore(database);
}
