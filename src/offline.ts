import path from 'node:path';
import type { OperationContext } from './admin/contract.ts';
import { createOperations } from './admin/operations/index.ts';
import { AliasTable } from './aliases/alias-table.ts';
import { seedRows } from './aliases/seed.ts';
import { createCertificates } from './certs/create.ts';
import type { Config } from './config/config.ts';
import { OperatorError } from './kit/operator-error.ts';
import { version } from './kit/version.ts';
import { SqliteAliasStore } from './sqlite/alias-store.ts';
import { SqliteCertStore } from './sqlite/cert-store.ts';
import { openDatabase } from './sqlite/database.ts';
import { acquireInstanceLock } from './sqlite/instance-lock.ts';
import { gatewayMigrations } from './sqlite/migrations/gateway.ts';
import { silentLog } from './telemetry/log.ts';
import { Metrics } from './telemetry/metrics.ts';

/**
 * Runs one operation on a data directory that no gateway works on: the same operations on the same stores, without listeners and
 * without orders. The directory is held meanwhile, so that no gateway starts on half a change.
 * @throws {OperatorError} `DATA_DIR_IN_USE` where a gateway or another command holds it
 */
export async function runOffline(
  config: Config,
  name: string,
  input: unknown,
  context: OperationContext,
): Promise<unknown> {
  const lock = acquireInstanceLock(config.dataDir, `gateway ${name.replace('.', ' ')}`);
  try {
    const database = openDatabase(path.join(config.dataDir, 'gateway.db'), gatewayMigrations, { durability: 'full' });
    try {
      const table = new AliasTable({
        store: new SqliteAliasStore(database),
        domain: config.domain,
        seed: seedRows,
      });
      const certificates = createCertificates({
        config,
        store: new SqliteCertStore(database),
        log: silentLog(),
        metrics: new Metrics(),
      });
      const cover = () =>
        certificates?.cover([
          { host: config.domain, order: true },
          ...[...table.snapshot().hosts.values()].map(({ host, certificate }) => ({ host, order: certificate })),
        ]);
      table.subscribe(cover);
      cover();
      try {
        const operation = createOperations({ config, version: version(), table, certificates, live: null }).get(name);
        if (operation === undefined) throw new OperatorError('OPERATION_UNKNOWN', `there is no operation ${name}`);
        return await operation(input, context);
      } finally {
        await certificates?.close();
      }
    } finally {
      database.close();
    }
  } finally {
    lock.release();
  }
}
