import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { CacheIndex } from '../cache/index-port.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';
import { SqliteCacheIndex } from './cache-index.ts';
import { openDatabase } from './database.ts';
import { cacheMigrations } from './migrations/cache.ts';

/** Why an index is put aside, by the code of the error that opening it ends with: the end of its new name, and what the log says. */
const PUT_ASIDE: Readonly<Record<string, { readonly as: string; readonly reason: string }>> = {
  DATABASE_DAMAGED: { as: 'damaged', reason: 'the index of the cache is damaged' },
  // Whoever goes back to an earlier version gets along without what the later one remembered.
  DATABASE_NEWER: { as: 'newer', reason: 'the index of the cache was written by a newer version of this program' },
};

/**
 * Opens the cache's index, `<dataDir>/cache.db`. One that is damaged, or a newer version's, is put aside and made anew: maintenance finds the
 * files again, and the rest is fetched again.
 * @throws {OperatorError} `DATABASE_UNUSABLE` …
 */
export function openCacheIndex(dataDir: string, log: Logger): CacheIndex {
  const path = join(dataDir, 'cache.db');
  const open = () =>
    new SqliteCacheIndex(openDatabase(path, cacheMigrations, { durability: 'normal', exclusive: true }));
  try {
    return open();
  } catch (error) {
    const aside = error instanceof OperatorError ? PUT_ASIDE[error.code] : undefined;
    if (aside === undefined) throw error;
    log.error({ err: error }, `${aside.reason}; it is put aside as cache.db.${aside.as} and made anew`);
    renameSync(path, `${path}.${aside.as}`);
    for (const rest of ['-wal', '-shm']) rmSync(path + rest, { force: true });
    return open();
  }
}
