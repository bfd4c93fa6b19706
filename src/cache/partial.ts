import { readFileSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Extent } from '../kit/interval-set.ts';
import type { Digest } from '../oci/digest.ts';
import type { Layout } from './layout.ts';
import { SharedFile } from './shared-file.ts';

/** What of an earlier fill can be relied on. */
export interface Held {
  /** Of the whole blob, where the upstream said it. */
  readonly size: number | undefined;
  readonly extents: readonly Extent[];
}

/**
 * The growing file of an earlier fill, opened for reading and writing; null where there is none worth taking up. Synchronous: a client
 * waits, mostly there is nothing, and each turn of a thread would cost it more than the look.
 */
export function takeUp(layout: Layout, digest: Digest): ({ file: SharedFile } & Held) | null {
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

/** What the `.held` file says. */
export interface HeldRecord {
  readonly size: number | undefined;
  /** Given to the system; there as long as it is up, whatever becomes of this process. */
  readonly written: readonly Extent[];
  /** On the disk for sure: claim here only what a power cut cannot take back. */
  readonly synced: readonly Extent[];
}

/** Which run of the system this is (Linux); elsewhere nothing is known of it, and only what was synced counts after a restart. */
const BOOT = readBoot();

function readBoot(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return null;
  }
}

export async function writeHeld(layout: Layout, digest: Digest, held: HeldRecord): Promise<void> {
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

/** What of it can be relied on now. Null where the text is not whole, as after a crash in the middle of it, or nothing is claimed. */
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
