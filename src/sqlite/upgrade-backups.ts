import { chmodSync, closeSync, fsyncSync, openSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type Database from 'better-sqlite3';
import { OperatorError } from '../kit/operator-error.ts';

/** The copies of a database that are made before its schema changes, so that the version before can be run again. */

/** So many are kept: of this update, and of those before it. */
const KEPT = 3;
/** `backup-<schema>-<UTC>.db`: a whole database that every SQLite opens. */
const NAME = /^backup-(\d+)-\d{8}T\d{9}Z\.db$/;

/**
 * Copies a database, consistent and synced, to `backup-<schema>-<time>.db` beside it, mode 0600; the oldest of several are dropped.
 * @returns the path of the copy
 * @throws {OperatorError} `BACKUP_FAILED`; nothing is left of the copy then
 */
export function backUpBeforeUpgrade(database: Database.Database, path: string, schema: number): string {
  const directory = dirname(path);
  const copy = join(directory, `backup-${schema}-${timestamp()}.db`);
  const draft = `${copy}.new`;
  try {
    // Of an update that was killed.
    for (const name of readdirSync(directory)) {
      if (name.endsWith('.new') && NAME.test(name.slice(0, -'.new'.length))) rmSync(join(directory, name));
    }
    // SQLite writes into an empty file that is there, and keeps its mode.
    closeSync(openSync(draft, 'wx', 0o600));
    database.prepare('VACUUM INTO ?').run(draft);
    chmodSync(draft, 0o600);
    sync(draft);
    renameSync(draft, copy);
    sync(directory);
  } catch (cause) {
    rmSync(draft, { force: true });
    throw new OperatorError(
      'BACKUP_FAILED',
      `${path} has to be brought to a new schema, and was left as it is, since no copy of it could be made before: ${(cause as Error).message}`,
      {
        next: `make room in ${directory} for a copy of the database, and start again; or run the version before`,
        cause,
      },
    );
  }
  for (const { name } of upgradeBackups(directory).slice(KEPT)) rmSync(join(directory, name), { force: true });
  return copy;
}

/** The copies in a directory, the newest first. */
function upgradeBackups(directory: string): { readonly name: string; readonly schema: number }[] {
  return readdirSync(directory)
    .flatMap((name) => {
      const schema = NAME.exec(name)?.[1];
      return schema === undefined ? [] : [{ name, schema: Number(schema) }];
    })
    .sort((one, other) => (timeOf(one.name) < timeOf(other.name) ? 1 : -1));
}

/** The newest copy that a program which knows so many schemas can open; null where there is none. */
export function newestBackupFor(path: string, known: number): string | null {
  try {
    const directory = dirname(path);
    const found = upgradeBackups(directory).find(({ schema }) => schema <= known);
    return found === undefined ? null : join(directory, found.name);
  } catch {
    return null;
  }
}

function timestamp(): string {
  return new Date().toISOString().replace(/[-:.]/g, '');
}

function timeOf(name: string): string {
  return name.slice(name.lastIndexOf('-') + 1);
}

function sync(path: string): void {
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
