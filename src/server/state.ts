import { join } from 'node:path';
import { AliasTable } from '../aliases/alias-table.ts';
import { seedRows } from '../aliases/yaml.ts';
import { type Certificates, createCertificates } from '../certs/create.ts';
import type { CoveredHost } from '../certs/service.ts';
import type { Config } from '../config/config.ts';
import { Lifecycle } from '../kit/lifecycle.ts';
import { SqliteAliasStore } from '../sqlite/alias-store.ts';
import { SqliteCertStore } from '../sqlite/cert-store.ts';
import { SqliteChallenges } from '../sqlite/challenge-store.ts';
import { type Database, openDatabase } from '../sqlite/database.ts';
import { acquireInstanceLock } from '../sqlite/instance-lock.ts';
import { SqliteLocks } from '../sqlite/locks.ts';
import { gatewayMigrations } from '../sqlite/migrations/gateway.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** What a data directory holds and nothing may lose, opened by the one process that works on it. */
export interface State {
  readonly database: Database;
  readonly table: AliasTable;
  /** Null with `tls.mode: off`. */
  readonly certificates: Certificates | null;
  /** Every host that is to have a certificate, by the table as it is now. */
  coveredHosts(): CoveredHost[];
  close(): Promise<void>;
}

/**
 * Takes the data directory, opens its database, fills a new table, and lets certificates follow the table.
 * @throws {OperatorError} `DATA_DIR_IN_USE`, `DATABASE_NEWER` …
 */
export async function openState(options: {
  readonly config: Config;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** What the holder of the directory does, for whoever is refused meanwhile. */
  readonly activity: string;
}): Promise<State> {
  const { config, log, metrics, activity } = options;
  const opened = new Lifecycle();
  const close = () => opened.end((what, error) => log.error({ err: error }, `${what} did not close well`));
  try {
    const lock = acquireInstanceLock(config.dataDir, activity);
    opened.defer('the lock of the data directory', () => lock.release());
    const database = openDatabase(join(config.dataDir, 'gateway.db'), gatewayMigrations, { durability: 'full' });
    opened.defer('gateway.db', () => database.close());

    const table = await AliasTable.open({
      store: new SqliteAliasStore(database),
      domain: config.domain,
      seed: seedRows,
      log,
    });
    opened.defer('the alias table', () => table.close());
    const coveredHosts = (): CoveredHost[] => [
      { host: config.domain, order: true },
      ...[...table.snapshot().hosts.values()].map(({ host, certificate }) => ({ host, order: certificate })),
    ];
    const store = new SqliteCertStore(database);
    const challenges = new SqliteChallenges(database);
    const locks = new SqliteLocks(database);
    // The ACME library is a third of all code: a gateway that asks no CA never loads it.
    const issuers =
      config.tls.mode === 'acme' ? (await import('../acme/issuer.ts')).createIssuers(config.acme, store, locks) : [];
    const certificates = await createCertificates({ config, store, challenges, locks, log, metrics, issuers });
    if (certificates !== null) {
      opened.defer('the certificates', () => certificates.close());
      table.subscribe(() => certificates.cover(coveredHosts()));
    }
    return { database, table, certificates, coveredHosts, close };
  } catch (error) {
    await close();
    throw error;
  }
}
