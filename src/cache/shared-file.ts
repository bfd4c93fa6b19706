import { createHash } from 'node:crypto';
import { close, fdatasync, fstatSync, fsync, openSync, read, writev, writevSync } from 'node:fs';
import { type Digest, digestAlgorithm, digestHex } from '../oci/digest.ts';

/**
 * One file descriptor for all users of a blob, closed when the last has released it. Every read and write counts as a user as well, so that
 * a descriptor number that the kernel has given to another file meanwhile is never read by mistake.
 */
export class SharedFile {
  readonly #fd: number;
  #users = 1;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** @throws the system's error (`ENOENT`, `EMFILE` …). Synchronous: an open of a local file costs less than a turn of the loop. */
  static open(path: string, flags: 'r' | 'r+' | 'wx+'): SharedFile {
    return new SharedFile(openSync(path, flags, 0o600));
  }

  /** Makes a new file; null where there is one of this name. @throws the system's error */
  static openNew(path: string): SharedFile | null {
    try {
      return SharedFile.open(path, 'wx+');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return null;
      throw error;
    }
  }

  get size(): number {
    return fstatSync(this.#fd).size;
  }

  retain(): this {
    this.#users++;
    return this;
  }

  release(): void {
    this.#users--;
    if (this.#users === 0) close(this.#fd, () => {});
  }

  /** Reads at most `length` bytes at `position` into the start of `into`; 0 past the end of the file. */
  read(into: Uint8Array, length: number, position: number): Promise<number> {
    this.#users++;
    return new Promise((resolve, reject) => {
      read(this.#fd, into, 0, length, position, (error, count) => {
        this.release();
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }

  /**
   * Writes all of the chunks, one after the other, from `position` on.
   * @param now begins synchronously, without the thread pool: for few bytes that a client waits for
   */
  async write(chunks: readonly Uint8Array[], position: number, now = false): Promise<void> {
    const begun = now ? writevSync(this.#fd, chunks, position) : 0;
    let rest = begun === 0 ? chunks : remaining(chunks, begun);
    let at = position + begun;
    while (rest.length > 0) {
      const count = await this.#writeSome(rest, at);
      if (count === 0) throw Object.assign(new Error('the disk took no bytes'), { code: 'ENOSPC' });
      at += count;
      rest = remaining(rest, count);
    }
  }

  /** Puts the bytes on the disk; `whole` includes the file's metadata (`fsync`), as for a file that is about to be renamed. */
  sync(whole: boolean): Promise<void> {
    this.#users++;
    return new Promise((resolve, reject) => {
      (whole ? fsync : fdatasync)(this.#fd, (error) => {
        this.release();
        if (error === null) resolve();
        else reject(error);
      });
    });
  }

  #writeSome(chunks: readonly Uint8Array[], position: number): Promise<number> {
    this.#users++;
    return new Promise((resolve, reject) => {
      writev(this.#fd, chunks, position, (error, count) => {
        this.release();
        if (error === null) resolve(count);
        else reject(error);
      });
    });
  }
}

/** What is left of the chunks once `count` bytes are written: a nearly full disk takes a part. */
function remaining(chunks: readonly Uint8Array[], count: number): readonly Uint8Array[] {
  let rest = count;
  for (const [index, chunk] of chunks.entries()) {
    if (rest < chunk.length) return [chunk.subarray(rest), ...chunks.slice(index + 1)];
    rest -= chunk.length;
  }
  return [];
}

/** Bytes read and hashed at once: little enough that the hash never holds the event loop for long. */
const HASH_STEP = 256 * 1024;

/** Reads a file from end to end. Returns its size, and whether its bytes are those of the digest. @throws the system's error. */
export async function hashFile(
  path: string,
  digest: Digest,
  signal?: AbortSignal,
): Promise<{ readonly right: boolean; readonly size: number }> {
  const file = SharedFile.open(path, 'r');
  try {
    const hash = createHash(digestAlgorithm(digest));
    const buffer = Buffer.allocUnsafe(HASH_STEP);
    let size = 0;
    for (;;) {
      signal?.throwIfAborted();
      const count = await file.read(buffer, buffer.length, size);
      if (count === 0) return { right: hash.digest('hex') === digestHex(digest), size };
      hash.update(buffer.subarray(0, count));
      size += count;
    }
  } finally {
    file.release();
  }
}
