import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { OperatorError } from '../../kit/operator-error.ts';

/** A file's bytes with what else is kept of it. */
export interface Stored {
  readonly bytes: Buffer;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

/** More than any configuration, and than any chain of links that leads somewhere (path_resolution(7)). */
const [MAX_BYTES, MAX_LINKS] = [8 * 1024 * 1024, 40];

/**
 * The files of a client's machine, or of a folder that stands for its root (`--root`), in which absolute links lead too. Commands touch a handful of
 * small files and have nothing else to do meanwhile, so this is synchronous.
 */
export class ClientFiles {
  readonly #root: string;
  readonly #home: string;
  readonly #cwd: string;

  constructor(options: { readonly root: string; readonly home: string; readonly cwd: string }) {
    this.#root = options.root;
    this.#home = options.home;
    this.#cwd = options.cwd;
  }

  /** Where a path leads, all links followed; the file itself need not be there. @throws {OperatorError} CLIENT_FILE_REFUSED */
  resolve(path: string): string {
    // What is named without a folder is in the one where the person is, whatever the root.
    const near = !/^~?\//.test(path);
    const root = near ? '' : this.#root;
    const whole = near ? join(this.#cwd, path) : path.replace(/^~\//, `${this.#home}/`);
    const left = whole.split('/').filter((part) => part !== '');
    let at = '';
    for (let links = 0; left.length > 0; ) {
      const part = left.shift() as string;
      if (part === '.') continue;
      if (part === '..') {
        at = dirname(at).replace(/^[/.]$/, '');
        continue;
      }
      const next = `${at}/${part}`;
      const link = linkAt(join('/', root, next));
      if (link === null) {
        at = next;
        continue;
      }
      links += 1;
      if (links > MAX_LINKS) throw refused(path, 'its links lead round and round');
      left.unshift(...link.split('/').filter((one) => one !== ''));
      if (link.startsWith('/')) at = '';
    }
    return join('/', root, at);
  }

  /** Null where there is none. @throws {OperatorError} CLIENT_FILE_REFUSED */
  read(path: string): Stored | null {
    const target = this.resolve(path);
    try {
      const found = statSync(target, { throwIfNoEntry: false });
      if (found === undefined) return null;
      if (!found.isFile()) throw refused(path, 'it is no file');
      if (found.size > MAX_BYTES) throw refused(path, `it is larger than ${MAX_BYTES} bytes`);
      return { bytes: readFileSync(target), mode: found.mode & 0o7777, uid: found.uid, gid: found.gid };
    } catch (error) {
      if (error instanceof OperatorError) throw error;
      if ((error as NodeJS.ErrnoException).code === 'ENOTDIR') return null;
      throw failed('read', path, error);
    }
  }

  list(folder: string): string[] {
    try {
      return readdirSync(this.resolve(folder));
    } catch {
      return [];
    }
  }

  /** Makes the folders that a file needs; returns those that were not there, outermost first, as the file system names them. */
  makeFolders(path: string): string[] {
    const missing: string[] = [];
    for (let at = dirname(this.resolve(path)); statSync(at, { throwIfNoEntry: false }) === undefined; at = dirname(at))
      missing.unshift(at);
    try {
      for (const folder of missing) mkdirSync(folder, { mode: 0o755 });
    } catch (error) {
      throw failed('written', path, error);
    }
    return missing;
  }

  /** Writes a whole file in place of what is there, with its owner and mode, so that no reader ever sees a part of it. Its folder is there. */
  write(path: string, { bytes, mode, uid, gid }: Stored): void {
    const target = this.resolve(path);
    const temporary = `${target}.${randomBytes(6).toString('hex')}.tmp`;
    try {
      const file = openSync(temporary, 'wx', 0o600);
      try {
        writeSync(file, bytes);
        // Only root may give a file away; whoever may not writes files of their own.
        const own = statSync(temporary);
        if (own.uid !== uid || own.gid !== gid) fchownSync(file, uid, gid);
        fchmodSync(file, mode);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, target);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw failed('written', path, error);
    }
  }

  remove(path: string): void {
    try {
      rmSync(this.resolve(path), { force: true });
    } catch (error) {
      throw failed('removed', path, error);
    }
  }

  /** Removes those of these folders that are empty; each stands before those in it. */
  removeEmpty(folders: readonly string[]): void {
    for (const folder of [...new Set(folders)].sort().toReversed()) {
      try {
        rmdirSync(folder);
      } catch {
        // Somebody has put something else there.
      }
    }
  }
}

export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function linkAt(path: string): string | null {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : null;
  } catch {
    return null;
  }
}

function refused(path: string, why: string): OperatorError {
  return new OperatorError('CLIENT_FILE_REFUSED', `${path} cannot be taken: ${why}`);
}

function failed(what: string, path: string, cause: unknown): OperatorError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const isRoot = process.getuid?.() === 0;
  const next =
    (code === 'EACCES' || code === 'EPERM') && !isRoot
      ? 'run the command as root (sudo), or as the user whose file it is'
      : code === 'EPERM'
        ? 'even root may not: see whether it or its folder is immutable (lsattr -d), and what else manages it'
        : code === 'EROFS'
          ? 'this system is configured from elsewhere (an image, a package, a tool): put the file there'
          : 'check the path, its permissions and its disk';
  return new OperatorError('CLIENT_FILE_FAILED', `${path} cannot be ${what}: ${message}`, { next, cause });
}
