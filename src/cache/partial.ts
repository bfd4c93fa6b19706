import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Extent } from '../kit/extent.ts';
import type { Digest } from '../oci/digest.ts';
import type { Layout } from './layout.ts';
import { SharedFile } from './shared-file.ts';

/** What a growing file has on disk for sure, as its `.held` file says. */
export interface Held {
  /** Of the whole blob, where the upstream said it. */
  readonly size: number | undefined;
  readonly extents: readonly Extent[];
}

/** The growing file of an earlier fill, opened for reading and writing; null where there is none worth taking up. */
export async function takeUp(layout: Layout, digest: Digest): Promise<({ file: SharedFile } & Held) | null> {
  const held = parseHeld(await readFile(layout.held(digest), 'utf8').catch(() => ''));
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

/** Writes the `.held` file. Call it only after the data was synced: it must never claim what a power cut can take back. */
export async function writeHeld(layout: Layout, digest: Digest, held: Held): Promise<void> {
  const path = layout.held(digest);
  const text = JSON.stringify({ size: held.size ?? null, extents: held.extents.map(({ from, to }) => [from, to]) });
  try {
    await writeFile(`${path}.new`, text, { mode: 0o600 });
    await rename(`${path}.new`, path);
  } catch (error) {
    await rm(`${path}.new`, { force: true }).catch(() => {});
    throw error;
  }
}

/** Puts a growing file, whole and synced, where blobs lie. Returns its new path. */
export async function promote(layout: Layout, digest: Digest): Promise<string> {
  const path = layout.blob(digest);
  await rename(layout.partial(digest), path).catch(async () => {
    // The first of its directory, most likely; if not, this fails for the same reason.
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await rename(layout.partial(digest), path);
  });
  await rm(layout.held(digest), { force: true });
  return path;
}

/** Removes a growing file. First what is claimed of it, then itself. */
export async function dropPartial(layout: Layout, digest: Digest): Promise<void> {
  await rm(layout.held(digest), { force: true });
  await rm(`${layout.held(digest)}.new`, { force: true });
  await rm(layout.partial(digest), { force: true });
}

/** Null where the text is not whole, as after a crash in the middle of it, or claims nothing. */
export function parseHeld(text: string): Held | null {
  try {
    const { size, extents } = JSON.parse(text) as { size: unknown; extents: unknown };
    if (!Array.isArray(extents) || extents.length === 0) return null;
    const parsed = extents.map((pair: unknown) => {
      const [from, to] = pair as unknown[];
      if (!isOffset(from) || !isOffset(to) || from >= to) throw new RangeError('no extent');
      return { from, to };
    });
    return { size: isOffset(size) ? size : undefined, extents: parsed };
  } catch {
    return null;
  }
}

function isOffset(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
