import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { sleep } from '../kit/time.ts';
import { type Digest, parseDigest } from '../oci/digest.ts';
import { hashFile } from './hash-file.ts';
import { parseHeld } from './partial.ts';
import type { Upkeep } from './upkeep.ts';

/** Names or rows looked at in one go, and the rest in between, ms: a million take half a minute and nobody notices. */
const BATCH = 256;
const PAUSE = 2;
/** What a fill left is kept for so long, ms; after a week nobody comes back for the rest. */
const LEFT_FOR = 7 * 24 * 60 * 60 * 1000;

export interface Reconciled {
  /** Files that the index did not know and whose bytes are right. */
  adopted: number;
  /** Files in the place of a blob whose bytes were wrong. */
  removed: number;
  /** Ends of fills that were not worth taking up. */
  leftovers: number;
  /** Rows whose file is gone. */
  missing: number;
}

/**
 * Makes index and directory agree, after a crash or a hand in the directory. Directory by directory, side by side with pulls;
 * what is busy is left alone, and every decision is checked again at the moment it is carried out.
 */
export async function reconcile(upkeep: Upkeep, signal: AbortSignal): Promise<Reconciled> {
  const result: Reconciled = { adopted: 0, removed: 0, leftovers: 0, missing: 0 };
  await reconcilePartials(upkeep, result);
  for (const algorithm of ['sha256', 'sha512']) {
    for (let prefix = 0; prefix < 256; prefix++) {
      signal.throwIfAborted();
      await reconcileDirectory(upkeep, algorithm, prefix.toString(16).padStart(2, '0'), result, signal);
    }
  }
  return result;
}

/** Fills that were cut off: what is whole of them is taken up later, and counts until then; the rest goes. */
async function reconcilePartials({ layout, room, dropPartial, busy }: Upkeep, result: Reconciled): Promise<void> {
  const names = await readdir(layout.partials).catch(() => []);
  const digests = new Set(names.map((name) => layout.partialDigest(name)));
  for (const digest of digests) {
    if (digest === null || busy(digest)) continue;
    const held = parseHeld(await readFile(layout.held(digest), 'utf8').catch(() => ''));
    const file = await stat(layout.partial(digest)).catch(() => null);
    if (busy(digest)) continue;
    if (held !== null && file !== null && file.mtimeMs > Date.now() - LEFT_FOR) room.left(digest, file.size);
    else {
      await dropPartial(digest);
      result.leftovers++;
    }
  }
}

async function reconcileDirectory(
  upkeep: Upkeep,
  algorithm: string,
  prefix: string,
  result: Reconciled,
  signal: AbortSignal,
): Promise<void> {
  const directory = join(upkeep.layout.blobs, algorithm, prefix);
  const names = new Set(await readdir(directory).catch(() => []));
  if (names.size > BATCH) await sleep(PAUSE, signal);
  for await (const digest of rowsOf(upkeep, algorithm, prefix, signal)) {
    if (!names.delete(digest.slice(algorithm.length + 1)) && (await isGone(upkeep, digest))) result.missing++;
  }
  for (const name of names) {
    const digest = parseDigest(`${algorithm}:${name}`);
    // A name that is no digest is not ours to remove.
    if (digest !== null && name.startsWith(prefix)) await adopt(upkeep, digest, result, signal);
  }
}

/** Digests of the index whose files belong into one directory. */
async function* rowsOf({ index }: Upkeep, algorithm: string, prefix: string, signal: AbortSignal) {
  const length = algorithm === 'sha512' ? 128 : 64;
  const before = (Number.parseInt(prefix, 16) - 1).toString(16).padStart(2, '0');
  const start = prefix === '00' ? null : parseDigest(`${algorithm}:${before}${'f'.repeat(length - 2)}`);
  let after: Digest | null = prefix === '00' && algorithm === 'sha512' ? lastOf('sha256') : start;
  for (;;) {
    const rows = index.blobsAfter(after, BATCH);
    for (const { digest } of rows) {
      if (!digest.startsWith(`${algorithm}:${prefix}`)) return;
      yield digest;
      after = digest;
    }
    if (rows.length < BATCH) return;
    await sleep(PAUSE, signal);
  }
}

function lastOf(algorithm: 'sha256'): Digest | null {
  return parseDigest(`${algorithm}:${'f'.repeat(64)}`);
}

async function isGone({ layout, index, busy, condemn }: Upkeep, digest: Digest): Promise<boolean> {
  const there = await stat(layout.blob(digest)).then(
    () => true,
    (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
  );
  const row = index.blob(digest);
  if (there || row === null || busy(digest)) return false;
  await condemn(row, 'its file is gone');
  return true;
}

/** Its bytes say whether it is a blob of ours: then it is worth keeping. */
async function adopt(upkeep: Upkeep, digest: Digest, result: Reconciled, signal: AbortSignal): Promise<void> {
  const { layout, index, busy } = upkeep;
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
    index.addBlob({ digest, size: file.size, created: Date.now(), lastUse: Math.floor(file.mtimeMs) });
    result.adopted++;
  } else {
    await rm(path, { force: true }).catch(() => {});
    result.removed++;
  }
}
