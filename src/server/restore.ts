import { existsSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { giveToOwner } from '../admin/backup/put-in-place.ts';
import { restore } from '../admin/backup/restore.ts';
import type { Restored } from '../admin/contract.ts';
import { holdDataDirectory, inspectState } from './stores.ts';

/**
 * Restores a backup into the data directory, which no gateway may hold meanwhile. The directory is made where there is none; where the restore
 * fails, what was made is taken away again.
 * @throws {OperatorError} `DATA_DIR_IN_USE`, and as `restore`
 */
export async function restoreState(options: {
  readonly dataDir: string;
  readonly source: AsyncIterable<Uint8Array>;
  readonly force: boolean;
  readonly signal: AbortSignal;
}): Promise<Restored> {
  const { dataDir } = options;
  const made = firstMissing(dataDir);
  const lockFile = join(dataDir, 'instance.lock');
  const lockMade = !existsSync(lockFile);
  const lock = holdDataDirectory(dataDir);
  let done = false;
  try {
    if (lockMade) await giveToOwner(dataDir, [lockFile]);
    const restored = await restore({ ...options, inspect: inspectState });
    done = true;
    return restored;
  } finally {
    lock.release();
    if (!done && made !== null) await rm(made, { recursive: true, force: true });
    else if (!done && lockMade) rmSync(lockFile, { force: true });
  }
}

/** The outermost directory of a path that is not there; null where all of it is. */
function firstMissing(path: string): string | null {
  if (existsSync(path)) return null;
  return firstMissing(dirname(path)) ?? path;
}
