import { readFileSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Mutex } from '../kit/async.ts';
import type { Extent, IntervalSet } from '../kit/interval-set.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../oci/digest.ts';
import { CacheError } from './blob-cache.ts';
import { SharedFile } from './shared-file.ts';

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
