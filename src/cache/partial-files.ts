import { constants, readFileSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Mutex } from '../kit/async.ts';
import type { Extent, IntervalSet } from '../kit/interval-set.ts';
import { CacheError } from './blob-cache.ts';
import { type FillKey, type Layout, type PartialName, partialName, SharedFile } from './files.ts';

/** What can be relied on of the partial file of an earlier fill. */
export interface Held {
  /** Whose bytes they are. */
  readonly registry: string;
  /** Of the whole blob, where the upstream said it. */
  readonly size: number | undefined;
  readonly extents: readonly Extent[];
}

/**
 * Opens the partial file of an earlier fill for reading and writing; null where there is none, or none of its bytes can be relied on.
 * Synchronous: a client waits, mostly there is no such file, and a turn of the thread pool would take longer than the look.
 */
export function reopenPartial(layout: Layout, key: FillKey): ({ file: SharedFile } & Held) | null {
  const name = partialName(key);
  const held = readHeld(layout, key);
  if (held === null) return null;
  let file: SharedFile;
  try {
    file = SharedFile.open(layout.partial(name), 'r+');
  } catch {
    return null;
  }
  const end = Math.max(...held.extents.map(({ to }) => to));
  if (file.stat.size >= end && (held.size === undefined || held.size >= end)) return { file, ...held };
  file.release();
  return null;
}

/** What the record of a partial file says; null where there is none. */
export function readHeld(layout: Layout, key: FillKey): Held | null {
  const held = parseHeld(readNow(layout.held(partialName(key))));
  return held?.registry === key.registry ? held : null;
}

function readNow(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Moves a partial file, complete and synced, to where blobs lie. Returns its new path. */
export async function promote(layout: Layout, key: FillKey): Promise<string> {
  const name = partialName(key);
  const path = layout.blob(key.digest);
  await rename(layout.partial(name), path).catch(async () => {
    // Most likely the directory does not exist yet; if the reason is another, the second attempt fails for it too.
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await rename(layout.partial(name), path);
  });
  await rm(layout.held(name), { force: true });
  return path;
}

/** Removes a partial file; first its record, so that a crash in between leaves nothing that claims bytes. */
export async function dropPartial(layout: Layout, name: PartialName): Promise<void> {
  await rm(layout.held(name), { force: true });
  await rm(`${layout.held(name)}.new`, { force: true });
  await rm(layout.partial(name), { force: true });
}

/** What the `.held` file says. */
interface HeldRecord {
  readonly registry: string;
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

const { O_CREAT, O_NOFOLLOW, O_TRUNC, O_WRONLY } = constants;
/** Anew, and never through a symbolic link: whoever could make one would choose which file is overwritten. */
const WRITE_ANEW = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW;

async function writeHeld(layout: Layout, key: FillKey, held: HeldRecord): Promise<void> {
  const path = layout.held(partialName(key));
  const pairs = (extents: readonly Extent[]) => extents.map(({ from, to }) => [from, to]);
  const text = JSON.stringify({
    registry: held.registry,
    size: held.size ?? null,
    extents: pairs(held.synced),
    ...(BOOT === null ? {} : { written: { boot: BOOT, extents: pairs(held.written) } }),
  });
  try {
    await writeFile(`${path}.new`, text, { mode: 0o600, flag: WRITE_ANEW });
    await rename(`${path}.new`, path);
  } catch (error) {
    await rm(`${path}.new`, { force: true }).catch(() => {});
    throw error;
  }
}

/** Reads a `.held` record. Null where the text is cut short, as after a crash in the middle of writing it, where it claims no bytes, or names no registry. */
export function parseHeld(text: string, boot = BOOT): Held | null {
  try {
    const { registry, size, extents, written } = JSON.parse(text) as {
      registry: unknown;
      size: unknown;
      extents: unknown;
      written?: { boot: unknown; extents: unknown };
    };
    const sameBoot = written !== undefined && boot !== null && written.boot === boot;
    const claimed = parseExtents(sameBoot ? written.extents : extents);
    if (claimed.length === 0 || typeof registry !== 'string') return null;
    return { registry, size: isOffset(size) ? size : undefined, extents: claimed };
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
  readonly #key: FillKey;
  readonly #syncs: Mutex;
  readonly #limits: RecordLimits;
  readonly #failed: (error: CacheError) => void;
  #running: Promise<void> | null = null;
  #syncing: Promise<void> | null = null;
  #last = { bytes: 0, at: performance.now() };
  #synced: readonly Extent[] = [];
  #syncedAt = performance.now();

  /** `syncs` is shared by all fills: they sync one after the other. */
  constructor(options: {
    layout: Layout;
    key: FillKey;
    syncs: Mutex;
    limits: RecordLimits;
    failed: (error: CacheError) => void;
  }) {
    this.#layout = options.layout;
    this.#key = options.key;
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
    if (performance.now() - this.#syncedAt >= this.#limits.syncInterval) this.#syncing ??= this.#sync(growth);
    // Not behind the sync, which may wait long for its turn: the process may end before it, and what came meanwhile is not lost with it.
    this.#running = this.#write(growth).finally(() => {
      this.#running = null;
    });
  }

  /** Resolves when no record is being written. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /**
   * To be called when all has come, and before a sync that may wait long for its turn: where more has come during the last record than a restart may
   * lose, it is recorded now.
   */
  async catchUp(growth: Growth): Promise<void> {
    await this.idle();
    if (growth.written.bytes - this.#last.bytes >= this.#limits.recordBytes) await this.#write(growth);
  }

  /** Syncs the data, and then writes the record that claims it. To be called when nothing more is written. */
  async record(growth: Growth): Promise<void> {
    await this.idle();
    await this.#syncing;
    await this.#sync(growth);
    await this.#write(growth);
  }

  /** The next record claims what is synced. */
  async #sync({ file, written }: Growth): Promise<void> {
    const extents = written.list();
    try {
      await this.#syncs.run(() => file.sync(false));
      this.#synced = extents;
      this.#syncedAt = performance.now();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#syncing = null;
    }
  }

  async #write({ written, size }: Growth): Promise<void> {
    const extents = written.list();
    this.startFrom(written.bytes);
    if (extents.length === 0) return;
    try {
      const { registry } = this.#key;
      await writeHeld(this.#layout, this.#key, { registry, size, written: extents, synced: this.#synced });
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    const { message } = error as Error;
    this.#failed(new CacheError('disk', `cannot record what is held of ${this.#key.digest}: ${message}`, error));
  }
}
