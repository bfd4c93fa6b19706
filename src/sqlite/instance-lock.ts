import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { OperatorError } from '../kit/operator-error.ts';
import { makePrivate, openDataDirectory } from './data-directory.ts';

/** The process that holds a data directory. Its fields are null in the moment between taking the lock and writing them to the file. */
export interface InstanceHolder {
  readonly pid: number | null;
  /** Host name. It distinguishes containers that share a volume, where every process may have pid 1. */
  readonly host: string | null;
  /** ISO 8601. */
  readonly startedAt: string | null;
  /** The command that it runs: `serve`, `alias add`. */
  readonly activity: string | null;
}

export interface InstanceLock {
  /** What the operator should know of the directory, a sentence each. */
  readonly warnings: readonly string[];
  /** May be called more than once. */
  release(): void;
}

/** Keeps connections reachable: the garbage collector closes one that is not, which would release its lock. */
const held = new Set<Database.Database>();

/** How long to wait for the lock, ms: `instanceHolder` of another process takes it for a few microseconds, which must not refuse a start. */
const LOCK_TIMEOUT = 300;

/**
 * Makes this process the only one that works on `dataDir`. The lock is an exclusive transaction on a small SQLite file, and so a lock of the kernel
 * on that file: it ends with the process, also after kill -9, and a pid that is used again does not matter.
 * @throws {OperatorError} `DATA_DIR_IN_USE`, naming the holder; `DATA_DIR_EXPOSED`.
 */
export function acquireInstanceLock(dataDir: string, activity = 'serve'): InstanceLock {
  const warnings = prepare(dataDir);
  const database = lock(dataDir, LOCK_TIMEOUT);
  if (database === null) throw inUse(dataDir, readHolder(dataDir));
  const holder: InstanceHolder = {
    pid: process.pid,
    host: hostname(),
    startedAt: new Date().toISOString(),
    activity,
  };
  held.add(database);
  const draft = join(dataDir, 'instance.json.new');
  // One left by a kill, or a link, is not written through.
  rmSync(draft, { force: true });
  writeFileSync(draft, `${JSON.stringify(holder)}\n`, { mode: 0o600, flag: 'wx' });
  renameSync(draft, holderPath(dataDir));
  return {
    warnings,
    release() {
      if (!database.open) return;
      rmSync(holderPath(dataDir), { force: true });
      held.delete(database);
      database.close();
    },
  };
}

/** The process that holds `dataDir` now; null where none does, or where there is no such directory. */
export function instanceHolder(dataDir: string): InstanceHolder | null {
  if (!existsSync(dataDir)) return null;
  const database = lock(dataDir, 0);
  if (database === null) return readHolder(dataDir);
  database.close();
  return null;
}

/** Closing the connection frees the lock. Null where another holds it. */
function lock(dataDir: string, timeoutMs: number): Database.Database | null {
  let database: Database.Database | undefined;
  try {
    const path = join(dataDir, 'instance.lock');
    makePrivate(path);
    database = new Database(path, { timeout: timeoutMs });
    database.exec('BEGIN EXCLUSIVE');
    return database;
  } catch (error) {
    database?.close();
    if ((error as { code?: unknown }).code === 'SQLITE_BUSY') return null;
    throw unusable(dataDir, error);
  }
}

function prepare(dataDir: string): readonly string[] {
  try {
    return openDataDirectory(dataDir);
  } catch (error) {
    throw unusable(dataDir, error);
  }
}

function unusable(dataDir: string, error: unknown): OperatorError {
  if (error instanceof OperatorError) return error;
  return new OperatorError('DATA_DIR_UNUSABLE', `${dataDir} cannot be locked: ${(error as Error).message}`, {
    next: 'check that the data directory is writable by this user and on a local disk',
    cause: error,
  });
}

function inUse(dataDir: string, holder: InstanceHolder): OperatorError {
  const holding = holder.pid === null ? 'another process' : `process ${holder.pid}${elsewhere(holder.host)}`;
  const what = holder.activity === null ? '' : ` (${holder.activity}, since ${holder.startedAt})`;
  return new OperatorError('DATA_DIR_IN_USE', `${dataDir} is in use by ${holding}${what}`, {
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
  const unknown: InstanceHolder = { pid: null, host: null, startedAt: null, activity: null };
  try {
    return { ...unknown, ...(JSON.parse(readFileSync(holderPath(dataDir), 'utf8')) as Partial<InstanceHolder>) };
  } catch {
    return unknown;
  }
}
