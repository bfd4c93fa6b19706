import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { OperatorError } from '../kit/operator-error.ts';
import { makePrivate } from './database.ts';

/** Who holds a data directory. The fields are null in the instant between taking the lock and writing them down. */
export interface InstanceHolder {
  readonly pid: number | null;
  /** Tells containers that share a volume apart: there every process may be number 1. */
  readonly host: string | null;
  /** ISO 8601. */
  readonly startedAt: string | null;
  /** What it does: `serve`, `alias add`. */
  readonly activity: string | null;
}

export interface InstanceLock {
  /** May be called more than once. */
  release(): void;
}

/** A connection that nothing refers to is closed by the garbage collector, and its lock with it. */
const held = new Set<Database.Database>();

/** A look at the lock holds it for microseconds; waiting this long, ms, keeps a start from being refused because of one. */
const PATIENCE = 300;

/**
 * Makes this process the one that works on `dataDir`. The lock is an exclusive transaction on a small SQLite file, in the end a lock of the kernel
 * on the file: it is gone with the process, kill -9 included, and a pid that came back means nothing to it.
 * @throws {OperatorError} `DATA_DIR_IN_USE`, naming the holder.
 */
export function acquireInstanceLock(dataDir: string, activity = 'serve'): InstanceLock {
  const database = lock(dataDir, PATIENCE);
  if (database === null) throw inUse(dataDir, readHolder(dataDir));
  const holder: InstanceHolder = {
    pid: process.pid,
    host: hostname(),
    startedAt: new Date().toISOString(),
    activity,
  };
  held.add(database);
  const draft = join(dataDir, 'instance.json.new');
  writeFileSync(draft, `${JSON.stringify(holder)}\n`, { mode: 0o600 });
  renameSync(draft, holderPath(dataDir));
  return {
    release() {
      if (!database.open) return;
      rmSync(holderPath(dataDir), { force: true });
      held.delete(database);
      database.close();
    },
  };
}

/** Who works on `dataDir` now; null where nobody does, or where there is no such directory. */
export function instanceHolder(dataDir: string): InstanceHolder | null {
  if (!existsSync(dataDir)) return null;
  const database = lock(dataDir, 0);
  if (database === null) return readHolder(dataDir);
  database.close();
  return null;
}

/** Closing the connection frees the lock. Null where another holds it. */
function lock(dataDir: string, patience: number): Database.Database | null {
  let database: Database.Database | undefined;
  try {
    const path = join(dataDir, 'instance.lock');
    makePrivate(path);
    database = new Database(path, { timeout: patience });
    database.exec('BEGIN EXCLUSIVE');
    return database;
  } catch (error) {
    database?.close();
    const code = (error as { code?: unknown }).code;
    if (code === 'SQLITE_BUSY') return null;
    throw new OperatorError('DATA_DIR_UNUSABLE', `${dataDir} cannot be locked: ${(error as Error).message}`, {
      next: 'check that the data directory is writable by this user and on a local disk',
      cause: error,
    });
  }
}

function inUse(dataDir: string, holder: InstanceHolder): OperatorError {
  const who = holder.pid === null ? 'another process' : `process ${holder.pid}${elsewhere(holder.host)}`;
  const what = holder.activity === null ? '' : ` (${holder.activity}, since ${holder.startedAt})`;
  return new OperatorError('DATA_DIR_IN_USE', `${dataDir} is in use by ${who}${what}`, {
    next: 'stop it first, or give this one another directory with --data-dir',
  });
}

function elsewhere(host: string | null): string {
  return host === null || host === hostname() ? '' : ` on ${host}`;
}

function holderPath(dataDir: string): string {
  return join(dataDir, 'instance.json');
}

function readHolder(dataDir: string): InstanceHolder {
  const nobody: InstanceHolder = { pid: null, host: null, startedAt: null, activity: null };
  try {
    return { ...nobody, ...(JSON.parse(readFileSync(holderPath(dataDir), 'utf8')) as Partial<InstanceHolder>) };
  } catch {
    return nobody;
  }
}
