import { setTimeout as timer } from 'node:timers/promises';
import type { LeaseOptions, Lock, Locks } from '../kit/locks.ts';
import { jitter } from '../kit/time.ts';
import { CHANNEL, type PostgresDatabase } from './database.ts';
import type { PostgresFeed } from './feed.ts';

/** A lease is renewed after this share of it, so that two renewals may fail before it ends. */
const RENEW_AFTER = 1 / 3;
/** A renewal that failed is tried again after this share of the lease. */
const RENEW_AGAIN = 1 / 12;
/** How often a waiting node looks whether a lock is free, ms: a holder that vanished says nothing, nor does a message that was lost. */
const LOOK = 1_000;
/**
 * After a lock was released its waiters ask for it after up to this, ms; the longer one has waited, the sooner, so that they get it roughly in order
 * of arrival.
 */
const TURN = 40;
/** Rows of names that nobody has held for this long are removed, h. Much longer than a statement takes, so that numbers grow for good. */
const FORGOTTEN_AFTER = 24;
/** How often that is done, grants. */
const TIDY_EVERY = 500;

/**
 * Leases in the database, by its clock. A row is granted, renewed and released by one statement each. The holder counts by its own monotonic clock
 * from before each renewal, so it takes a lock for lost no later than another may get it; a process that stood still meanwhile is stopped by the fence.
 */
export class PostgresLocks implements Locks {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;
  #grants = 0;

  constructor(database: PostgresDatabase, feed: PostgresFeed) {
    this.#database = database;
    this.#feed = feed;
  }

  async acquire(name: string, options: LeaseOptions & { readonly signal?: AbortSignal }): Promise<Lock> {
    const { signal } = options;
    const arrived = performance.now();
    let freed = Promise.withResolvers<void>();
    const end = this.#feed.onFree(name, () => freed.resolve());
    try {
      for (;;) {
        signal?.throwIfAborted();
        const lock = await this.#ask(name, options, true);
        if (lock !== null && signal?.aborted === true) await lock.release();
        signal?.throwIfAborted();
        if (lock !== null) return lock;
        const look = new AbortController();
        const over = signal === undefined ? look.signal : AbortSignal.any([look.signal, signal]);
        const poll = timer(jitter(LOOK), undefined, { signal: over }).catch(() => {});
        await Promise.race([poll, freed.promise]);
        look.abort();
        freed = Promise.withResolvers<void>();
        const waited = performance.now() - arrived;
        await timer(TURN / (1 + waited / 1_000), undefined, signal === undefined ? {} : { signal }).catch(() => {});
      }
    } finally {
      end();
    }
  }

  tryAcquire(name: string, options: LeaseOptions): Promise<Lock | null> {
    return this.#ask(name, options, false);
  }

  async holder(name: string): Promise<string | null> {
    const { rows } = await this.#database.query<{ note: string | null }>(
      'SELECT note FROM locks WHERE name = $1 AND holder IS NOT NULL AND expires_at > clock_timestamp()',
      [name],
    );
    return rows[0]?.note ?? null;
  }

  /** Null where another holds it. @param waits whether its release is to be told */
  async #ask(name: string, { leaseMs, note }: LeaseOptions, waits: boolean): Promise<Lock | null> {
    const holder = crypto.randomUUID();
    for (;;) {
      const asked = performance.now();
      const { rows } = await this.#database.query<{ fence: number }>(
        `INSERT INTO locks AS held (name, fence, holder, note, expires_at)
         VALUES ($1, nextval('lock_fences'), $2, $4, clock_timestamp() + $3 * interval '1 millisecond')
         ON CONFLICT (name) DO UPDATE
           SET fence = nextval('lock_fences'), holder = excluded.holder, note = excluded.note, waited_for = false,
             expires_at = clock_timestamp() + $3 * interval '1 millisecond'
           WHERE held.holder IS NULL OR held.expires_at <= clock_timestamp()
         RETURNING fence`,
        [name, holder, leaseMs, note ?? null],
      );
      const [granted] = rows;
      if (granted !== undefined) {
        this.#tidy();
        return new Lease(this.#database, { name, fence: granted.fence, holder, leaseMs, asked });
      }
      if (!waits || (await this.#isHeld(name))) return null;
    }
  }

  /** Whether the lock is still held, now that its release will be told. */
  async #isHeld(name: string): Promise<boolean> {
    const { rowCount } = await this.#database.query(
      'UPDATE locks SET waited_for = true WHERE name = $1 AND holder IS NOT NULL AND expires_at > clock_timestamp()',
      [name],
    );
    return rowCount === 1;
  }

  /** Now and then, without being waited for. */
  #tidy(): void {
    if (++this.#grants % TIDY_EVERY !== 0) return;
    this.#database
      .query(`DELETE FROM locks WHERE expires_at < clock_timestamp() - interval '${FORGOTTEN_AFTER} hours'`)
      .catch(() => {});
  }
}

interface Grant {
  readonly name: string;
  readonly fence: number;
  /** Of this grant alone. */
  readonly holder: string;
  readonly leaseMs: number;
  /** When it was asked for, by `performance.now()`. */
  readonly asked: number;
}

/** A lock that is held, renewed until it is released or lost. */
class Lease implements Lock {
  readonly name: string;
  readonly fence: number;
  readonly #database: PostgresDatabase;
  readonly #grant: Grant;
  readonly #lost = new AbortController();
  #renewal: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #held = true;

  constructor(database: PostgresDatabase, grant: Grant) {
    this.name = grant.name;
    this.fence = grant.fence;
    this.#database = database;
    this.#grant = grant;
    this.#confirmed(grant.asked);
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async release(): Promise<void> {
    if (!this.#held) return;
    this.#end();
    try {
      await this.#database.query(
        `WITH released AS (
           UPDATE locks SET holder = NULL, expires_at = clock_timestamp() WHERE name = $1 AND fence = $2 RETURNING name, waited_for
         )
         SELECT pg_notify('${CHANNEL}', 'free ' || name) FROM released WHERE waited_for`,
        [this.name, this.fence],
      );
    } catch {
      // It ends with its lease.
    }
  }

  /** @param asked when the statement was sent that the database has answered */
  #confirmed(asked: number): void {
    const { leaseMs } = this.#grant;
    clearTimeout(this.#deadline);
    const left = Math.max(0, asked + leaseMs - performance.now());
    this.#deadline = setTimeout(() => this.#lose('it was not renewed in time'), left).unref();
    this.#renewAfter(leaseMs * RENEW_AFTER - (performance.now() - asked));
  }

  #renewAfter(ms: number): void {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(() => void this.#renew(), Math.max(0, ms)).unref();
  }

  async #renew(): Promise<void> {
    const { leaseMs, holder } = this.#grant;
    const asked = performance.now();
    try {
      const { rowCount } = await this.#database.query(
        `UPDATE locks SET expires_at = clock_timestamp() + $4 * interval '1 millisecond'
         WHERE name = $1 AND fence = $2 AND holder = $3`,
        [this.name, this.fence, holder, leaseMs],
      );
      if (!this.#held) return;
      if (rowCount === 1) this.#confirmed(asked);
      else this.#lose('another node has it now');
    } catch {
      if (this.#held) this.#renewAfter(leaseMs * RENEW_AGAIN);
    }
  }

  #lose(why: string): void {
    if (!this.#held) return;
    this.#end();
    this.#lost.abort(new Error(`the lock "${this.name}" was lost: ${why}`));
  }

  #end(): void {
    this.#held = false;
    clearTimeout(this.#renewal);
    clearTimeout(this.#deadline);
  }
}
