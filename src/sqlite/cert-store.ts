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
import { type ChangeFeed, changeFeed, type Database, durable } from './database.ts';
import { checkFence } from './locks.ts';

type Row = Record<string, unknown>;

const TOPIC = 'certificates';

/** Certificates, accounts and orders in `gateway.db`. */
export class SqliteCertStore implements CertStore {
  readonly #database: Database;
  readonly #feed: ChangeFeed;

  constructor(database: Database) {
    this.#database = database;
    this.#feed = changeFeed(database);
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }

  async certificates(): Promise<StoredCertificate[]> {
    return this.#all('SELECT * FROM certificates ORDER BY source, name').map(toCertificate);
  }

  async certificate(source: StoredCertificate['source'], name: string): Promise<StoredCertificate | null> {
    const row = this.#one('SELECT * FROM certificates WHERE source = @source AND name = @name', { source, name });
    return row === undefined ? null : toCertificate(row);
  }

  async putCertificate(certificate: StoredCertificate, under?: Fence): Promise<void> {
    this.#database.transaction(() => {
      checkFence(this.#database, under);
      this.#run(
        `INSERT OR REPLACE INTO certificates
         (source, name, directory, obtained_at, names, not_before, not_after, serial, issuer, fingerprint, chain, private_key, released_at)
         VALUES (@source, @name, @directory, @obtainedAt, @names, @notBefore, @notAfter, @serial, @issuer, @fingerprint, @chain, @key, @releasedAt)`,
        { releasedAt: null, ...certificate, names: JSON.stringify(certificate.names) },
      );
      if (certificate.source === 'acme') this.#run('DELETE FROM acme_orders WHERE host = @name', certificate);
    })();
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async removeCertificate(source: StoredCertificate['source'], name: string): Promise<void> {
    this.#run('DELETE FROM certificates WHERE source = @source AND name = @name', { source, name });
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async records(): Promise<HostRecord[]> {
    return this.#all('SELECT * FROM certificate_hosts').map(toRecord);
  }

  async record(host: string): Promise<HostRecord | null> {
    const row = this.#one('SELECT * FROM certificate_hosts WHERE host = @host', { host });
    return row === undefined ? null : toRecord(row);
  }

  async putRecord(record: HostRecord, under?: Fence): Promise<void> {
    checkFence(this.#database, under);
    this.#run(
      `INSERT OR REPLACE INTO certificate_hosts
       (host, failures, failing_since, next_attempt, last_error, holds, unchecked_at, challenge, renewal, refused)
       VALUES (@host, @failures, @failingSince, @nextAttempt, @lastError, @holds, @uncheckedAt, @challenge, @renewal, @refused)`,
      {
        ...record,
        lastError: print(record.lastError),
        holds: JSON.stringify(record.holds),
        renewal: print(record.renewal),
        refused: print(record.refused ?? null),
      },
    );
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async events(host: string): Promise<CertificateEvent[]> {
    return this.#all('SELECT at, event FROM certificate_events WHERE host = @host ORDER BY id', {
      host,
    }) as unknown as CertificateEvent[];
  }

  async addEvent(host: string, event: CertificateEvent): Promise<void> {
    this.#database.transaction(() => {
      this.#run('INSERT INTO certificate_events (host, at, event) VALUES (@host, @at, @event)', { host, ...event });
      this.#run(
        `DELETE FROM certificate_events WHERE host = @host AND id <=
         (SELECT id FROM certificate_events WHERE host = @host ORDER BY id DESC LIMIT 1 OFFSET ${EVENTS_KEPT})`,
        { host },
      );
    })();
    await durable(this.#database);
  }

  async account(directory: string): Promise<AccountRecord | null> {
    const row = this.#one('SELECT * FROM acme_accounts WHERE directory = @directory', { directory });
    return row === undefined ? null : ({ directory, key: row.private_key, url: row.url } as AccountRecord);
  }

  async putAccount(account: AccountRecord, under?: Fence): Promise<void> {
    checkFence(this.#database, under);
    this.#run(
      'INSERT OR REPLACE INTO acme_accounts (directory, private_key, url) VALUES (@directory, @key, @url)',
      account,
    );
    await durable(this.#database);
  }

  async order(host: string, directory: string): Promise<OrderRecord | null> {
    const row = this.#one('SELECT * FROM acme_orders WHERE host = @host AND directory = @directory', {
      host,
      directory,
    });
    if (row === undefined) return null;
    return { host, directory, url: row.url, key: row.private_key, createdAt: row.created_at } as OrderRecord;
  }

  async putOrder(order: OrderRecord, under?: Fence): Promise<void> {
    checkFence(this.#database, under);
    this.#run(
      `INSERT OR REPLACE INTO acme_orders (host, directory, url, private_key, created_at)
       VALUES (@host, @directory, @url, @key, @createdAt)`,
      order,
    );
    await durable(this.#database);
  }

  async removeOrder(host: string, directory: string, under?: Fence): Promise<void> {
    checkFence(this.#database, under);
    this.#run('DELETE FROM acme_orders WHERE host = @host AND directory = @directory', { host, directory });
    await durable(this.#database);
  }

  async ledger(directory: string, since: number): Promise<LedgerEntry[]> {
    return this.#all(
      'SELECT at, kind, host FROM acme_ledger WHERE directory = @directory AND at >= @since ORDER BY at',
      {
        directory,
        since,
      },
    ) as unknown as LedgerEntry[];
  }

  async addLedger(directory: string, entry: LedgerEntry, under?: Fence): Promise<void> {
    this.#database.transaction(() => {
      checkFence(this.#database, under);
      this.#run('INSERT INTO acme_ledger (directory, at, kind, host) VALUES (@directory, @at, @kind, @host)', {
        directory,
        ...entry,
      });
      this.#run('DELETE FROM acme_ledger WHERE directory = @directory AND at < @before', {
        directory,
        before: entry.at - LEDGER_KEPT,
      });
    })();
    await durable(this.#database);
  }

  #all(sql: string, values: object = {}): Row[] {
    return this.#database.prepare(sql).all(values) as Row[];
  }

  #one(sql: string, values: object): Row | undefined {
    return this.#database.prepare(sql).get(values) as Row | undefined;
  }

  #run(sql: string, values: object): void {
    this.#database.prepare(sql).run(values);
  }
}

function toCertificate(row: Row): StoredCertificate {
  return {
    source: row.source,
    name: row.name,
    directory: row.directory,
    obtainedAt: row.obtained_at,
    names: JSON.parse(row.names as string),
    notBefore: row.not_before,
    notAfter: row.not_after,
    serial: row.serial,
    issuer: row.issuer,
    fingerprint: row.fingerprint,
    chain: row.chain,
    key: row.private_key,
    ...(row.released_at === null ? {} : { releasedAt: row.released_at }),
  } as StoredCertificate;
}

function toRecord(row: Row): HostRecord {
  return {
    host: row.host,
    failures: row.failures,
    failingSince: row.failing_since,
    nextAttempt: row.next_attempt,
    lastError: parse(row.last_error),
    holds: parse(row.holds),
    uncheckedAt: row.unchecked_at,
    challenge: row.challenge,
    renewal: parse(row.renewal),
    ...(row.refused === null ? {} : { refused: parse(row.refused) }),
  } as HostRecord;
}

function parse(json: unknown): unknown {
  return typeof json === 'string' ? JSON.parse(json) : null;
}

function print(value: unknown): string | null {
  return value === null ? null : JSON.stringify(value);
}
