import { createHash } from 'node:crypto';
import { close, fdatasync, fstatSync, fsync, openSync, read, readFileSync, writev, writevSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Mutex } from '../kit/async.ts';
import type { Extent, IntervalSet } from '../kit/interval-set.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../oci/names.ts';
import { CacheError } from './blob-cache.ts';

/**
 * Where the cache's files lie under the data directory:
 * `blobs/<algorithm>/<first 2 hex>/<hex>` are complete and verified; `partial/<algorithm>-<hex>` are files of fills that have not ended,
 * or that ended early, each with a `.held` record beside it that says which of its bytes can be relied on.
 */
export class Layout {
  readonly blobs: string;
  readonly partials: string;

  constructor(dataDir: string) {
    this.blobs = join(dataDir, 'blobs');
    this.partials = join(dataDir, 'partial');
  }

  blob(digest: Digest): string {
    const hex = digestHex(digest);
    return join(this.blobs, digestAlgorithm(digest), hex.slice(0, 2), hex);
  }

  partial(digest: Digest): string {
    return join(this.partials, `${digestAlgorithm(digest)}-${digestHex(digest)}`);
  }

  held(digest: Digest): string {
    return `${this.partial(digest)}.held`;
  }

  /** The digest that a file of `partial/` belongs to; null where the cache makes no file of that name. */
  partialDigest(name: string): Digest | null {
    return parseDigest(name.replace(/\.held(\.new)?$/, '').replace('-', ':'));
  }
}

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

/** What can be relied on of the partial file of an earlier fill. */
export interface Held {
  /** Of the whole blob, where the upstream said it. */
  readonly size: number | undefined;
  readonly extents: readonly Extent[];
}

/**
 * Opens the partial file of an earlier fill for reading and writing; null where there is none, or none of its bytes can be relied on.
 * Synchronous: a client waits, mostly there is no such file, and a turn of the thread pool would take longer than the look.
 */
export function reopenPartial(layout: Layout, digest: Digest): ({ file: SharedFile } & Held) | null {
  const held = parseHeld(readNow(layout.held(digest)));
  if (held === null) return null;
  let file: SharedFile;
  try {
    file = SharedFile.open(layout.partial(digest), 'r+');
  } catch {
    return null;
  }
  const end = Math.max(...held.extents.map(({ to }) => to));
  if (file.size >= end && (held.size === undefined || held.size >= end)) return { file, ...held };
  file.release();
  return null;
}

function readNow(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Moves a partial file, complete and synced, to where blobs lie. Returns its new path. */
export async function promote(layout: Layout, digest: Digest): Promise<string> {
  const path = layout.blob(digest);
  await rename(layout.partial(digest), path).catch(async () => {
    // Most likely the directory does not exist yet; if the reason is another, the second attempt fails for it too.
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await rename(layout.partial(digest), path);
  });
  await rm(layout.held(digest), { force: true });
  return path;
}

/** Removes a partial file; first its record, so that a crash in between leaves nothing that claims bytes. */
export async function dropPartial(layout: Layout, digest: Digest): Promise<void> {
  await rm(layout.held(digest), { force: true });
  await rm(`${layout.held(digest)}.new`, { force: true });
  await rm(layout.partial(digest), { force: true });
}

/** What the `.held` file says. */
interface HeldRecord {
  readonly size: number | undefined;
  /** Given to the operating system: survives the end of this process, but not a crash of the machine. */
  readonly written: readonly Extent[];
  /** Synced: survives a power cut. */
  readonly synced: readonly Extent[];
}

/** The identity of this boot of the machine (Linux). Null elsewhere: then only synced extents count after a restart of the process. */
const BOOT = readBoot();

function readBoot(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return null;
  }
}

async function writeHeld(layout: Layout, digest: Digest, held: HeldRecord): Promise<void> {
  const path = layout.held(digest);
  const pairs = (extents: readonly Extent[]) => extents.map(({ from, to }) => [from, to]);
  const text = JSON.stringify({
    size: held.size ?? null,
    extents: pairs(held.synced),
    ...(BOOT === null ? {} : { written: { boot: BOOT, extents: pairs(held.written) } }),
  });
  try {
    await writeFile(`${path}.new`, text, { mode: 0o600 });
    await rename(`${path}.new`, path);
  } catch (error) {
    await rm(`${path}.new`, { force: true }).catch(() => {});
    throw error;
  }
}

/** Reads a `.held` record. Null where the text is cut short, as after a crash in the middle of writing it, or where it claims no bytes. */
export function parseHeld(text: string, boot = BOOT): Held | null {
  try {
    const { size, extents, written } = JSON.parse(text) as {
      size: unknown;
      extents: unknown;
      written?: { boot: unknown; extents: unknown };
    };
    const sameBoot = written !== undefined && boot !== null && written.boot === boot;
    const claimed = parseExtents(sameBoot ? written.extents : extents);
    return claimed.length === 0 ? null : { size: isOffset(size) ? size : undefined, extents: claimed };
  } catch {
    return null;
  }
}

function parseExtents(value: unknown): Extent[] {
  return (value as unknown[]).map((pair) => {
    const [from, to] = pair as unknown[];
    if (!isOffset(from) || !isOffset(to) || from >= to) throw new RangeError('no extent');
    return { from, to };
  });
}

function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** What there is to record of a partial file. */
interface Growth {
  readonly file: SharedFile;
  readonly written: IntervalSet;
  readonly size: number | undefined;
}

/** How often a `.held` record is written, and how often the data is synced. */
export interface RecordLimits {
  /** The record is written anew after this many bytes … */
  readonly recordBytes: number;
  /** … or this many ms, whichever comes first, if any bytes came. */
  readonly recordInterval: number;
  /** The data is synced no more often than this, ms: only a power cut needs it, and every sync delays the writes behind it. */
  readonly syncInterval: number;
}

/**
 * Writes the `.held` record of a growing file from time to time, so that the fill can be resumed after a restart. A failure to write it is
 * reported and costs nothing but that.
 */
export class HeldRecorder {
  readonly #layout: Layout;
  readonly #digest: Digest;
  readonly #syncs: Mutex;
  readonly #limits: RecordLimits;
  readonly #failed: (error: CacheError) => void;
  #running: Promise<void> | null = null;
  #last = { bytes: 0, at: performance.now() };
  #synced: readonly Extent[] = [];
  #syncedAt = performance.now();

  /** `syncs` is shared by all fills: they sync one after the other. */
  constructor(options: {
    layout: Layout;
    digest: Digest;
    syncs: Mutex;
    limits: RecordLimits;
    failed: (error: CacheError) => void;
  }) {
    this.#layout = options.layout;
    this.#digest = options.digest;
    this.#syncs = options.syncs;
    this.#limits = options.limits;
    this.#failed = options.failed;
  }

  /** So many bytes are recorded already. */
  startFrom(bytes: number): void {
    this.#last = { bytes, at: performance.now() };
  }

  /** To be called after each write: writes a record where enough bytes have come, or enough time has passed. */
  grown(growth: Growth): void {
    const fresh = growth.written.bytes - this.#last.bytes;
    const due =
      fresh >= this.#limits.recordBytes ||
      (fresh > 0 && performance.now() - this.#last.at >= this.#limits.recordInterval);
    if (!due || this.#running !== null) return;
    const sync = performance.now() - this.#syncedAt >= this.#limits.syncInterval;
    this.#running = this.record(growth, { sync }).finally(() => {
      this.#running = null;
    });
  }

  /** Resolves when no record is being written. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** Syncs the data first, where it is to be synced, and then writes the record that claims it. */
  async record({ file, written, size }: Growth, { sync }: { readonly sync: boolean }): Promise<void> {
    const extents = written.list();
    this.startFrom(written.bytes);
    if (extents.length === 0) return;
    try {
      if (sync) {
        await this.#syncs.run(() => file.sync(false));
        this.#synced = extents;
        this.#syncedAt = performance.now();
      }
      await writeHeld(this.#layout, this.#digest, { size, written: extents, synced: this.#synced });
    } catch (error) {
      const { message } = error as Error;
      this.#failed(new CacheError('disk', `cannot record what is held of ${this.#digest}: ${message}`, error));
    }
  }
}
