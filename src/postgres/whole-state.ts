import type { Counter } from '../access/counters.ts';
import type { KeptUsers, StoredUser } from '../access/users.ts';
import type { StoredTable } from '../aliases/store.ts';
import type { RegistryEntry } from '../aliases/table.ts';
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
import { OperatorError } from '../kit/operator-error.ts';
import type { SecretKeys } from '../kit/sealed.ts';
import { iso } from '../kit/time.ts';
import type { CredentialId, NamedCredentials } from '../oci/credentials.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import type { WholeHistory } from '../policy/history-store.ts';
import { type RecordRow, toRecord } from './cert-store.ts';
import type { PostgresDatabase, Query } from './database.ts';
import { readHistory, writeHistory } from './history-store.ts';
import { SEALED_COLUMNS } from './sealed-columns.ts';
import { toUser, type UserRow } from './user-store.ts';
import { readWarm } from './warm-store.ts';

/** All state that must not be lost, secrets opened; what lives for minutes (challenges, locks, nodes) is left out. */
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

type Row = Record<string, unknown>;

/** Reads it, as it is at one moment. */
export function readWhole(database: PostgresDatabase, keys: SecretKeys): Promise<WholeState> {
  return database.read(async (query) => {
    const rows = async <T = Row>(sql: string): Promise<T[]> => (await query(sql)).rows as T[];
    const opened = async (table: string): Promise<Row[]> =>
      (await rows(`SELECT * FROM ${table}`)).map((row) => openRow(keys, table, row));
    const [fleet] = await rows<{ identity: string }>('SELECT identity FROM fleet');
    const [{ version } = { version: 0 }] = await rows<{ version: number }>('SELECT version FROM alias_table');
    const named = Map.groupBy(await opened('registry_credentials'), ({ registry }) => registry);
    const users = await rows<UserRow & { last_used_at: string | null }>('SELECT * FROM users');
    return {
      identity: fleet?.identity ?? '',
      table: {
        version,
        isNew: version === 0,
        registries: (await opened('registries')).map((row) => toRegistry(row, named.get(row.host) ?? [])),
        aliases: await rows('SELECT name, registry, certificate FROM aliases'),
      },
      users: { users: users.map(toUser), everAdded: (await rows('SELECT 1 FROM first_user')).length > 0 },
      lastUses: new Map(users.flatMap(({ name, last_used_at: at }) => (at === null ? [] : [[name, at] as const]))),
      counters: await rows('SELECT period, client, bytes FROM counters'),
      certificates: (await opened('certificates')).map(toCertificate),
      records: (
        await rows<RecordRow>(
          `SELECT host, failures, failing_since AS "failingSince", next_attempt AS "nextAttempt", last_error AS "lastError", holds,
             unchecked_at AS "uncheckedAt", challenge, renewal, refused FROM certificate_hosts`,
        )
      ).map(toRecord),
      events: await rows('SELECT host, at, event FROM certificate_events ORDER BY id'),
      accounts: (await opened('acme_accounts')).map(
        ({ directory, sealed_key: key, url }) => ({ directory, key, url }) as AccountRecord,
      ),
      orders: (await opened('acme_orders')).map(
        ({ host, directory, url, sealed_key: key, created_at: createdAt }) =>
          ({ host, directory, url, key, createdAt }) as OrderRecord,
      ),
      ledger: await rows('SELECT directory, at, kind, host FROM acme_ledger ORDER BY at'),
      objects: await rows(
        `SELECT digest, kind, size, floor(extract(epoch FROM last_use) * 1000)::bigint AS "lastUse",
           floor(extract(epoch FROM condemned_at) * 1000)::bigint AS "condemnedAt" FROM objects`,
      ),
      givers: await rows('SELECT digest, registry, repository, open, credential FROM object_givers'),
      history: await readHistory(query),
      warm: await readWarm(query),
    };
  });
}

/**
 * Puts all of it, in one transaction, into a database that nobody has used yet.
 * @param source the identity of the data directory that it comes from: what a run that was killed at its end has put is known by it
 * @throws {OperatorError} `MIGRATE_REFUSED` where the database has state of its own; nothing is written then
 */
export async function writeWhole(
  database: PostgresDatabase,
  keys: SecretKeys,
  state: WholeState,
): Promise<'written' | 'was there'> {
  const rows = rowsOf(state);
  return database.write<'written' | 'was there'>({ by: keys, topic: 'aliases' }, async (query) => {
    await query('LOCK TABLE fleet IN EXCLUSIVE MODE');
    const { rows: found } = await query<{ used: boolean; own: boolean }>(
      `SELECT (SELECT version > 0 FROM alias_table) OR EXISTS (SELECT FROM first_user) OR EXISTS (SELECT FROM certificates)
         OR EXISTS (SELECT FROM acme_accounts) AS used,
         EXISTS (SELECT FROM fleet WHERE identity = $1) AND NOT EXISTS (SELECT FROM nodes) AS own`,
      [state.identity],
    );
    if (found[0]?.own === true) return { result: 'was there', changed: false };
    if (found[0]?.used !== false) {
      throw new OperatorError('MIGRATE_REFUSED', `the database ${database.where} has state of its own`, {
        next: 'give a database that no gateway has used: CREATE DATABASE …',
      });
    }
    await query('UPDATE fleet SET identity = $1', [state.identity]);
    for (const [table, list] of rows)
      await insert(
        query,
        table,
        list.map((row) => sealRow(keys, table, row)),
      );
    await writeHistory(query, state.history);
    await query('UPDATE alias_table SET version = $1', [state.table.version]);
    if (state.users.everAdded) {
      await query('INSERT INTO first_user (created_at) VALUES ($1)', [new Date().toISOString()]);
    }
    return { result: 'written', changed: true };
  });
}

/** In an order in which each row finds those that it refers to. */
function rowsOf(state: WholeState): [table: string, rows: Row[]][] {
  const { table, users, lastUses } = state;
  return [
    ['registries', table.registries.map(fromRegistry)],
    ['registry_credentials', table.registries.flatMap(({ host, named }) => named.map((one) => fromNamed(host, one)))],
    ['aliases', [...table.aliases] as unknown as Row[]],
    ['users', users.users.map((user) => ({ ...fromUser(user), last_used_at: lastUses.get(user.name) ?? null }))],
    ['counters', [...state.counters] as unknown as Row[]],
    ['certificates', state.certificates.map(fromCertificate)],
    [
      'certificate_hosts',
      state.records.map((one) => ({
        ...{ host: one.host, failures: one.failures, failing_since: one.failingSince, next_attempt: one.nextAttempt },
        ...{ last_error: one.lastError, holds: one.holds, unchecked_at: one.uncheckedAt },
        ...{ challenge: one.challenge, renewal: one.renewal, refused: one.refused ?? null },
      })),
    ],
    ['certificate_events', [...state.events] as unknown as Row[]],
    ['acme_accounts', state.accounts.map(({ directory, key, url }) => ({ directory, sealed_key: key, url }))],
    [
      'acme_orders',
      state.orders.map(({ host, directory, url, key, createdAt }) => ({
        ...{ host, directory, url, sealed_key: key, created_at: createdAt },
      })),
    ],
    ['acme_ledger', [...state.ledger] as unknown as Row[]],
    [
      'objects',
      state.objects.map(({ digest, kind, size, lastUse, condemnedAt }) => ({
        ...{ digest, kind, size, last_use: iso(lastUse) },
        condemned_at: condemnedAt === null ? null : iso(condemnedAt),
      })),
    ],
    ['object_givers', [...state.givers] as unknown as Row[]],
    ['warm_images', state.warm.rows.map(({ createdAt, ...row }) => ({ ...row, created_at: createdAt }))],
    [
      'warm_runs',
      state.warm.runs.map(({ startedAt, endedAt, retryAt, succeededAt, ...run }) => ({
        ...run,
        ...{ started_at: startedAt, ended_at: endedAt, retry_at: retryAt, succeeded_at: succeededAt },
      })),
    ],
  ];
}

/** Rows that are put by one statement: some megabytes, whatever is in them. */
const BATCH = 1_000;

async function insert(query: Query, table: string, rows: readonly Row[]): Promise<void> {
  for (let at = 0; at < rows.length; at += BATCH) {
    const batch = rows.slice(at, at + BATCH);
    const columns = Object.keys(batch[0] ?? {}).join(', ');
    await query(
      `INSERT INTO ${table} (${columns}) SELECT ${columns} FROM jsonb_populate_recordset(NULL::${table}, $1)`,
      [JSON.stringify(batch)],
    );
  }
}

function openRow(keys: SecretKeys, table: string, row: Row): Row {
  return withSecrets(table, row, (text, context) => keys.open(text, context));
}

function sealRow(keys: SecretKeys, table: string, row: Row): Row {
  return withSecrets(table, row, (text, context) => keys.seal(text, context));
}

function withSecrets(table: string, row: Row, change: (text: string, context: string) => string): Row {
  const changed = { ...row };
  for (const sealed of SEALED_COLUMNS) {
    const text = sealed.table === table ? row[sealed.column] : null;
    if (typeof text !== 'string') continue;
    changed[sealed.column] = change(text, sealed.context(...sealed.key.map((name) => String(row[name]))));
  }
  return changed;
}

function toRegistry(
  { sealed_proxy: proxy, sealed_password: password, username, ...row }: Row,
  credentialsRows: readonly Row[],
): RegistryEntry {
  const credentials = username === null ? null : { username, password };
  const named = credentialsRows.map(({ name, id, repositories, username: user, sealed_password: secret }) => ({
    ...{ name, id, for: repositories, username: user, password: secret },
  }));
  return {
    ...row,
    proxy,
    credentials,
    named: named.sort((a, b) => (String(a.name) < String(b.name) ? -1 : 1)),
  } as unknown as RegistryEntry;
}

function fromRegistry({ host, endpoints, proxy, credentials, public: open, realms, ca }: RegistryEntry): Row {
  const [username, password] = [credentials?.username ?? null, credentials?.password ?? null];
  return { host, endpoints, sealed_proxy: proxy, username, sealed_password: password, public: open, realms, ca };
}

function fromNamed(registry: string, { name, id, for: patterns, username, password }: NamedCredentials): Row {
  return { registry, name, id, repositories: patterns, username, sealed_password: password };
}

function fromUser({ name, tokenHash, createdAt, issuedAt, expiresAt, previous }: StoredUser): Row {
  return {
    ...{ name, token_hash: hex(tokenHash), created_at: createdAt, issued_at: issuedAt, expires_at: expiresAt },
    previous_hash: previous === null ? null : hex(previous.tokenHash),
    previous_until: previous?.until ?? null,
  };
}

/** As PostgreSQL reads bytes from text. */
function hex(bytes: Uint8Array): string {
  return `\\x${Buffer.from(bytes).toString('hex')}`;
}

function toCertificate(row: Row): StoredCertificate {
  const { source, name, directory, names, serial, issuer, fingerprint, chain } = row;
  return {
    ...{ source, name, directory, names, serial, issuer, fingerprint, chain, key: row.sealed_key },
    ...{ obtainedAt: row.obtained_at, notBefore: row.not_before, notAfter: row.not_after },
    ...(row.released_at === null ? {} : { releasedAt: row.released_at }),
  } as StoredCertificate;
}

function fromCertificate(one: StoredCertificate): Row {
  const { source, name, directory, names, serial, issuer, fingerprint, chain } = one;
  return {
    ...{ source, name, directory, names, serial, issuer, fingerprint, chain, sealed_key: one.key },
    ...{ obtained_at: one.obtainedAt, not_before: one.notBefore, not_after: one.notAfter },
    released_at: one.releasedAt ?? null,
  };
}
