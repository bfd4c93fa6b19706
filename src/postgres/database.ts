import { Client, type ClientConfig, Pool, type PoolClient, type QueryResult, type QueryResultRow, types } from 'pg';
import { type Fence, FencedError } from '../kit/locks.ts';
import type { Logger } from '../telemetry/log.ts';
import { explainFailure, isAnswer, mayRetry, NO_TLS } from './failures.ts';
import { gatewayMigrations } from './migrations/gateway.ts';
import { passwordFor } from './password.ts';
import { MIGRATION_TIMEOUT, migrate } from './schema.ts';
import { mayBePlain, parseTarget, type Target, targetInWords, tlsOf } from './url.ts';

export interface DatabaseOptions {
  /** `postgres://user@host:port/database?sslmode=…`, see `parseTarget`. */
  readonly url: string;
  /** `GATEWAY_DATABASE_PASSWORD_FILE`. */
  readonly passwordFile: string | null;
  readonly log: Pick<Logger, 'info' | 'warn'>;
}

/**
 * Connections of one node beside the one that listens. A node writes little, and its pulls read snapshots in memory; a hundred nodes stay within what
 * one PostgreSQL takes with some memory set aside for it.
 */
const CONNECTIONS = 4;
/** A connection, its TLS and login included, or the wait for a free one, ms: three lost packets are waited for. */
const CONNECT_TIMEOUT = 10_000;
/** One statement, ms: the longest here reads a table of tens of thousands of rows. After it the connection is taken for dead. */
const STATEMENT_TIMEOUT = 15_000;
/** The server gives up before we do, ms, so that what we take for failed was rolled back. */
const SERVER_TIMEOUT = 12_000;
/** An unused connection is given back, ms. */
const IDLE_TIMEOUT = 30_000;
/** A connection is closed after this, s, so that a server that moved to another address is found there. */
const LIFETIME = 900;
/** How often a transaction that was rolled back for another's sake is tried. */
const ATTEMPTS = 5;

/** Runs one statement. Never a prepared one: behind PgBouncer the next statement may meet another connection. */
export type Query = <R extends QueryResultRow = QueryResultRow>(
  sql: string,
  values?: readonly unknown[],
) => Promise<QueryResult<R>>;

/** What a transaction that changes a topic has done. */
export interface Write<T> {
  readonly result: T;
  /** Whether anything is different now: whoever watches is told. */
  readonly changed: boolean;
}

export interface WriteOptions {
  /** The store that writes: what it changes itself it is not told of. */
  readonly by: object;
  /** What is changed, by the name that it is watched under; null for what nobody keeps in memory. */
  readonly topic: string | null;
  /** Which lock this is done under: where that is another's by now nothing is written. */
  readonly under?: Fence | undefined;
  /** False: others find it when they look, without being told at once. */
  readonly tell?: boolean;
}

/** Hears of the changes that are made here, once they are durable. `by`: the store that made them. */
export type OwnChange = (topic: string, revision: number, by: object) => void;

/** The channel of NOTIFY. Its messages: `change TOPIC REVISION ORIGIN` and `free LOCK`. */
export const CHANNEL = 'registry_gateway';

/** The clock of the database is read as numbers: ms since 1970 and counts are far below what a double holds exactly. */
const TYPES = {
  getTypeParser: ((oid: number, format?: 'text') =>
    oid === types.builtins.INT8 ? Number : types.getTypeParser(oid, format)) as typeof types.getTypeParser,
};

/**
 * One PostgreSQL database: statements and transactions over a small pool, the schema brought up to date before the first of them. It holds nothing
 * of a session (no prepared statements, no settings, no advisory locks outside a transaction), so it may stand behind PgBouncer in transaction mode.
 * Every method rejects with an `OperatorError`, `DATABASE_UNREACHABLE` where it is worth trying again and `DATABASE_REFUSED` where it is not.
 */
export class PostgresDatabase {
  /** The database for a person: without user and password. */
  readonly where: string;
  /** Names this process among those that change the same database. */
  readonly origin: string;
  readonly #target: Target;
  readonly #passwordFile: string | null;
  readonly #log: DatabaseOptions['log'];
  #pool: Pool | null = null;
  #opening: Promise<Pool> | null = null;
  #ownChange: OwnChange = () => {};
  #closed = false;

  /** Contacts nothing yet. @throws {OperatorError} `CONFIG_INVALID` for the URL and the files that it names */
  constructor({ url, passwordFile, log }: DatabaseOptions) {
    this.#target = parseTarget(url);
    this.where = targetInWords(this.#target);
    this.origin = crypto.randomUUID();
    this.#passwordFile = passwordFile;
    this.#log = log;
    tlsOf(this.#target);
  }

  /** Makes the first contact, and the schema. Everything else does so too: this is for whoever wants to know. */
  async open(): Promise<void> {
    await this.#ready();
  }

  /** Who is told of this process's own changes. */
  onOwnChange(listener: OwnChange): void {
    this.#ownChange = listener;
  }

  /** One statement, a transaction of its own. */
  readonly query: Query = async (sql, values = []) => {
    const pool = await this.#ready();
    return this.#explained(() => pool.query(sql, [...values]));
  };

  /** Several reads that see one state. */
  read<T>(work: (query: Query) => Promise<T>): Promise<T> {
    return this.#transaction('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY', work);
  }

  /**
   * Changes something, all of it or nothing, and tells the other nodes. The work may be done anew where another transaction was in its way.
   * @throws {FencedError} where `under` is another's by now
   */
  async write<T>(
    { by, topic, under, tell = true }: WriteOptions,
    work: (query: Query) => Promise<Write<T>>,
  ): Promise<T> {
    const done = await this.#transaction('BEGIN', async (query) => {
      if (under !== undefined) await checkFence(query, under);
      const { result, changed } = await work(query);
      if (!changed || topic === null) return { result, revision: null };
      // Last: whoever changes the same topic waits from here to the commit, and revisions are in the order of the commits.
      const { rows } = await query<{ revision: number }>(
        `UPDATE revisions SET revision = revision + 1 WHERE topic = $1
         RETURNING revision${tell ? `, pg_notify('${CHANNEL}', 'change ' || topic || ' ' || revision || ' ' || $2::text)` : ''}`,
        tell ? [topic, this.origin] : [topic],
      );
      return { result, revision: rows[0]?.revision ?? null };
    });
    if (topic !== null && done.revision !== null) this.#ownChange(topic, done.revision, by);
    return done.result;
  }

  /** A connection of its own, connected: for `LISTEN`. Its errors are the caller's. @param timeout of a statement, ms */
  async connect(timeout: number): Promise<Client> {
    await this.#ready();
    return this.#explained(() => this.#client(this.#speaksTls, timeout));
  }

  /** See `explainFailure`. */
  explain(error: unknown): unknown {
    return explainFailure(error, this.where);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#opening?.catch(() => {});
    await this.#pool?.end();
    this.#pool = null;
  }

  #speaksTls = true;

  /** The pool, once the schema is as this version knows it. A contact that failed is made anew by the next who asks. */
  #ready(): Promise<Pool> {
    if (this.#closed) return Promise.reject(new Error(`the database ${this.where} was closed`));
    if (this.#pool !== null) return Promise.resolve(this.#pool);
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null;
    });
    return this.#opening;
  }

  async #open(): Promise<Pool> {
    const client = await this.#explained(() => this.#firstClient());
    try {
      await this.#explained(() => migrate(client, this.where, this.#log, gatewayMigrations));
    } finally {
      await client.end().catch(() => {});
    }
    const pool = new Pool({
      ...this.#config(this.#speaksTls, STATEMENT_TIMEOUT),
      max: CONNECTIONS,
      idleTimeoutMillis: IDLE_TIMEOUT,
      maxLifetimeSeconds: LIFETIME,
    });
    // Of connections that nobody uses just now: the next statement makes another.
    pool.on('error', () => {});
    // Of those in use, too: one that is lost between two statements of a transaction fails the next of them.
    pool.on('connect', (client) => client.on('error', () => {}));
    this.#pool = pool;
    return pool;
  }

  /** With `prefer`, without TLS where the server speaks none. */
  async #firstClient(): Promise<Client> {
    this.#speaksTls = true;
    try {
      return await this.#client(true, MIGRATION_TIMEOUT);
    } catch (error) {
      if (!(error instanceof Error) || error.message !== NO_TLS || !mayBePlain(this.#target)) throw error;
    }
    this.#speaksTls = false;
    return this.#client(false, MIGRATION_TIMEOUT);
  }

  async #client(withTls: boolean, timeout: number): Promise<Client> {
    const client = new Client(this.#config(withTls, timeout));
    // Of a client that is not connected yet; whoever uses it adds a listener.
    client.on('error', () => {});
    try {
      await client.connect();
      return client;
    } catch (error) {
      // The server waits for a minute for what this client has no answer to, and this process for the server.
      client.end().catch(() => {});
      throw error;
    }
  }

  #config(withTls: boolean, timeout: number): ClientConfig {
    const { host, port, user, database } = this.#target;
    const ssl = withTls ? tlsOf(this.#target) : false;
    return {
      ...{ host, port, user, database, ssl, types: TYPES },
      // An empty one is refused by the server in its own words.
      password: async () => (await passwordFor(this.#target, this.#passwordFile)) ?? '',
      application_name: 'registry-gateway',
      connectionTimeoutMillis: CONNECT_TIMEOUT,
      query_timeout: timeout,
      keepAlive: true,
    };
  }

  async #transaction<T>(begin: string, work: (query: Query) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(begin, work);
      } catch (error) {
        if (attempt === ATTEMPTS || !mayRetry(error)) throw this.explain(error);
      }
    }
  }

  async #once<T>(begin: string, work: (query: Query) => Promise<T>): Promise<T> {
    const pool = await this.#ready();
    const client = await pool.connect();
    // A connection that breaks between two statements says so here, and the next statement fails.
    const ignore = () => {};
    client.on('error', ignore);
    let broken: Error | undefined;
    try {
      await client.query(`${begin}; SET LOCAL statement_timeout = ${SERVER_TIMEOUT}`);
      const result = await work((sql, values = []) => client.query(sql, [...values]));
      await client.query('COMMIT');
      return result;
    } catch (error) {
      broken = await rollBack(client, error);
      throw error;
    } finally {
      client.off('error', ignore);
      client.release(broken);
    }
  }

  async #explained<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.explain(error);
    }
  }
}

/** Undefined where the connection can be used again. */
async function rollBack(client: PoolClient, failure: unknown): Promise<Error | undefined> {
  // Behind a statement that hangs, another would hang.
  if (failure instanceof Error && !isAnswer(failure)) return failure;
  try {
    await client.query('ROLLBACK');
    return undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** The row stays locked until the end of the transaction: nobody else is granted the name before what is written is written. */
async function checkFence(query: Query, { name, fence }: Fence): Promise<void> {
  const { rowCount } = await query('SELECT 1 FROM locks WHERE name = $1 AND fence = $2 FOR SHARE', [name, fence]);
  if (rowCount !== 1) throw new FencedError(name);
}
