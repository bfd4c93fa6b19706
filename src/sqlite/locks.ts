import { type Fence, FencedError, type LeaseOptions, type Lock, type Locks } from '../kit/locks.ts';
import { type Database, durable } from './database.ts';

/** Fencing numbers taken from the database in one write; a restart skips those that were left. */
const FENCES_RESERVED = 1_000;

/** The locks of one open database: every `SqliteLocks` over it sees the same ones. */
interface LockTable {
  /** By name: those that wait behind the holder, in order of arrival. A name that nobody holds is not in it. */
  readonly waiting: Map<string, (() => void)[]>;
  /** By name: what the holder says of itself. */
  readonly notes: Map<string, string>;
  /** By name: the number of its last grant. Names are those of hosts, CAs and jobs: there are no more than in the table. */
  readonly granted: Map<string, number>;
  fence: number;
  reservedTo: number;
}

const tables = new WeakMap<Database, LockTable>();

/** To be called within the transaction of a write. @throws {FencedError} where the name was granted to another since */
export function checkFence(database: Database, under: Fence | undefined): void {
  if (under === undefined) return;
  const granted = tables.get(database)?.granted.get(under.name) ?? 0;
  if (granted > under.fence) throw new FencedError(under.name);
}

/**
 * Locks within this process, which is all that is needed: the instance lock gives one process the data directory. A holder cannot vanish
 * without the process, so leases never end and `lost` is never aborted. The fencing numbers are kept in the database.
 */
export class SqliteLocks implements Locks {
  readonly #database: Database;
  readonly #table: LockTable;

  constructor(database: Database) {
    this.#database = database;
    this.#table = tables.get(database) ?? newTable();
    tables.set(database, this.#table);
  }

  async acquire(name: string, options: LeaseOptions & { readonly signal?: AbortSignal }): Promise<Lock> {
    const { signal } = options;
    signal?.throwIfAborted();
    const waiting = this.#table.waiting.get(name);
    if (waiting === undefined) return this.#grant(name, options);
    const { promise: granted, resolve, reject } = Promise.withResolvers<void>();
    const abort = () => {
      const place = waiting.indexOf(resolve);
      if (place !== -1) waiting.splice(place, 1);
      reject(signal?.reason);
    };
    waiting.push(resolve);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      await granted;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
    const lock = await this.#grant(name, options);
    // Aborted just after the previous holder had passed it on.
    if (signal?.aborted === true) await lock.release();
    signal?.throwIfAborted();
    return lock;
  }

  async tryAcquire(name: string, options: LeaseOptions): Promise<Lock | null> {
    return this.#table.waiting.has(name) ? null : this.#grant(name, options);
  }

  async holder(name: string): Promise<string | null> {
    return this.#table.notes.get(name) ?? null;
  }

  async #grant(name: string, { note }: LeaseOptions): Promise<Lock> {
    const { waiting, notes } = this.#table;
    if (!waiting.has(name)) waiting.set(name, []);
    if (note !== undefined) notes.set(name, note);
    let held = true;
    const release = async () => {
      if (!held) return;
      held = false;
      notes.delete(name);
      // The name stays taken while it passes from one holder to the next.
      const next = waiting.get(name)?.shift();
      if (next === undefined) waiting.delete(name);
      else next();
    };
    try {
      const fence = this.#nextFence();
      // No number is given before it is certain that none will ever be lower.
      await durable(this.#database);
      this.#table.granted.set(name, fence);
      return { name, fence, lost: new AbortController().signal, release };
    } catch (error) {
      void release();
      throw error;
    }
  }

  #nextFence(): number {
    const table = this.#table;
    if (table.fence === table.reservedTo) {
      const row = this.#database
        .prepare<[number], { reserved: number }>('UPDATE lock_fence SET reserved = reserved + ? RETURNING reserved')
        .get(FENCES_RESERVED);
      if (row === undefined) throw new Error('the counter of fencing numbers is missing');
      table.reservedTo = row.reserved;
      table.fence = row.reserved - FENCES_RESERVED;
    }
    return ++table.fence;
  }
}

function newTable(): LockTable {
  return { waiting: new Map(), notes: new Map(), granted: new Map(), fence: 0, reservedTo: 0 };
}
