import { createHash } from 'node:crypto';
import {
  close,
  constants,
  fdatasync,
  fstatSync,
  fsync,
  ftruncate,
  mkdirSync,
  openSync,
  read,
  writev,
  writevSync,
} from 'node:fs';
import { join } from 'node:path';
import { type CredentialId, DEFAULT_CREDENTIAL } from '../oci/credentials.ts';
import { type BlobKey, type Digest, digestAlgorithm, digestHex, parseDigest } from '../oci/names.ts';

/**
 * Whose bytes a growing or partial file holds: until its digest has proved right, it is one registry's word. Where its repository has
 * credentials, they may have opened it (`opener`): who comes by others, or by none, gets nothing of it.
 */
export interface FillKey extends Pick<BlobKey, 'registry' | 'digest'> {
  /** Left out, or null: none. */
  readonly opener?: CredentialId | null;
}

/** The name of a partial file: of a digest and of the registry that its bytes come from. */
export type PartialName = string & { readonly __partial: unique symbol };

/** Hex digits of the registry's hash in the name of a partial file: no two registries of a table share them. */
const REGISTRY_DIGITS = 24;

/**
 * Where the cache's files lie under the data directory:
 * `blobs/<algorithm>/<first 2 hex>/<hex>` are complete and verified; `partial/<algorithm>-<hex>-<hash of the registry>` are files of fills that
 * have not ended, or that ended early, each with a `.held` record beside it that says which of its bytes can be relied on.
 */
export class Layout {
  readonly blobs: string;
  readonly partials: string;

  constructor(dataDir: string) {
    this.blobs = join(dataDir, 'blobs');
    this.partials = join(dataDir, 'partial');
  }

  /** Makes the directories; `failed` is told of each that cannot be made. */
  make(failed: (path: string, error: unknown) => void): void {
    for (const path of [this.blobs, this.partials]) {
      try {
        mkdirSync(path, { recursive: true, mode: 0o700 });
      } catch (error) {
        failed(path, error);
      }
    }
  }

  blob(digest: Digest): string {
    const hex = digestHex(digest);
    return join(this.blobs, digestAlgorithm(digest), hex.slice(0, 2), hex);
  }

  partial(name: PartialName): string {
    return join(this.partials, name);
  }

  held(name: PartialName): string {
    return `${this.partial(name)}.held`;
  }
}

export function partialName({ registry, digest, opener = null }: FillKey): PartialName {
  // No host has a space. The registry's own credentials have the name of files from when there were no others.
  const source =
    opener === null ? registry : opener === DEFAULT_CREDENTIAL ? `${registry} closed` : `${registry} closed ${opener}`;
  const hash = createHash('sha256').update(source).digest('hex').slice(0, REGISTRY_DIGITS);
  return `${digestAlgorithm(digest)}-${digestHex(digest)}-${hash}` as PartialName;
}

/**
 * The partial file that a file of `partial/` is or belongs to; null where the cache makes no file of that name. Names without a registry are
 * those of earlier versions: no record fits them any more, so they are dropped.
 */
export function partialNameOf(file: string): PartialName | null {
  const name = file.replace(/\.held(\.new)?$/, '');
  const [algorithm, hex, registry] = name.split('-');
  const known = parseDigest(`${algorithm}:${hex}`) !== null && (registry === undefined || /^[0-9a-f]+$/.test(registry));
  return known ? (name as PartialName) : null;
}

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
/** Never through a symbolic link: what the cache reads and writes are files of its own. */
const OPEN_FLAGS = { r: O_RDONLY | O_NOFOLLOW, 'r+': O_RDWR | O_NOFOLLOW, 'wx+': O_RDWR | O_CREAT | O_EXCL } as const;

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
  static open(path: string, flags: keyof typeof OPEN_FLAGS): SharedFile {
    return new SharedFile(openSync(path, OPEN_FLAGS[flags], 0o600));
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

  get stat(): { readonly size: number; readonly mtimeMs: number } {
    return fstatSync(this.#fd);
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

  /** Drops what lies behind the first `size` bytes. @throws the system's error */
  async cutTo(size: number): Promise<void> {
    if (this.stat.size <= size) return;
    this.#users++;
    await new Promise<void>((resolve, reject) => {
      ftruncate(this.#fd, size, (error) => {
        this.release();
        if (error === null) resolve();
        else reject(error);
      });
    });
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

/** Reads a file from end to end, with a pause after each step where there is one. Returns its size, and whether its bytes are those of the digest. @throws the system's error. */
export async function hashFile(
  path: string,
  digest: Digest,
  signal?: AbortSignal,
  pause?: () => Promise<void>,
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
      await pause?.();
    }
  } finally {
    file.release();
  }
}
