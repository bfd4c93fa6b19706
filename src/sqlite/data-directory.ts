import { chmodSync, closeSync, constants, lstatSync, mkdirSync, openSync, type Stats, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { OperatorError } from '../kit/operator-error.ts';

const { O_CREAT, O_EXCL, O_WRONLY, S_IWOTH, S_IWGRP } = constants;
/** The sticky bit, for which Node has no name. */
const S_ISVTX = 0o1000;

/**
 * Makes the data directory where there is none, and sees that nobody else can put files into it: whoever can makes the gateway's keys
 * and databases theirs. Where others can write, that is taken from them, if the directory is this user's own.
 * @returns what the operator should know, a sentence each
 * @throws {OperatorError} `DATA_DIR_EXPOSED` where others can write and it could not be mended
 */
export function openDataDirectory(dataDir: string): readonly string[] {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const { mode, uid } = statSync(dataDir);
  const user = process.geteuid?.();
  if (user === undefined) return [];
  const warnings: string[] = [];
  if ((mode & S_IWOTH) !== 0) {
    // With the sticky bit it is a directory for everybody, such as /tmp: to close it would break other programs.
    if ((mode & S_ISVTX) !== 0 || (uid !== user && user !== 0)) throw exposed(dataDir);
    try {
      chmodSync(dataDir, mode & 0o7770);
    } catch (cause) {
      throw exposed(dataDir, cause);
    }
    warnings.push(`${dataDir} could be written by everybody on this machine; that has been taken from them (chmod o=)`);
  }
  // Not mended: it is how Kubernetes gives a volume to a pod (fsGroup).
  if ((mode & S_IWGRP) !== 0) {
    warnings.push(
      `${dataDir} can be written by its group: each of its members can replace what the gateway keeps there; chmod g-w if that is not intended`,
    );
  }
  return warnings;
}

function exposed(dataDir: string, cause?: unknown): OperatorError {
  return new OperatorError('DATA_DIR_EXPOSED', `${dataDir} can be written by everybody on this machine`, {
    next: `give the gateway a directory of its own (a new one below it will do), or let its owner take that away: chmod o-w ${dataDir}`,
    cause,
  });
}

/**
 * SQLite gives -wal and -shm the mode of the database file, so the file is made, and closed to others, before SQLite sees it.
 * A file that exists is not opened: closing it again would free every lock that this process has on it.
 * @throws {OperatorError} `FILE_LINKED` where something else than a file is in its place: SQLite would follow a link
 */
export function makePrivate(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  try {
    closeSync(openSync(path, O_WRONLY | O_CREAT | O_EXCL, 0o600));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  for (const file of [path, `${path}-wal`, `${path}-shm`]) {
    const found = kindOf(file);
    if (found === null) continue;
    if (!found.isFile()) {
      throw new OperatorError('FILE_LINKED', `${file} is a link or something else that is no file`, {
        next: 'put the file itself there; to keep data elsewhere, set dataDir',
      });
    }
    chmodSync(file, 0o600);
  }
}

/** What is at a path, itself and not where it leads. */
function kindOf(path: string): Stats | null {
  return lstatSync(path, { throwIfNoEntry: false }) ?? null;
}
