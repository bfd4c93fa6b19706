import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { elapsed, sleep, steadyNow } from '../kit/time.ts';
import { type Digest, parseDigest } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Eviction } from './eviction.ts';
import { hashFile, type Layout, type PartialName, partialNameOf } from './files.ts';
import type { BlobRow, CacheIndex } from './index-port.ts';
import { parseHeld } from './partial-files.ts';
import type { Pins } from './pins.ts';

/** Maintenance begins so long after the start, ms: readiness and the first pulls come first. */
const FIRST_AFTER = 2_000;
/** … and is repeated this often, ms. */
const INTERVAL = 6 * 60 * 60 * 1000;
/** A tag that nobody asked for, and a fact whose content is gone, are dropped after this, ms. Far longer than any answer may be stale. */
export const FORGET_AFTER = 30 * 24 * 60 * 60 * 1000;
/** Rows dropped, and file names or rows looked at, in one go. */
const DROP_BATCH = 256;
const RECONCILE_BATCH = 256;
/** Between two goes, ms, at least and at most … */
const LEAST_PAUSE = 2;
const MOST_PAUSE = 1_000;
/** … and by how much longer than the work before it: pulls have nine tenths of a core that both share. A million blobs take one or two minutes. */
const PAUSE_FACTOR = 9;
/** A partial file is kept for so long after it was last read or written, ms: after a day nobody comes back for the rest. */
const PARTIAL_MAX_AGE = 24 * 60 * 60 * 1000;

/** What maintenance and the operator's commands (prune, verify) need of the cache. */
export interface MaintenanceContext {
  readonly layout: Layout;
  readonly index: CacheIndex;
  readonly eviction: Eviction;
  /** What operators have pinned, which prune leaves alone. */
  readonly pins: Pins;
  readonly log: Logger;
  /** Read, filled or being removed now: its file must be left alone. */
  readonly busy: (id: Digest | PartialName) => boolean;
  /** Removes a kept blob whose file is damaged or gone, in use or not. Its readers continue from the upstream. */
  readonly dropDamaged: (row: BlobRow, reason: string) => Promise<void>;
  /** Removes the partial file of an ended fill, unless a new fill has resumed it. */
  readonly dropPartial: (name: PartialName) => Promise<void>;
  /** Writes to the index what is only in memory yet. */
  readonly flush: () => void;
  /** Drops answers kept in memory, after rows were dropped from the index directly. */
  readonly invalidate: () => void;
  /** Manifests whose bytes were wrong have left the index. */
  readonly manifestsDamaged: (digests: readonly Digest[]) => void;
  /** Bytes of blobs that this process has read for clients and fetched since its start. */
  readonly traffic: () => number;
}

/** The cache's work in the background: keeps index and directory in agreement, and drops rows that nobody needs any more. */
export class Maintenance {
  readonly #context: MaintenanceContext;
  readonly #abort = new AbortController();
  #running: Promise<void> = Promise.resolve();

  constructor(context: MaintenanceContext) {
    this.#context = context;
  }

  start(): void {
    this.#running = this.#run().catch(() => {});
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    await sleep(FIRST_AFTER, signal, { ref: false });
    for (;;) {
      await this.#once(signal).catch((error: unknown) => {
        if (signal.aborted) return;
        const message = 'putting the cache in order failed; it is tried again in six hours, or now by cache verify';
        this.#context.log.warn({ err: error }, message);
      });
      signal.throwIfAborted();
      await sleep(INTERVAL, signal, { ref: false });
    }
  }

  async #once(signal: AbortSignal): Promise<void> {
    const { index, eviction, log } = this.#context;
    const pause = pauses(signal);
    // First, since an eviction that came before it would have to do all of this at once.
    for (const _ of index.tidy()) await pause();
    const done = await reconcile(this.#context, signal);
    if (done.adopted + done.removed + done.missing > 0) log.info({ ...done }, 'the cache was put in order');
    await eviction.enforce().catch(() => {});
    while (index.settleTimes(steadyNow(), DROP_BATCH)) await pause();
    const before = steadyNow() - FORGET_AFTER;
    while (index.dropStaleTags(before, DROP_BATCH)) await pause();
    while (index.lists.dropBefore(before, DROP_BATCH)) await pause();
    while (index.dropStaleFacts(before, DROP_BATCH)) await pause();
    while (index.dropEmptyRepositories(DROP_BATCH)) await pause();
  }
}

/** Pauses for one piece of work in the background, each as long as its goes ask for. What one of them waited for counts as its work. */
function pauses(signal: AbortSignal): () => Promise<void> {
  let since = performance.now();
  return async () => {
    const worked = performance.now() - since;
    await sleep(Math.min(Math.max(LEAST_PAUSE, worked * PAUSE_FACTOR), MOST_PAUSE), signal);
    since = performance.now();
  };
}

export interface Reconciled {
  /** Files that the index did not know and whose bytes are right. */
  adopted: number;
  /** Files at the path of a blob whose bytes were wrong. */
  removed: number;
  /** Partial files that no fill can resume. */
  leftovers: number;
  /** Rows whose file is gone. */
  missing: number;
}

/**
 * Makes index and directory agree again, after a crash or a change by hand. It goes directory by directory while pulls go on; files in use
 * are left alone, and every decision is checked again at the moment when it is carried out.
 */
export async function reconcile(context: MaintenanceContext, signal: AbortSignal): Promise<Reconciled> {
  const result: Reconciled = { adopted: 0, removed: 0, leftovers: 0, missing: 0 };
  const pause = pauses(signal);
  await reconcilePartials(context, result);
  for (const algorithm of ['sha256', 'sha512']) {
    for (let prefix = 0; prefix < 256; prefix++) {
      signal.throwIfAborted();
      await reconcileDirectory(context, {
        algorithm,
        prefix: prefix.toString(16).padStart(2, '0'),
        result,
        signal,
        pause,
      });
    }
  }
  return result;
}

/** Partial files: those that a later fill can resume are counted by the eviction; the rest is removed, as are those that name no registry. */
async function reconcilePartials(
  { layout, eviction, dropPartial, busy }: MaintenanceContext,
  result: Reconciled,
): Promise<void> {
  const files = await readdir(layout.partials).catch(() => []);
  for (const name of new Set(files.map((file) => partialNameOf(file)))) {
    if (name === null || busy(name)) continue;
    const held = parseHeld(await readFile(layout.held(name), 'utf8').catch(() => ''));
    const file = await stat(layout.partial(name)).catch(() => null);
    // The record is written anew whenever a fill that used the file ends.
    const used = await stat(layout.held(name)).catch(() => null);
    if (busy(name)) continue;
    if (held !== null && file !== null && used !== null && elapsed(used.mtimeMs, Date.now()) < PARTIAL_MAX_AGE) {
      // Only parts of it may lie on the disk.
      const bytes = held.extents.reduce((sum, { from, to }) => sum + to - from, 0);
      eviction.addPartial(name, Math.min(file.size, bytes), used.mtimeMs);
    } else {
      await dropPartial(name);
      result.leftovers++;
    }
  }
}

/** One directory of blobs, those whose digest begins with `prefix`. */
interface Directory {
  readonly algorithm: string;
  readonly prefix: string;
  readonly result: Reconciled;
  readonly signal: AbortSignal;
  readonly pause: () => Promise<void>;
}

async function reconcileDirectory(context: MaintenanceContext, looked: Directory): Promise<void> {
  const { algorithm, prefix, result, signal, pause } = looked;
  const directory = join(context.layout.blobs, algorithm, prefix);
  const names = new Set(await readdir(directory).catch(() => []));
  if (names.size > RECONCILE_BATCH) await pause();
  for await (const digest of rowsOf(context, looked)) {
    if (!names.delete(digest.slice(algorithm.length + 1)) && (await isGone(context, digest))) result.missing++;
  }
  for (const name of names) {
    const digest = parseDigest(`${algorithm}:${name}`);
    // A file whose name is no digest is not the cache's, and stays.
    if (digest !== null && name.startsWith(prefix)) await adopt(context, digest, result, signal);
  }
}

/** Digests of the index whose files belong in one directory. */
async function* rowsOf({ index }: MaintenanceContext, { algorithm, prefix, pause }: Directory) {
  const length = algorithm === 'sha512' ? 128 : 64;
  const before = (Number.parseInt(prefix, 16) - 1).toString(16).padStart(2, '0');
  const start = prefix === '00' ? null : parseDigest(`${algorithm}:${before}${'f'.repeat(length - 2)}`);
  let after: Digest | null = prefix === '00' && algorithm === 'sha512' ? lastOf('sha256') : start;
  for (;;) {
    const rows = index.blobsAfter(after, RECONCILE_BATCH);
    for (const { digest } of rows) {
      if (!digest.startsWith(`${algorithm}:${prefix}`)) return;
      yield digest;
      after = digest;
    }
    if (rows.length < RECONCILE_BATCH) return;
    await pause();
  }
}

function lastOf(algorithm: 'sha256'): Digest | null {
  return parseDigest(`${algorithm}:${'f'.repeat(64)}`);
}

async function isGone({ layout, index, busy, dropDamaged }: MaintenanceContext, digest: Digest): Promise<boolean> {
  const there = await stat(layout.blob(digest)).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
  );
  const row = index.blob(digest);
  if (there || row === null || busy(digest)) return false;
  await dropDamaged(row, 'its file is gone');
  return true;
}

/** A file that the index does not know is kept where its bytes have the digest that its name says, and removed otherwise. */
async function adopt(
  context: MaintenanceContext,
  digest: Digest,
  result: Reconciled,
  signal: AbortSignal,
): Promise<void> {
  const { layout, index, busy } = context;
  const settled = (): boolean => busy(digest) || index.blob(digest) !== null;
  if (settled()) return;
  const path = layout.blob(digest);
  const hashed = await hashFile(path, digest, signal).catch((error: unknown) => {
    if (signal.aborted) throw error;
    return null;
  });
  const file = await stat(path).catch(() => null);
  if (settled() || hashed === null || file === null) return;
  if (hashed.right && hashed.size === file.size) {
    const now = steadyNow();
    index.addBlob({ digest, size: file.size, created: now, lastUse: Math.min(now, Math.floor(file.mtimeMs)) });
    result.adopted++;
  } else {
    await rm(path, { force: true }).catch(() => {});
    result.removed++;
  }
}
