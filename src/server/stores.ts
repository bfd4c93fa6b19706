import type { CounterStore } from '../access/counters.ts';
import type { UserStore } from '../access/users.ts';
import { completeRestore } from '../admin/backup/put-in-place.ts';
import type { AliasStore } from '../aliases/store.ts';
import type { CacheIndex } from '../cache/index-port.ts';
import type { Challenges } from '../certs/challenges.ts';
import type { CertStore } from '../certs/store.ts';
import type { Config } from '../config/config.ts';
import type { Locks } from '../kit/locks.ts';
import type { Lifecycle } from '../kit/process.ts';
import { SqliteAliasStore } from '../sqlite/alias-store.ts';
import { openCacheIndex } from '../sqlite/cache-index.ts';
import { SqliteCertStore } from '../sqlite/cert-store.ts';
import { SqliteChallenges } from '../sqlite/challenge-store.ts';
import { SqliteCounterStore } from '../sqlite/counter-store.ts';
import { closeDatabase, openDatabase } from '../sqlite/database.ts';
import { readIdentity } from '../sqlite/identity.ts';
import {
  acquireInstanceLock,
  type InstanceHolder,
  type InstanceLock,
  instanceHolder,
} from '../sqlite/instance-lock.ts';
import { SqliteLocks } from '../sqlite/locks.ts';
import { gatewayMigrations } from '../sqlite/migrations/gateway.ts';
import { inspectDatabase, snapshotDatabase } from '../sqlite/snapshot.ts';
import { SqliteUserStore } from '../sqlite/user-store.ts';
import type { Logger } from '../telemetry/log.ts';
import { databaseFile } from './data-directory.ts';

/** The stores of the gateway's state, each behind its port: this file alone says which implementation that is. */
export interface Stores {
  readonly aliases: AliasStore;
  readonly certificates: CertStore;
  readonly challenges: Challenges;
  readonly locks: Locks;
  readonly users: UserStore;
  readonly counters: CounterStore;
  /** What the gateway calls itself to others: 16 random hex digits, made with the database. */
  readonly identity: string;
  /** Copies what must not be lost into a new file, consistent, while it is used; resolves to the number of its schema. */
  readonly snapshot: (path: string) => Promise<number>;
}

/**
 * Takes the data directory for this process and opens the database in it.
 * @param activity what this process does with the directory, for the message to another one that is refused it meanwhile
 * @throws {OperatorError} `DATA_DIR_IN_USE`, `DATABASE_NEWER` …
 */
export async function openStores(
  { dataDir }: Pick<Config, 'dataDir'>,
  activity: string,
  lifecycle: Lifecycle,
  log: Pick<Logger, 'warn'>,
): Promise<Stores> {
  const lock = acquireInstanceLock(dataDir, activity);
  for (const warning of lock.warnings) log.warn(warning);
  lifecycle.defer('the lock of the data directory', () => lock.release());
  await completeRestore(dataDir);
  const database = openDatabase(databaseFile(dataDir), gatewayMigrations, {
    durability: 'full',
    exclusive: true,
    irreplaceable: true,
  });
  lifecycle.defer('gateway.db', () => closeDatabase(database));
  return {
    aliases: new SqliteAliasStore(database),
    certificates: new SqliteCertStore(database),
    challenges: new SqliteChallenges(database),
    locks: new SqliteLocks(database),
    users: new SqliteUserStore(database),
    counters: new SqliteCounterStore(database),
    identity: readIdentity(database),
    snapshot: (path) => snapshotDatabase(database, path),
  };
}

/** Takes a data directory, made where there is none, for a restore. @throws {OperatorError} `DATA_DIR_IN_USE` … */
export function holdDataDirectory(dataDir: string): InstanceLock {
  return acquireInstanceLock(dataDir, 'restore');
}

/** See `inspectDatabase`. */
export function inspectState(path: string): number {
  return inspectDatabase(path, gatewayMigrations);
}

/** The process that works on a data directory; null where none does. */
export function holderOf(dataDir: string): InstanceHolder | null {
  return instanceHolder(dataDir);
}

/** The cache's index, which is always local. The cache closes it. */
export function openIndex(dataDir: string, log: Logger): CacheIndex {
  return openCacheIndex(dataDir, log);
}
