import type { CounterStore } from '../access/counters.ts';
import type { UserStore } from '../access/users.ts';
import type { AliasStore } from '../aliases/store.ts';
import type { Challenges } from '../certs/challenges.ts';
import type { CertStore } from '../certs/store.ts';
import type { Locks } from '../kit/locks.ts';
import type { Sealer } from '../kit/sealed.ts';
import type { Logger } from '../telemetry/log.ts';
import { PostgresAliasStore } from './alias-store.ts';
import { PostgresCertStore } from './cert-store.ts';
import { PostgresChallenges } from './challenge-store.ts';
import { PostgresCounterStore } from './counter-store.ts';
import { PostgresDatabase } from './database.ts';
import { isAway } from './failures.ts';
import { PostgresFeed } from './feed.ts';
import { PostgresLocks } from './locks.ts';
import { PostgresUserStore } from './user-store.ts';

export interface PostgresOptions {
  /** `postgres://user@host:port/database?sslmode=verify-full&sslrootcert=…`: the parameters of libpq that `parseTarget` names. */
  readonly url: string;
  /** `GATEWAY_DATABASE_PASSWORD_FILE`; else the URL's password, `PGPASSWORD`, a passfile. */
  readonly passwordFile: string | null;
  /** Of the fleet's `secretFile`. */
  readonly sealer: Sealer;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** Where the database is away, resolve all the same: each call rejects with `DATABASE_UNREACHABLE` until it is back. */
  readonly startWithout?: boolean;
  /** How often all revisions are read, ms; a test may be in a hurry. */
  readonly poll?: number;
}

/** The state that a fleet shares, behind the same ports as that of one machine. */
export interface PostgresStores {
  readonly aliases: AliasStore;
  readonly certificates: CertStore;
  readonly challenges: Challenges;
  readonly users: UserStore;
  readonly counters: CounterStore;
  readonly locks: Locks;
  /**
   * What the fleet calls itself in `Via`, 16 hex digits, made with the database: a request that comes round to another node of it is a loop as well.
   * A node's own id is that of its data directory.
   */
  identity(): Promise<string>;
  /** Statements, for what else a fleet keeps in this database. */
  readonly database: PostgresDatabase;
  /** Which revision of each topic this process has heard of, and how it stands with the database: `contact`, `onContact`. */
  readonly feed: PostgresFeed;
  close(): Promise<void>;
}

/**
 * Connects, brings the schema up to date, and follows what other nodes change. While the database is away every store rejects with
 * `DATABASE_UNREACHABLE`, and goes on by itself once it is back; `watch` then calls back for what was changed meanwhile.
 * @throws {OperatorError} `CONFIG_INVALID` for the URL, `DATABASE_REFUSED`, `DATABASE_NEWER`; `DATABASE_UNREACHABLE` without `startWithout`
 */
export async function openPostgres(options: PostgresOptions): Promise<PostgresStores> {
  const { sealer, log } = options;
  const database = new PostgresDatabase(options);
  const feed = new PostgresFeed(database, log, options.poll);
  const close = async () => {
    await feed.close();
    await database.close();
  };
  try {
    await database.open();
    await feed.start();
  } catch (error) {
    if (options.startWithout !== true || !isAway(error)) {
      await close();
      throw error;
    }
    log.warn({ err: error }, 'started while the database is away');
    void feed.start();
  }
  return {
    aliases: new PostgresAliasStore(database, feed, sealer),
    certificates: new PostgresCertStore(database, feed, sealer),
    challenges: new PostgresChallenges(database, feed, sealer),
    users: new PostgresUserStore(database, feed),
    counters: new PostgresCounterStore(database, feed),
    locks: new PostgresLocks(database, feed),
    async identity() {
      const { rows } = await database.query<{ identity: string }>('SELECT identity FROM fleet');
      const [fleet] = rows;
      if (fleet === undefined) throw new Error('the database has lost the identity of its fleet');
      return fleet.identity;
    },
    database,
    feed,
    close,
  };
}
