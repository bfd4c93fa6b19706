import { existsSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { CounterStore } from '../access/counters.ts';
import type { UserStore } from '../access/users.ts';
import { completeRestore } from '../admin/backup/put-in-place.ts';
import type { AliasStore } from '../aliases/store.ts';
import type { SharedDenials } from '../cache/facts.ts';
import type { CacheIndex } from '../cache/index-port.ts';
import type { ObjectIndex } from '../cache/object-index.ts';
import type { SharedStoreParts } from '../cache/shared-store.ts';
import type { Challenges } from '../certs/challenges.ts';
import { giveInternalRoot, shareInternalRoot } from '../certs/internal-ca.ts';
import type { CertStore } from '../certs/store.ts';
import { type Nodes, SingleNode } from '../cluster/nodes.ts';
import type { Config } from '../config/config.ts';
import type { WarmStore } from '../images/warm-store.ts';
import type { Freshness } from '../kit/freshness.ts';
import type { Locks } from '../kit/locks.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { Lifecycle, version } from '../kit/process.ts';
import { SecretKeys } from '../kit/sealed.ts';
import type { HistoryStore } from '../policy/history-store.ts';
import type { Fleet, ServingFleet, ServingOptions } from '../postgres/fleet.ts';
import { SqliteAliasStore } from '../sqlite/alias-store.ts';
import { SqliteCertStore } from '../sqlite/cert-store.ts';
import { SqliteChallenges } from '../sqlite/challenge-store.ts';
import { SqliteCounterStore } from '../sqlite/counter-store.ts';
import { closeDatabase, openDatabase } from '../sqlite/database.ts';
import { SqliteHistoryStore } from '../sqlite/history-store.ts';
import { readIdentity } from '../sqlite/identity.ts';
import {
  acquireInstanceLock,
  type InstanceHolder,
  type InstanceLock,
  instanceHolder,
} from '../sqlite/instance-lock.ts';
import { SqliteLocks } from '../sqlite/locks.ts';
import { gatewayMigrations } from '../sqlite/migrations/gateway.ts';
import { SqliteObjectIndex } from '../sqlite/object-index.ts';
import { openCacheIndex } from '../sqlite/open-cache-index.ts';
import { inspectDatabase, snapshotDatabase } from '../sqlite/snapshot.ts';
import { SqliteUserStore } from '../sqlite/user-store.ts';
import { SqliteWarmStore } from '../sqlite/warm-store.ts';
import { isUnused, readWhole, type WholeState, writeWhole } from '../sqlite/whole-state.ts';
import type { Logger } from '../telemetry/log.ts';
import { databaseFile, keptStateFile, refuseMoved } from './data-directory.ts';

/** The stores of the gateway's state, each behind its port: this file alone says which implementation that is. */
export interface Stores {
  readonly aliases: AliasStore;
  readonly certificates: CertStore;
  readonly challenges: Challenges;
  readonly locks: Locks;
  readonly users: UserStore;
  readonly counters: CounterStore;
  /** What lies in a shared store of content, where there is one. */
  readonly objects: ObjectIndex;
  /** What was seen of images. */
  readonly history: HistoryStore;
  /** What is kept at hand, and how that goes. */
  readonly warm: WarmStore;
  /** What the gateway, or its whole fleet, calls itself to others: 16 random hex digits, made with the database. */
  readonly identity: string;
  /** The gateways that share these stores. */
  readonly nodes: Nodes;
  /** What they share besides; null for the only one of its database. */
  readonly fleet: Fleet | null;
  /** Of the fleet, while it serves; null where the gateway has its own. */
  readonly ticketKeys: (() => Buffer) | null;
  /** What registries deny to one of the fleet, while it serves; null where the gateway is the only one. */
  readonly denials: SharedDenials | null;
  /** Until when one of the fleet may serve by what it knows; null where the gateway is the only one. */
  readonly freshness: Freshness | null;
  /** Copies what must not be lost into a new file, consistent, while it is used; resolves to the number of its schema. */
  readonly snapshot: (path: string) => Promise<number>;
}

type StoresConfig = Pick<Config, 'dataDir' | 'database' | 'databasePasswordFile' | 'secretFile' | 'cluster'>;

export interface StoresOptions {
  /** What this process does with the data directory, for the message to another one that is refused it meanwhile. */
  readonly activity: string;
  /** Of one that serves, and so goes on while a shared database is away; null for a command. */
  readonly serving: Pick<ServingOptions, 'ticketKeysMs' | 'published'> | null;
  readonly lifecycle: Lifecycle;
  readonly log: Logger;
}

/**
 * Takes the data directory for this process, and opens the state: in that directory, or in the database that several gateways share.
 * @throws {OperatorError} `DATA_DIR_IN_USE`, `DATABASE_NEWER`, `DATABASE_UNREACHABLE` …
 */
export async function openStores(config: StoresConfig, options: StoresOptions): Promise<Stores> {
  const { dataDir, database: url } = config;
  const { activity, lifecycle, log } = options;
  const lock = acquireInstanceLock(dataDir, activity);
  for (const warning of lock.warnings) log.warn(warning);
  lifecycle.defer('the lock of the data directory', () => lock.release());
  await completeRestore(dataDir);
  if (url === null) refuseMoved(dataDir);
  const database = openLocal(dataDir);
  const identity = readIdentity(database);
  if (url !== null) {
    closeDatabase(database);
    return openSharedStores({ ...config, database: url }, identity, options);
  }
  lifecycle.defer('gateway.db', () => closeDatabase(database));
  return {
    aliases: new SqliteAliasStore(database),
    certificates: new SqliteCertStore(database),
    challenges: new SqliteChallenges(database),
    locks: new SqliteLocks(database),
    users: new SqliteUserStore(database),
    counters: new SqliteCounterStore(database),
    objects: new SqliteObjectIndex(database),
    history: new SqliteHistoryStore(database),
    warm: new SqliteWarmStore(database),
    identity,
    nodes: new SingleNode({ id: identity, address: null, version: version(), draining: false }),
    fleet: null,
    ticketKeys: null,
    denials: null,
    freshness: null,
    snapshot: (path) => snapshotDatabase(database, path),
  };
}

/** @param nodeId the identity of the data directory */
async function openSharedStores(
  {
    dataDir,
    database: url,
    databasePasswordFile: passwordFile,
    secretFile,
    cluster,
  }: StoresConfig & { database: string },
  nodeId: string,
  { serving, lifecycle, log }: StoresOptions,
): Promise<Stores> {
  if (secretFile === null) throw new Error('a shared database without keys is no valid configuration');
  const keys = SecretKeys.read(secretFile);
  // Loaded only where it is configured.
  const { openFleet, openServingFleet } = await import('../postgres/fleet.ts');
  const options = { url, passwordFile, keys, log, nodeId, address: cluster.address, version: version() };
  let fleet: Fleet;
  let ticketKeys: ServingFleet['ticketKeys'] | null = null;
  let denials: SharedDenials | null = null;
  let freshness: Freshness | null = null;
  if (serving === null) fleet = await openFleet(options, lifecycle);
  else {
    const opened = await openServingFleet({ ...options, ...serving, keptFile: keptStateFile(dataDir) }, lifecycle);
    fleet = opened;
    ticketKeys = opened.ticketKeys;
    denials = opened.denials;
    freshness = opened.freshness;
  }
  const { stores, identity, nodes } = fleet;
  const { PostgresHistoryStore } = await import('../postgres/history-store.ts');
  const { PostgresObjectIndex } = await import('../postgres/object-index.ts');
  const { PostgresWarmStore } = await import('../postgres/warm-store.ts');
  return {
    ...stores,
    objects: new PostgresObjectIndex(fleet.database),
    history: new PostgresHistoryStore(fleet.database),
    warm: new PostgresWarmStore(fleet.database, fleet.feed),
    identity,
    nodes,
    fleet,
    ticketKeys,
    denials,
    freshness,
    snapshot: async (path) => writeSqlite(await fleet.whole(), path),
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

/** What `migrate` works with: the data directory, which is held until `close`, and a shared database in which no gateway lives. */
export interface MigrationPlaces {
  /** The shared database in words. */
  readonly where: string;
  /** Null where the data directory has no state of its own. */
  readSqlite(): Promise<WholeState | null>;
  readShared(): Promise<WholeState>;
  /** Makes the files of the data directory whole and lets go of them, so that they can be copied and replaced; it stays held. */
  closeSqlite(): void;
  /** Brings the local CA of the gateways into the data directory, where they have one. */
  takeInternalRoot(): Promise<void>;
  /** All or nothing; the local CA goes with it. @throws {OperatorError} `MIGRATE_REFUSED` */
  writeShared(state: WholeState): Promise<void>;
  close(): Promise<void>;
}

/** @throws {OperatorError} `DATA_DIR_IN_USE`, `MIGRATE_REFUSED` where gateways live in the shared database, `DATABASE_UNREACHABLE` … */
export async function openForMigration(config: StoresConfig, log: Logger): Promise<MigrationPlaces> {
  const { dataDir, database: url, databasePasswordFile: passwordFile, secretFile } = config;
  if (url === null || secretFile === null) throw new Error('a migration needs a shared database and its keys');
  const lifecycle = new Lifecycle();
  const close = () => lifecycle.end((what, error) => log.error({ err: error }, `${what} did not close well`));
  try {
    const keys = SecretKeys.read(secretFile);
    const lock = acquireInstanceLock(dataDir, 'migrate');
    lifecycle.defer('the lock of the data directory', () => lock.release());
    await completeRestore(dataDir);
    const isNew = !existsSync(databaseFile(dataDir));
    const local = openLocal(dataDir);
    let isOpen = true;
    const closeSqlite = () => {
      if (!isOpen) return;
      isOpen = false;
      closeDatabase(local);
      // Where nothing was, nothing is left of a migration that does not come to its end: no command takes it for a gateway's.
      if (isNew) rmSync(databaseFile(dataDir), { force: true });
    };
    lifecycle.defer('gateway.db', closeSqlite);
    const { openFleet, readWhole: readShared, writeWhole: writeShared } = await import('../postgres/fleet.ts');
    const nodeId = readIdentity(local);
    const fleet = await openFleet(
      { url, passwordFile, keys, log, nodeId, address: null, version: version() },
      lifecycle,
    );
    const { database, nodes } = fleet;
    const living = nodes.live().filter(({ id }) => id !== nodeId);
    if (living.length > 0) {
      throw new OperatorError(
        'MIGRATE_REFUSED',
        `gateways run on the database ${database.where}: ${living.map(({ id }) => id).join(', ')}`,
        {
          next: 'stop all of them first, so that what is moved does not change any more',
        },
      );
    }
    return {
      where: database.where,
      readSqlite: async () => (isUnused(local) ? null : readWhole(local)),
      readShared: () => readShared(database, keys),
      closeSqlite,
      async takeInternalRoot() {
        const root = await fleet.find(INTERNAL_CA);
        await shareInternalRoot(dataDir, async () => root);
      },
      async writeShared(state) {
        await writeShared(database, keys, state);
        await giveInternalRoot(dataDir, (own) => fleet.shared(INTERNAL_CA, () => own));
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The name of the local CA among the secrets that gateways share. */
export const INTERNAL_CA = 'internal-ca';

/** Makes a database of one machine at this path, with all of a state; its secrets are readable in it. @returns the number of its schema */
export async function writeSqlite(state: WholeState, path: string): Promise<number> {
  const database = openLocal(dirname(path), path);
  try {
    await writeWhole(database, state);
    return gatewayMigrations.length;
  } finally {
    closeDatabase(database);
  }
}

function openLocal(dataDir: string, path = databaseFile(dataDir)) {
  return openDatabase(path, gatewayMigrations, { durability: 'full', exclusive: true, irreplaceable: true });
}

/** The store that several gateways share; null where none is configured, and then nothing of it is loaded. */
export async function openSharedStore({ s3 }: Config['cache'], objects: ObjectIndex): Promise<SharedStoreParts | null> {
  const { bucket } = s3;
  if (bucket === null) return null;
  const { S3Tier } = await import('../s3/tier.ts');
  return { tier: new S3Tier({ ...s3, bucket }), objects };
}
