import { readFileSync, statSync } from 'node:fs';
import Database, { type Statement } from 'better-sqlite3';
import { OperatorError } from '../kit/operator-error.ts';
import { makePrivate } from './data-directory.ts';
import { type Durability, Journal } from './journal.ts';
import { backUpBeforeUpgrade, newestBackupFor } from './upgrade-backups.ts';

export type { Database } from 'better-sqlite3';

/** One step of a schema. Its number is its place in the list, from 1; a step that was ever released is never changed. */
export interface Migration {
  readonly name: string;
  /** Statements; they run in one transaction together with the new version number. */
  readonly sql: string;
}

export interface OpenOptions {
  /**
   * `full`: a change survives a power cut once `durable` has resolved, or, without `exclusive`, once it has returned. `normal`: it survives kill -9
   * (with `exclusive` but for those made while a checkpoint syncs); a power cut may undo the newest ones.
   */
  readonly durability: Durability;
  /**
   * For a process that serves: nobody is waited for. No other connection can read or write the database until it is closed (`closeDatabase`),
   * and the disk is waited for by `durable` alone (see `Journal`). Left out: SQLite syncs as it commits, and others may open the file too.
   */
  readonly exclusive?: boolean;
  /** What it holds cannot be had again: before a step changes its schema it is copied to a file beside it, or left as it is. */
  readonly irreplaceable?: boolean;
}

/**
 * Tells the stores that share one open database of each other's changes. A topic is what one port keeps (`certificates`, `aliases` …).
 * Nothing crosses processes: the instance lock keeps the data directory exclusively ours.
 */
export class ChangeFeed {
  readonly #watchers = new Map<string, Set<{ readonly store: object; readonly listener: () => void }>>();

  /** Calls `listener` after every change of the topic by a store other than `store`. The function returned ends that. */
  watch(topic: string, store: object, listener: () => void): () => void {
    const watchers = this.#watchers.get(topic) ?? new Set();
    this.#watchers.set(topic, watchers);
    const watcher = { store, listener };
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  }

  /** To be called after the commit, by the store that made the change. */
  publish(topic: string, store: object): void {
    for (const watcher of [...(this.#watchers.get(topic) ?? [])]) if (watcher.store !== store) watcher.listener();
  }
}

const feeds = new WeakMap<Database.Database, ChangeFeed>();

/** The change feed of an open database: the same one for every store over it. */
export function changeFeed(database: Database.Database): ChangeFeed {
  let feed = feeds.get(database);
  if (feed === undefined) {
    feed = new ChangeFeed();
    feeds.set(database, feed);
  }
  return feed;
}

/** How long another program's lock is waited for at the start, ms: it may be a backup that is about to end. */
const LOCK_WAIT = 3_000;
/** The log is cut back to this after a checkpoint, bytes: one large change must not hold disk for ever. */
const WAL_KEPT = 16 * 1024 * 1024;

const journals = new WeakMap<Database.Database, Journal>();

/** Resolves when what was changed in an open database survives a power cut, where it was opened with `full`. @throws where it could not be written */
export async function durable(database: Database.Database): Promise<void> {
  await journals.get(database)?.durable();
}

/** Calls where changes are lost that were made already, because the disk failed: what is known in memory of them is wrong. */
export function onLoss(database: Database.Database, listener: () => void): void {
  journals.get(database)?.onLoss(listener);
}

/** Makes a checkpoint now, without waiting for the disk on the event loop. */
export async function checkpoint(database: Database.Database): Promise<void> {
  await journals.get(database)?.checkpoint();
}

/** Syncs what is open of a database, and closes it. */
export function closeDatabase(database: Database.Database): void {
  journals.get(database)?.close();
  database.close();
}

/**
 * Opens (or makes) a database in WAL mode, readable by its owner alone, and brings its schema up to date.
 * @throws {OperatorError} `DATABASE_NEWER` where a newer program wrote it, `DATABASE_LOCKED` by another program, `DATABASE_DAMAGED`,
 *   `DATABASE_UNUSABLE`.
 */
export function openDatabase(path: string, migrations: readonly Migration[], options: OpenOptions): Database.Database {
  let database: Database.Database | undefined;
  try {
    makePrivate(path);
    database = new Database(path, { timeout: LOCK_WAIT });
    if (options.exclusive) database.pragma('locking_mode = EXCLUSIVE');
    database.pragma('journal_mode = WAL');
    // The lock comes with the first transaction.
    if (options.exclusive) database.exec('BEGIN IMMEDIATE; COMMIT');
    database.pragma(`synchronous = ${options.durability === 'full' ? 'FULL' : 'NORMAL'}`);
    database.pragma(`journal_size_limit = ${WAL_KEPT}`);
    database.pragma('foreign_keys = OFF');
    migrate(database, path, migrations, options.irreplaceable === true);
    database.pragma('foreign_keys = ON');
    if (options.exclusive) journals.set(database, new Journal(database, path, options.durability));
    return database;
  } catch (error) {
    database?.close();
    throw explain(path, error);
  }
}

function migrate(
  database: Database.Database,
  path: string,
  migrations: readonly Migration[],
  irreplaceable: boolean,
): void {
  const version = (): number => Number(database.pragma('user_version', { simple: true }));
  refuseNewer(path, version(), migrations.length);
  if (irreplaceable && version() > 0 && version() < migrations.length) backUpBeforeUpgrade(database, path, version());
  for (const [index, migration] of migrations.entries()) {
    if (version() > index) continue;
    database
      .transaction(() => {
        // Asked again under the write lock: another process may have been faster.
        if (version() > index) return;
        database.exec(migration.sql);
        // Steps run without enforcement of foreign keys, so that they may rebuild tables; the result must be sound all the same.
        const broken = database.pragma('foreign_key_check') as unknown[];
        if (broken.length > 0)
          throw new Error(`step ${index + 1} (${migration.name}) would leave rows that point nowhere`);
        database.pragma(`user_version = ${index + 1}`);
      })
      .immediate();
  }
}

/** @throws {OperatorError} `DATABASE_NEWER` */
export function refuseNewer(path: string, found: number, known: number): void {
  if (found <= known) return;
  const made = newestBackupFor(path, known);
  const backup =
    made === null
      ? 'restore a backup from before the update: gateway restore FILE --force'
      : `go back to what it was before the update: gateway restore ${made} --force`;
  throw new OperatorError(
    'DATABASE_NEWER',
    `${path} was written by a newer version of this program (schema ${found}, this one knows up to ${known})`,
    { next: `start the newer version again, or ${backup}` },
  );
}

/** What went wrong with a database, for an operator. */
export function explain(path: string, error: unknown): unknown {
  if (error instanceof OperatorError) return error;
  const code = (error as { code?: unknown }).code;
  const reason = error instanceof Error ? error.message : String(error);
  if (typeof code === 'string' && code.startsWith('SQLITE_BUSY')) {
    const holder = lockHolder(path);
    return new OperatorError('DATABASE_LOCKED', `${path} is locked by ${holder ?? 'another program'}`, {
      next: 'end that program, or let it finish, and start again; while the gateway runs nothing else may open its databases',
      cause: error,
    });
  }
  if (code === 'SQLITE_NOTADB' || (typeof code === 'string' && code.startsWith('SQLITE_CORRUPT'))) {
    return new OperatorError('DATABASE_DAMAGED', `${path} is damaged: ${reason}`, {
      next: 'restore it from a copy, or move it away to start anew',
      cause: error,
    });
  }
  return new OperatorError('DATABASE_UNUSABLE', `${path} cannot be used: ${reason}`, {
    next: 'check that the data directory is writable by this user, has free space, and is on a local disk',
    cause: error,
  });
}

/** The program that has a lock of the kernel on a file; null where it cannot be told. */
function lockHolder(path: string): string | null {
  try {
    const { ino } = statSync(path);
    // `1: POSIX  ADVISORY  READ 4711 fd:00:1234 1073741826 1073742335`
    for (const line of readFileSync('/proc/locks', 'utf8').split('\n')) {
      const [, , , , pid, file] = line.trim().split(/\s+/);
      if (file?.split(':')[2] !== String(ino) || Number(pid) === process.pid) continue;
      return `process ${pid} (${readFileSync(`/proc/${pid}/comm`, 'utf8').trim()})`;
    }
  } catch {
    // Not Linux, or a process of another container.
  }
  return null;
}

/** Prepares each statement once, under its name. */
export function prepareAll<K extends string>(
  database: Database.Database,
  sql: Readonly<Record<K, string>>,
): Readonly<Record<K, Statement>> {
  const names = Object.keys(sql) as K[];
  return Object.fromEntries(names.map((name) => [name, database.prepare(sql[name])])) as Record<K, Statement>;
}
