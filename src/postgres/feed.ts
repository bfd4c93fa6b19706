import { setTimeout as timer } from 'node:timers/promises';
import type { Client } from 'pg';
import { type Moment, moment } from '../kit/freshness.ts';
import { jitter } from '../kit/time.ts';
import type { Logger } from '../telemetry/log.ts';
import { CHANNEL, type PostgresDatabase } from './database.ts';
import { isAway } from './failures.ts';

/**
 * How often all revisions are read, ms: what `NOTIFY` did not bring is known after it. One small statement a node, and it tells within this time
 * that the connection is dead.
 */
const POLL = 2_000;
/** An answer to that, ms: a connection whose other end has vanished is given up after it. */
const POLL_TIMEOUT = 5_000;
/** Between two attempts to connect, ms; it doubles up to the most. A fleet comes back at once, and does not knock a starting server over. */
const BACK_OFF = { least: 250, most: 8_000 };

/** How it stands between this node and the database. */
export interface Contact {
  readonly reachable: boolean;
  /** Since when, epoch milliseconds. */
  readonly since: number;
  /** Why it is not, in words; null where it is. */
  readonly trouble: string | null;
}

const UNASKED = 'it was not asked yet';
const AWAY = 'the database is away; this node goes on with what it knows, and tries again';
const REFUSED = 'the database refuses this node; it goes on with what it knows, and tries again';

interface Watcher {
  readonly store: object;
  readonly listener: () => void;
}

/**
 * Tells stores of what other nodes, and other stores of this process, have changed: by `NOTIFY` on a connection of its own, at once, and by reading
 * the revisions of all topics now and then and after each reconnection. Behind PgBouncer, where `LISTEN` brings nothing, the poll alone does it.
 */
export class PostgresFeed {
  readonly #database: PostgresDatabase;
  readonly #log: Pick<Logger, 'info' | 'warn'>;
  readonly #poll: number;
  readonly #ending = new AbortController();
  readonly #watchers = new Map<string, Set<Watcher>>();
  readonly #known = new Map<string, number>();
  readonly #freed = new Map<string, Set<() => void>>();
  readonly #contactListeners = new Set<(contact: Contact) => void>();
  readonly #attemptListeners = new Set<(asked: Moment, answered: boolean) => void>();
  /** When it began to connect, or to read. */
  #asked = moment();
  #contact: Contact = { reachable: false, since: Date.now(), trouble: UNASKED };
  #running: Promise<void> | null = null;

  constructor(database: PostgresDatabase, log: Pick<Logger, 'info' | 'warn'>, poll: number = POLL) {
    this.#database = database;
    this.#log = log;
    this.#poll = poll;
    database.onOwnChange((topic, revision, by) => this.#learn(topic, revision, by));
  }

  /** Follows the changes from now on, until `close`. Resolves once it has read how things stand, or has failed to for the first time. */
  start(): Promise<void> {
    const first = new Promise<void>((resolve) => {
      const end = this.onContact(() => {
        end();
        resolve();
      });
    });
    this.#running ??= this.#run();
    return first;
  }

  /** Calls `listener` after another node's change of the topic, and after one by another store of this process. */
  watch(topic: string, store: object, listener: () => void): () => void {
    const watchers = this.#watchers.get(topic) ?? new Set();
    this.#watchers.set(topic, watchers);
    const watcher = { store, listener };
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }

  /** Calls `listener` once a lock that somebody waits for was released, wherever. The function returned ends that. */
  onFree(lock: string, listener: () => void): () => void {
    const listeners = this.#freed.get(lock) ?? new Set();
    this.#freed.set(lock, listeners);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#freed.delete(lock);
    };
  }

  /** What this process has heard of each topic: who loads it now reads this revision, or a later one. */
  revision(topic: string): number {
    return this.#known.get(topic) ?? 0;
  }

  get contact(): Contact {
    return this.#contact;
  }

  /** Calls `listener` after the first contact, or the first that failed, and whenever the database goes away or comes back. */
  onContact(listener: (contact: Contact) => void): () => void {
    this.#contactListeners.add(listener);
    return () => this.#contactListeners.delete(listener);
  }

  /** Calls `listener` after each reading of the revisions, and each attempt that failed, with when it began. The function returned ends that. */
  onAttempt(listener: (asked: Moment, answered: boolean) => void): () => void {
    this.#attemptListeners.add(listener);
    return () => this.#attemptListeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    for (let wait = BACK_OFF.least; !signal.aborted; wait = Math.min(BACK_OFF.most, 2 * wait)) {
      try {
        await this.#listen(() => {
          wait = BACK_OFF.least / 2;
          this.#tellContact(null);
          this.#tellAttempt(true);
        });
      } catch (error) {
        if (signal.aborted) return;
        this.#tellContact(this.#database.explain(error));
        this.#tellAttempt(false);
      }
      await timer(jitter(wait), undefined, { signal, ref: false }).catch(() => {});
    }
  }

  /** Listens and polls on one connection until that breaks. @param answered after each poll */
  async #listen(answered: () => void): Promise<void> {
    const { signal } = this.#ending;
    this.#asked = moment();
    const client = await this.#database.connect(POLL_TIMEOUT);
    const broken = new AbortController();
    const over = AbortSignal.any([signal, broken.signal]);
    client.on('error', (error) => broken.abort(error));
    client.on('end', () => broken.abort(new Error('Connection terminated')));
    client.on('notification', ({ payload = '' }) => this.#hear(payload));
    try {
      await client.query(`LISTEN ${CHANNEL}`);
      // After `LISTEN`: what was changed until then is read, and of what follows there is a message.
      while (!over.aborted) {
        this.#asked = moment();
        await this.#read(client);
        answered();
        await timer(this.#poll, undefined, { signal: over, ref: false }).catch(() => {});
      }
      if (!signal.aborted) throw broken.signal.reason;
    } finally {
      // Without waiting: the other end may be gone.
      client.end().catch(() => {});
    }
  }

  async #read(client: Client): Promise<void> {
    const before = new Map(this.#known);
    const { rows } = await client.query<{ topic: string; revision: number }>('SELECT topic, revision FROM revisions');
    for (const { topic, revision } of rows) {
      // The database was put back to an older state: what is known of it holds no more.
      if (revision < (before.get(topic) ?? 0)) this.#known.delete(topic);
      this.#learn(topic, revision, null);
    }
  }

  #hear(message: string): void {
    const [kind, ...rest] = message.split(' ');
    if (kind === 'free') for (const listener of [...(this.#freed.get(rest.join(' ')) ?? [])]) listener();
    const [topic = '', revision, origin] = rest;
    // Of our own changes we hear from whoever made them.
    if (kind === 'change' && origin !== this.#database.origin) this.#learn(topic, Number(revision), null);
  }

  /** @param by the store that made the change; null for another node's */
  #learn(topic: string, revision: number, by: object | null): void {
    const known = this.#known.get(topic);
    if (known !== undefined && revision <= known) return;
    this.#known.set(topic, revision);
    // Between the two somebody else has changed it, too.
    const others = known === undefined || revision > known + 1;
    for (const watcher of [...(this.#watchers.get(topic) ?? [])]) {
      if (others || watcher.store !== by) watcher.listener();
    }
  }

  #tellAttempt(answered: boolean): void {
    for (const listener of [...this.#attemptListeners]) listener(this.#asked, answered);
  }

  #tellContact(failure: unknown): void {
    const reachable = failure === null;
    const trouble = reachable ? null : failure instanceof Error ? failure.message : String(failure);
    const changed = reachable !== this.#contact.reachable;
    if (!changed && trouble === this.#contact.trouble) return;
    const first = this.#contact.trouble === UNASKED;
    this.#contact = { reachable, since: changed ? Date.now() : this.#contact.since, trouble };
    if (trouble !== null) this.#log.warn({ trouble }, isAway(failure) ? AWAY : REFUSED);
    else if (!first) this.#log.info('the database answers again; what was changed meanwhile is read');
    if (!changed && !first) return;
    for (const listener of [...this.#contactListeners]) listener(this.#contact);
  }
}
