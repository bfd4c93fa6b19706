import { open } from 'node:fs/promises';
import Sqlite from 'better-sqlite3';
import { OperatorError } from '../kit/operator-error.ts';
import { makePrivate } from './data-directory.ts';
import { type Database, explain, type Migration, refuseNewer } from './database.ts';

/**
 * Copies an open database into a new file, readable by its owner alone and synced, while it is used: what is changed meanwhile is in the copy
 * as a whole or not at all (SQLite, *Online Backup API*).
 * @returns how many steps its schema has
 * @throws SQLite's error, where the file cannot be written
 */
export async function snapshotDatabase(database: Database, path: string): Promise<number> {
  makePrivate(path);
  await database.backup(path);
  const copy = await open(path, 'r');
  try {
    await copy.sync();
  } finally {
    await copy.close();
  }
  return schemaOf(database);
}

/**
 * Looks whether a file is a whole database that this program can open, whoever made it.
 * @returns how many steps its schema has
 * @throws {OperatorError} `DATABASE_NEWER`, `DATABASE_DAMAGED`, `BACKUP_INVALID` for another program's database
 */
export function inspectDatabase(path: string, migrations: readonly Migration[]): number {
  let database: Database | undefined;
  try {
    database = new Sqlite(path, { fileMustExist: true });
    // A file that somebody else may have made: nothing of its schema may call anything.
    database.pragma('trusted_schema = OFF');
    const schema = schemaOf(database);
    refuseNewer(path, schema, migrations.length);
    const problems = database.pragma('integrity_check(1)', { simple: true });
    if (problems !== 'ok')
      throw new OperatorError('DATABASE_DAMAGED', `the database in the backup is damaged: ${problems}`);
    const tables = database.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").pluck().all();
    if (schema === 0 || !tables.includes('aliases') || !tables.includes('registries')) {
      throw new OperatorError(
        'BACKUP_INVALID',
        'this is no backup that can be restored: its database is none of a gateway',
      );
    }
    return schema;
  } catch (error) {
    throw explain(path, error);
  } finally {
    database?.close();
  }
}

function schemaOf(database: Database): number {
  return Number(database.pragma('user_version', { simple: true }));
}
