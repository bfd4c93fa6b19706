import {
  type AccountRecord,
  type CertificateEvent,
  type CertStore,
  EVENTS_KEPT,
  type HostRecord,
  LEDGER_KEPT,
  type LedgerEntry,
  type OrderRecord,
  type StoredCertificate,
} from '../certs/store.ts';
import type { Fence } from '../kit/locks.ts';
import type { Sealer } from '../kit/sealed.ts';
import type { PostgresDatabase, Query } from './database.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'certificates';

const CERTIFICATE = `source, name, directory, obtained_at AS "obtainedAt", names, not_before AS "notBefore", not_after AS "notAfter", serial, issuer,
  fingerprint, chain, sealed_key AS key, released_at AS "releasedAt"`;
const RECORD = `host, failures, failing_since AS "failingSince", next_attempt AS "nextAttempt", last_error AS "lastError", holds,
  unchecked_at AS "uncheckedAt", challenge, renewal, refused`;

/** Certificates, accounts and orders in PostgreSQL; their private keys are sealed. */
export class PostgresCertStore implements CertStore {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;
  readonly #sealer: Sealer;

  constructor(database: PostgresDatabase, feed: PostgresFeed, sealer: Sealer) {
    this.#database = database;
    this.#feed = feed;
    this.#sealer = sealer;
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }

  async certificates(): Promise<StoredCertificate[]> {
    const { rows } = await this.#database.query<CertificateRow>(
      `SELECT ${CERTIFICATE} FROM certificates ORDER BY source, name`,
    );
    return rows.map((row) => this.#opened(row));
  }

  async certificate(source: StoredCertificate['source'], name: string): Promise<StoredCertificate | null> {
    const { rows } = await this.#database.query<CertificateRow>(
      `SELECT ${CERTIFICATE} FROM certificates WHERE source = $1 AND name = $2`,
      [source, name],
    );
    return rows[0] === undefined ? null : this.#opened(rows[0]);
  }

  putCertificate(certificate: StoredCertificate, under?: Fence): Promise<void> {
    const { source, name, directory, obtainedAt, names, notBefore, notAfter, serial, issuer, fingerprint, chain, key } =
      certificate;
    const sealed = this.#sealer.seal(key, keyOf('certificates', source, name));
    const times = [obtainedAt, notBefore, notAfter];
    const releasedAt = certificate.releasedAt ?? null;
    return this.#change(under, async (query) => {
      await query(
        `INSERT INTO certificates (source, name, directory, obtained_at, not_before, not_after, names, serial, issuer, fingerprint, chain, sealed_key, released_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (source, name) DO UPDATE SET directory = excluded.directory, obtained_at = excluded.obtained_at,
           not_before = excluded.not_before, not_after = excluded.not_after, names = excluded.names, serial = excluded.serial,
           issuer = excluded.issuer, fingerprint = excluded.fingerprint, chain = excluded.chain, sealed_key = excluded.sealed_key,
           released_at = excluded.released_at`,
        [
          source,
          name,
          directory,
          ...times,
          JSON.stringify(names),
          serial,
          issuer,
          fingerprint,
          chain,
          sealed,
          releasedAt,
        ],
      );
      if (source === 'acme') await query('DELETE FROM acme_orders WHERE host = $1', [name]);
    });
  }

  removeCertificate(source: StoredCertificate['source'], name: string): Promise<void> {
    return this.#change(undefined, (query) =>
      query('DELETE FROM certificates WHERE source = $1 AND name = $2', [source, name]),
    );
  }

  async records(): Promise<HostRecord[]> {
    return (await this.#database.query<RecordRow>(`SELECT ${RECORD} FROM certificate_hosts`)).rows.map(toRecord);
  }

  async record(host: string): Promise<HostRecord | null> {
    const found = await this.#database.query<RecordRow>(`SELECT ${RECORD} FROM certificate_hosts WHERE host = $1`, [
      host,
    ]);
    return found.rows[0] === undefined ? null : toRecord(found.rows[0]);
  }

  putRecord(record: HostRecord, under?: Fence): Promise<void> {
    const { host, failures, failingSince, nextAttempt, lastError, holds, uncheckedAt, challenge, renewal } = record;
    return this.#change(under, (query) =>
      query(
        `INSERT INTO certificate_hosts (host, failures, failing_since, next_attempt, last_error, holds, unchecked_at, challenge, renewal, refused)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (host) DO UPDATE SET failures = excluded.failures, failing_since = excluded.failing_since,
           next_attempt = excluded.next_attempt, last_error = excluded.last_error, holds = excluded.holds,
           unchecked_at = excluded.unchecked_at, challenge = excluded.challenge, renewal = excluded.renewal,
           refused = excluded.refused`,
        [
          ...[host, failures, failingSince, nextAttempt, print(lastError)],
          ...[JSON.stringify(holds), uncheckedAt, challenge, print(renewal), print(record.refused ?? null)],
        ],
      ),
    );
  }

  async events(host: string): Promise<CertificateEvent[]> {
    const { rows } = await this.#database.query<CertificateEvent>(
      'SELECT at, event FROM certificate_events WHERE host = $1 ORDER BY id',
      [host],
    );
    return rows;
  }

  addEvent(host: string, { at, event }: CertificateEvent): Promise<void> {
    return this.#keep(undefined, async (query) => {
      await query('INSERT INTO certificate_events (host, at, event) VALUES ($1, $2, $3)', [host, at, event]);
      await query(
        `DELETE FROM certificate_events WHERE host = $1 AND id <=
         (SELECT id FROM certificate_events WHERE host = $1 ORDER BY id DESC LIMIT 1 OFFSET ${EVENTS_KEPT})`,
        [host],
      );
    });
  }

  async account(directory: string): Promise<AccountRecord | null> {
    const { rows } = await this.#database.query<AccountRecord>(
      'SELECT directory, sealed_key AS key, url FROM acme_accounts WHERE directory = $1',
      [directory],
    );
    const [row] = rows;
    if (row === undefined) return null;
    return { ...row, key: this.#sealer.open(row.key, keyOf('acme_accounts', directory)) };
  }

  putAccount({ directory, key, url }: AccountRecord, under?: Fence): Promise<void> {
    const sealed = this.#sealer.seal(key, keyOf('acme_accounts', directory));
    return this.#keep(under, (query) =>
      query(
        `INSERT INTO acme_accounts (directory, sealed_key, url) VALUES ($1, $2, $3)
         ON CONFLICT (directory) DO UPDATE SET sealed_key = excluded.sealed_key, url = excluded.url`,
        [directory, sealed, url],
      ),
    );
  }

  async order(host: string, directory: string): Promise<OrderRecord | null> {
    const { rows } = await this.#database.query<OrderRecord>(
      `SELECT host, directory, url, sealed_key AS key, created_at AS "createdAt" FROM acme_orders
       WHERE host = $1 AND directory = $2`,
      [host, directory],
    );
    const [row] = rows;
    if (row === undefined) return null;
    return { ...row, key: this.#sealer.open(row.key, keyOf('acme_orders', host, directory)) };
  }

  putOrder({ host, directory, url, key, createdAt }: OrderRecord, under?: Fence): Promise<void> {
    const sealed = this.#sealer.seal(key, keyOf('acme_orders', host, directory));
    return this.#keep(under, (query) =>
      query(
        `INSERT INTO acme_orders (host, directory, url, sealed_key, created_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (host, directory) DO UPDATE SET url = excluded.url, sealed_key = excluded.sealed_key,
           created_at = excluded.created_at`,
        [host, directory, url, sealed, createdAt],
      ),
    );
  }

  removeOrder(host: string, directory: string, under?: Fence): Promise<void> {
    return this.#keep(under, (query) =>
      query('DELETE FROM acme_orders WHERE host = $1 AND directory = $2', [host, directory]),
    );
  }

  async ledger(directory: string, since: number): Promise<LedgerEntry[]> {
    const { rows } = await this.#database.query<LedgerEntry>(
      'SELECT at, kind, host FROM acme_ledger WHERE directory = $1 AND at >= $2 ORDER BY at',
      [directory, since],
    );
    return rows;
  }

  addLedger(directory: string, { at, kind, host }: LedgerEntry, under?: Fence): Promise<void> {
    return this.#keep(under, async (query) => {
      await query('INSERT INTO acme_ledger (directory, at, kind, host) VALUES ($1, $2, $3, $4)', [
        directory,
        at,
        kind,
        host,
      ]);
      await query('DELETE FROM acme_ledger WHERE directory = $1 AND at < $2', [directory, at - LEDGER_KEPT]);
    });
  }

  /** Writes what holders keep in memory. */
  #change(under: Fence | undefined, work: (query: Query) => Promise<unknown>): Promise<void> {
    return this.#database.write({ by: this, topic: TOPIC, under }, async (query) => {
      await work(query);
      return { result: undefined, changed: true };
    });
  }

  /** Writes what is read when it is needed. */
  #keep(under: Fence | undefined, work: (query: Query) => Promise<unknown>): Promise<void> {
    return this.#database.write({ by: this, topic: null, under }, async (query) => {
      await work(query);
      return { result: undefined, changed: true };
    });
  }

  #opened({ releasedAt, ...row }: CertificateRow): StoredCertificate {
    return {
      ...row,
      ...(releasedAt === null ? {} : { releasedAt }),
      key: this.#sealer.open(row.key, keyOf('certificates', row.source, row.name)),
    };
  }
}

type CertificateRow = Omit<StoredCertificate, 'releasedAt'> & { readonly releasedAt: number | null };
/** As SELECT gives it. */
export type RecordRow = Omit<HostRecord, 'refused'> & { readonly refused: HostRecord['refused'] | null };

export function toRecord({ refused, ...row }: RecordRow): HostRecord {
  return { ...row, ...(refused == null ? {} : { refused }) };
}

/** Where a private key is sealed for: see `Sealer`. */
function keyOf(table: string, ...row: string[]): string {
  return `${table}.sealed_key ${row.join(' ')}`;
}

/** A JSON `null` is not an SQL one. */
function print(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value);
}
