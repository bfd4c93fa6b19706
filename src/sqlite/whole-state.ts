import type { Counter } from '../access/counters.ts';
import type { KeptUsers } from '../access/users.ts';
import type { StoredTable } from '../aliases/store.ts';
import type { StoredObject } from '../cache/object-index.ts';
import type {
  AccountRecord,
  CertificateEvent,
  HostRecord,
  LedgerEntry,
  OrderRecord,
  StoredCertificate,
} from '../certs/store.ts';
import type { KeptWarm } from '../images/warm-store.ts';
import type { CredentialId } from '../oci/credentials.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import type { WholeHistory } from '../policy/history-store.ts';
import { SqliteAliasStore } from './alias-store.ts';
import { SqliteCertStore } from './cert-store.ts';
import { SqliteCounterStore } from './counter-store.ts';
import { type Database, durable } from './database.ts';
import { fromBytes, toBytes } from './digest-bytes.ts';
import { readHistory, writeHistory } from './history-store.ts';
import { readIdentity } from './identity.ts';
import { SqliteUserStore } from './user-store.ts';
import { SqliteWarmStore } from './warm-store.ts';

/** All of a gateway's state that must not be lost, secrets opened; what lives for minutes (challenges, locks) is left out. */
export interface WholeState {
  /** 16 hex digits. */
  readonly identity: string;
  readonly table: StoredTable;
  readonly users: KeptUsers;
  /** ISO 8601 by name. */
  readonly lastUses: ReadonlyMap<string, string>;
  readonly counters: readonly Counter[];
  readonly certificates: readonly StoredCertificate[];
  readonly records: readonly HostRecord[];
  readonly events: readonly (CertificateEvent & { readonly host: string })[];
  readonly accounts: readonly AccountRecord[];
  readonly orders: readonly OrderRecord[];
  readonly ledger: readonly (LedgerEntry & { readonly directory: string })[];
  /** What lies in a shared store of content. Times in epoch milliseconds. */
  readonly objects: readonly StoredObject[];
  /** By whom each of them was given. */
  readonly givers: readonly GiverRow[];
  /** What was seen of images. */
  readonly history: WholeHistory;
  readonly warm: KeptWarm;
}

type GiverRow = RepositoryKey & {
  readonly digest: Digest;
  readonly open: boolean;
  readonly credential: CredentialId;
};

/** Reads it, as it is at one moment. */
export async function readWhole(database: Database): Promise<WholeState> {
  // One process holds the file and nothing else runs in it: what the stores read one after the other is of one moment.
  const certificates = new SqliteCertStore(database);
  const users = new SqliteUserStore(database);
  const rows = <T>(sql: string): T[] => database.prepare(sql).all() as T[];
  const periods = rows<{ period: string }>('SELECT DISTINCT period FROM counters').map(({ period }) => period);
  const accounts = rows<{ directory: string }>('SELECT directory FROM acme_accounts');
  return {
    identity: readIdentity(database),
    table: await new SqliteAliasStore(database).load(),
    users: await users.load(),
    lastUses: await users.lastUses(),
    counters: await new SqliteCounterStore(database).load(periods),
    certificates: await certificates.certificates(),
    records: await certificates.records(),
    events: rows('SELECT host, at, event FROM certificate_events ORDER BY id'),
    accounts: (await Promise.all(accounts.map(({ directory }) => certificates.account(directory)))).filter(
      (account) => account !== null,
    ),
    orders: rows('SELECT host, directory, url, private_key AS key, created_at AS createdAt FROM acme_orders'),
    ledger: rows('SELECT directory, at, kind, host FROM acme_ledger ORDER BY at'),
    objects: rows<Omit<StoredObject, 'digest'> & { digest: Buffer }>(
      'SELECT digest, kind, size, last_use AS lastUse, condemned_at AS condemnedAt FROM objects',
    ).map((row) => ({ ...row, digest: fromBytes(row.digest) })),
    givers: rows<Omit<GiverRow, 'digest' | 'open'> & { digest: Buffer; open: number }>(
      'SELECT digest, registry, repository, open, credential FROM object_givers',
    ).map((row) => ({ ...row, digest: fromBytes(row.digest), open: row.open === 1 })),
    history: readHistory(database),
    warm: await new SqliteWarmStore(database).load(),
  };
}

/** Whether nobody has ever used this database: it has no table yet, no user and no certificate. */
export function isUnused(database: Database): boolean {
  const count = (table: string) => database.prepare<[], number>(`SELECT count(*) FROM ${table}`).pluck().get() ?? 0;
  return ['table_state', 'users', 'first_user', 'certificates', 'acme_accounts'].every((table) => count(table) === 0);
}

/** Puts all of it into a database that is unused and not open anywhere else. */
export async function writeWhole(database: Database, state: WholeState): Promise<void> {
  if (!isUnused(database)) throw new Error('the database has state of its own');
  database.prepare('UPDATE identity SET id = ?').run(state.identity);
  const aliases = new SqliteAliasStore(database);
  const { version } = await aliases.load();
  if (!state.table.isNew)
    await aliases.apply({ putRegistries: state.table.registries, putAliases: state.table.aliases }, version);
  const users = new SqliteUserStore(database);
  for (const user of state.users.users) await users.add(user);
  if (state.users.everAdded && state.users.users.length === 0) {
    database.prepare('INSERT INTO first_user (created_at) VALUES (?)').run(new Date().toISOString());
  }
  await users.noteUses(state.lastUses);
  if (state.counters.length > 0) await new SqliteCounterStore(database).add(state.counters);
  const certificates = new SqliteCertStore(database);
  for (const certificate of state.certificates) await certificates.putCertificate(certificate);
  for (const record of state.records) await certificates.putRecord(record);
  for (const account of state.accounts) await certificates.putAccount(account);
  for (const order of state.orders) await certificates.putOrder(order);
  const warm = new SqliteWarmStore(database);
  for (const row of state.warm.rows) await warm.put(row);
  for (const run of state.warm.runs) await warm.noteRun(run);
  const event = database.prepare('INSERT INTO certificate_events (host, at, event) VALUES (:host, :at, :event)');
  const entry = database.prepare(
    'INSERT INTO acme_ledger (directory, at, kind, host) VALUES (:directory, :at, :kind, :host)',
  );
  const object = database.prepare(
    'INSERT INTO objects (digest, kind, size, last_use, condemned_at) VALUES (:digest, :kind, :size, :lastUse, :condemnedAt)',
  );
  const giver = database.prepare(
    `INSERT INTO object_givers (digest, registry, repository, open, credential)
     VALUES (:digest, :registry, :repository, :open, :credential)`,
  );
  database.transaction(() => {
    for (const row of state.events) event.run(row);
    for (const row of state.ledger) entry.run(row);
    for (const row of state.objects) object.run({ ...row, digest: toBytes(row.digest) });
    for (const row of state.givers) {
      giver.run({ ...row, digest: toBytes(row.digest), open: Number(row.open) });
    }
  })();
  writeHistory(database, state.history);
  await durable(database);
}
