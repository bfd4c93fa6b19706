import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, type FileHandle, lstat, open, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { appear } from '../../kit/durable-files.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { digestAlgorithm, digestHex } from '../../oci/names.ts';
import { type ArchivePoint, type ArchiveTarget, BEGINNING, CHUNK } from './archive-writer.ts';
import type { ArchiveLayout, Piece } from './members.ts';

/** What an earlier run has left. */
export type Leftover =
  | 'none'
  /** The beginning of this archive; it is gone on with. */
  | 'same'
  /** Of another archive: other images, options or contents. It was thrown away. */
  | 'other';

/**
 * An archive in a file that appears under its name once it is whole. Until then it is `FILE.partial` beside it, which a later run goes on with: an archive is
 * the same whenever it is written, so that what is there can be held against what should be. Two that write the same archive at once write the same bytes.
 */
export class ArchiveFile implements ArchiveTarget {
  readonly rewinds = true;
  readonly #path: string;
  readonly #partial: string;
  readonly #file: FileHandle;
  /** From where it has to be written. */
  readonly from: ArchivePoint;
  readonly leftover: Leftover;

  private constructor(path: string, file: FileHandle, from: ArchivePoint, leftover: Leftover) {
    this.#path = path;
    this.#partial = partialPath(path);
    this.#file = file;
    this.from = from;
    this.leftover = leftover;
  }

  /**
   * Opens what is there, and checks every byte of it, or begins.
   * @throws {OperatorError} `SAVE_UNWRITABLE`
   */
  static async open(path: string, layout: ArchiveLayout, signal: AbortSignal): Promise<ArchiveFile> {
    const partial = partialPath(path);
    return await explained(path, async () => {
      const found = await openLeftover(partial);
      if (found === null) return new ArchiveFile(path, await create(partial), BEGINNING, 'none');
      try {
        const from = await compare(found, layout, signal);
        if (from !== null) return new ArchiveFile(path, found, from, from.at === 0 ? 'none' : 'same');
      } catch (error) {
        await found.close();
        throw error;
      }
      await found.close();
      // Whoever still writes it goes on in a file without a name.
      await rm(partial, { force: true });
      return new ArchiveFile(path, await create(partial), BEGINNING, 'other');
    });
  }

  /** @throws {OperatorError} `SAVE_UNWRITABLE` */
  async write(bytes: Uint8Array, at: number): Promise<void> {
    await explained(this.#path, async () => {
      let written = 0;
      while (written < bytes.length) {
        const { bytesWritten } = await this.#file.write(bytes, written, bytes.length - written, at + written);
        written += bytesWritten;
      }
    });
  }

  /**
   * Gives it its name, once it is on the disk.
   * @param replace what has the name already
   * @throws {OperatorError} `SAVE_EXISTS`, `SAVE_UNWRITABLE`
   */
  async keep({ replace }: { readonly replace: boolean }): Promise<void> {
    await explained(this.#path, async () => {
      await this.#file.sync();
      const { ino, dev } = await this.#file.stat();
      const isOurs = (found: { ino: number; dev: number } | null) => found?.ino === ino && found.dev === dev;
      if (isOurs(await lstat(this.#partial).catch(() => null))) await appear(this.#partial, this.#path, { replace });
      // Another that wrote the same archive at the same time was faster.
      else if (!isOurs(await lstat(this.#path).catch(() => null)))
        throw new OperatorError('SAVE_UNWRITABLE', `another command has begun to write ${this.#path} meanwhile`, {
          next: 'let one command at a time write a file',
        });
    });
    await this.#file.close();
  }

  /** Leaves what is there for a later run. May be called more than once. */
  async leave(): Promise<void> {
    await this.#file.close().catch(() => {});
  }
}

/** Beside the file, so that it is on the same disk. */
function partialPath(path: string): string {
  return `${path}.partial`;
}

/** Refuses a name that is taken, or where nothing can be written, before anything is fetched. @throws {OperatorError} `SAVE_EXISTS`, `SAVE_UNWRITABLE` */
export async function checkFree(path: string, { replace }: { readonly replace: boolean }): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found === null) return await explained(path, () => access(dirname(path), constants.W_OK));
  if (!found.isFile())
    throw new OperatorError('SAVE_UNWRITABLE', `${path} is there and is no file`, {
      next: 'give the name of a file; - for standard output',
    });
  if (!replace) throw exists(path);
}

/** With the mode that the umask leaves, as other programs that write archives. */
async function create(partial: string): Promise<FileHandle> {
  return await open(partial, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, 0o666);
}

/** What an earlier run of the same user has left; null where there is nothing. */
async function openLeftover(partial: string): Promise<FileHandle | null> {
  let file: FileHandle;
  try {
    file = await open(partial, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  const found = await file.stat();
  // What somebody else has put there, in a directory that all may write to, he could change after it was checked.
  const isOwn = process.getuid === undefined || found.uid === process.getuid();
  if (found.isFile() && found.nlink === 1 && isOwn) return file;
  await file.close();
  throw new OperatorError('SAVE_UNWRITABLE', `${partial} is there, and this command has not made it`, {
    next: 'remove it, or choose another place for the archive',
  });
}

/** How far a file is this archive, blobs by their digests; null where it is another one. */
async function compare(file: FileHandle, layout: ArchiveLayout, signal: AbortSignal): Promise<ArchivePoint | null> {
  const { size } = await file.stat();
  if (size > layout.length) return null;
  const buffer = Buffer.allocUnsafe(CHUNK);
  for (const piece of layout.pieces) {
    const there = Math.min(piece.length, size - piece.at);
    if (there <= 0) return { at: size, hash: null };
    const hash = 'member' in piece ? createHash(digestAlgorithm(piece.member.blob.digest)) : null;
    let same = true;
    for (let done = 0; done < there && same; ) {
      signal.throwIfAborted();
      const { bytesRead } = await file.read(buffer, 0, Math.min(CHUNK, there - done), piece.at + done);
      if (bytesRead === 0) return { at: piece.at, hash: null };
      const bytes = buffer.subarray(0, bytesRead);
      if (hash !== null) hash.update(bytes);
      else same = bytes.equals((piece as Extract<Piece, { bytes: Uint8Array }>).bytes.subarray(done, done + bytesRead));
      done += bytesRead;
    }
    if (there < piece.length && same) return { at: size, hash };
    if (hash !== null)
      same = hash.digest('hex') === digestHex((piece as Extract<Piece, { member: unknown }>).member.blob.digest);
    if (!same) return piece.at < layout.headLength ? null : { at: piece.at, hash: null };
  }
  return { at: size, hash: null };
}

async function explained<T>(path: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    const { code, syscall, message } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw exists(path);
    if (error instanceof OperatorError || syscall === undefined) throw error;
    const isFull = code === 'ENOSPC' || code === 'EDQUOT';
    throw new OperatorError(
      'SAVE_UNWRITABLE',
      isFull ? `the disk is full: ${path} is not whole yet` : `${path} cannot be written: ${message}`,
      {
        cause: error,
        ...(isFull ? { next: 'make room and run the same command again: it goes on where it stopped' } : {}),
      },
    );
  }
}

function exists(path: string): OperatorError {
  return new OperatorError('SAVE_EXISTS', `${path} is there already, and was left as it is`);
}
