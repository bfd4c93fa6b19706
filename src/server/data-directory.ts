import { statSync } from 'node:fs';
import { join } from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';

/** The database of the gateway's state, in its data directory. */
export const databaseFile = (dataDir: string): string => join(dataDir, 'gateway.db');

/** What a gateway with a shared database serves by while that is away. */
export const keptStateFile = (dataDir: string): string => join(dataDir, 'fleet-state.sealed');

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
