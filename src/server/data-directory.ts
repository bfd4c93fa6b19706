import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';

/** The database of the gateway's state, in its data directory. */
export const databaseFile = (dataDir: string): string => join(dataDir, 'gateway.db');

/** What a gateway with a shared database serves by while that is away. */
export const keptStateFile = (dataDir: string): string => join(dataDir, 'fleet-state.sealed');

/** Is there once the state was moved into a shared database. */
export const movedMark = (dataDir: string): string => join(dataDir, 'moved.json');

/**
 * Whether a gateway has ever run on it.
 * @throws {OperatorError} `DATA_DIR_UNUSABLE` where this user cannot see that
 */
export function isDataDirectory(dataDir: string): boolean {
  try {
    return statSync(databaseFile(dataDir)).isFile();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    throw new OperatorError('DATA_DIR_UNUSABLE', `${dataDir} cannot be looked into: ${code}`, {
      next: 'run this as the user that the gateway runs as, or as root',
      cause: error,
    });
  }
}

/** @throws {OperatorError} `STATE_MOVED` where the state of the data directory was moved into a shared database */
export function refuseMoved(dataDir: string): void {
  const mark = movedMark(dataDir);
  if (!existsSync(mark)) return;
  const { to, at } = JSON.parse(readFileSync(mark, 'utf8')) as { to: string; at: string };
  throw new OperatorError('STATE_MOVED', `the state of ${dataDir} was moved to the database ${to} on ${at}`, {
    next: `name that database (database, GATEWAY_DATABASE); to have it here again: gateway migrate --to sqlite; to go on with what is left here: rm ${mark}`,
  });
}
