import { randomBytes } from 'node:crypto';
import { rm, stat, statfs, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { OperationsDeps } from '../deps.ts';
import type { Check } from '../rows.ts';

/** Below this the database itself is at risk, bytes. */
const LEAST = 64 * 1024 * 1024;

/** Room, permission to write, and that nobody else can read the keys. */
export async function* checkDisk(deps: OperationsDeps): AsyncGenerator<Check> {
  const { dataDir, cache } = deps.config;
  const { bavail, bsize } = await statfs(dataDir);
  const free = bavail * bsize;
  const message = `${gib(free)} free in ${dataDir}`;
  if (free < LEAST) {
    yield { name: 'disk', level: 'fail', message, next: 'make room: certificates cannot be stored on a full disk' };
  } else if (free < cache.minFree) {
    yield {
      name: 'disk',
      level: 'warn',
      message: `${message}, less than cache.minFree (${gib(cache.minFree)}): nothing new is kept`,
      next: 'make room, or lower cache.minFree; gateway cache prune drops what is kept',
    };
  } else yield { name: 'disk', level: 'ok', message };

  const file = path.join(dataDir, `.doctor-${randomBytes(6).toString('hex')}`);
  try {
    await writeFile(file, 'x', { mode: 0o600, flag: 'wx' });
    yield { name: 'data', level: 'ok', message: `${dataDir} can be written` };
  } catch (error) {
    yield {
      name: 'data',
      level: 'fail',
      message: `${dataDir} cannot be written: ${(error as Error).message}`,
      next: 'give it to the user that the gateway runs as',
    };
  } finally {
    await rm(file, { force: true });
  }

  const { mode } = await stat(path.join(dataDir, 'gateway.db'));
  if ((mode & 0o077) !== 0) {
    yield {
      name: 'keys',
      level: 'fail',
      message: 'gateway.db, which holds private keys, is open to other users',
      next: `chmod 600 ${path.join(dataDir, 'gateway.db')}`,
    };
  }
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
