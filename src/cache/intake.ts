import { createHash } from 'node:crypto';
import { constants, rmSync, type Stats, statSync } from 'node:fs';
import { chmod, copyFile, link, lstat, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Mutex } from '../kit/async.ts';
import { steadyNow } from '../kit/time.ts';
import { type Digest, digestAlgorithm, digestHex, type RepositoryKey } from '../oci/names.ts';
import { isManifestDigest } from '../oci/schema1.ts';
import type { Reservation } from './eviction.ts';
import { hashFile, SharedFile } from './files.ts';
import type { Fact, TagRow } from './index-port.ts';
import type { MaintenanceContext } from './maintenance.ts';

/** What became of a blob that is in another program's store. */
export type Taken =
  | { readonly outcome: 'taken'; readonly bytes: number; readonly linked: boolean }
  | { readonly outcome: 'held' }
  | { readonly outcome: 'damaged'; readonly reason: string }
  | { readonly outcome: 'no-room' };

/** Port: what lies in another program's store is taken into the cache. What follows from it for clients is the caller's business. */
export interface Intake {
  /**
   * Takes a blob from a file, once its bytes have proved right. Nothing is dropped for it.
   * @param link make a hard link where the file system can: the file must never be changed again, whoever owns it
   * @throws the system's error, where the file cannot be read or the cache not be written
   */
  blob(
    source: string,
    digest: Digest,
    options: { readonly link: boolean; readonly signal: AbortSignal },
  ): Promise<Taken>;
  /** Keeps a manifest; false where its bytes are not those of the digest. @param came when its registry gave it, ms since 1970 */
  manifest(digest: Digest, body: Uint8Array, came: number): boolean;
  /** Keeps what a tag stood for, unless its registry was asked later than that. */
  tag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void;
  facts(facts: readonly Fact[]): void;
  /** The registry has refused this repository since this cache knows it: what it gave before is void, whoever says so. */
  wasDenied(repository: RepositoryKey): boolean;
}

/** Bytes copied and hashed at once. */
const STEP = 256 * 1024;
/** Beside the partial files, and none of them; one that a kill left is removed at the next start. */
const DRAFT = 'import';
/** A file system, or two, between which no link or clone is made: the bytes are copied. */
const NOT_HERE: ReadonlySet<unknown> = new Set([
  'EXDEV',
  'EPERM',
  'EMLINK',
  'EOPNOTSUPP',
  'ENOTSUP',
  'EINVAL',
  'ENOSYS',
  'ENOTTY',
  'EACCES',
]);

export class CacheIntake implements Intake {
  readonly #context: MaintenanceContext;
  readonly #draft: string;
  /** One blob at a time, since there is one draft. */
  readonly #mutex = new Mutex();

  constructor(context: MaintenanceContext) {
    this.#context = context;
    this.#draft = join(context.layout.partials, DRAFT);
    rmSync(this.#draft, { force: true });
  }

  blob(
    source: string,
    digest: Digest,
    options: { readonly link: boolean; readonly signal: AbortSignal },
  ): Promise<Taken> {
    return this.#mutex.run(() => this.#take(source, digest, options));
  }

  manifest(digest: Digest, body: Uint8Array, came: number): boolean {
    if (!isManifestDigest(body, digest)) return false;
    const { index } = this.#context;
    if (index.manifest(digest) === null) index.addManifest({ digest, body }, Math.min(steadyNow(), came));
    return true;
  }

  tag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    const { index } = this.#context;
    const known = index.tag(repository, tag, variant);
    if (known === null || known.checkedAt < row.checkedAt) index.putTag(repository, tag, variant, row);
  }

  facts(facts: readonly Fact[]): void {
    this.#context.index.addFacts(facts, steadyNow());
    this.#context.invalidate();
  }

  wasDenied(repository: RepositoryKey): boolean {
    // Denials that wait to be written come first.
    this.#context.flush();
    return this.#context.index.wasDenied(repository);
  }

  async #take(source: string, digest: Digest, options: { link: boolean; signal: AbortSignal }): Promise<Taken> {
    const { layout, index, eviction, busy } = this.#context;
    const path = layout.blob(digest);
    const row = index.blob(digest);
    if (row !== null && statSync(path, { throwIfNoEntry: false })?.size === row.size) return { outcome: 'held' };
    // Read, filled or removed just now: whoever does that knows better.
    if (busy(digest)) return { outcome: 'held' };
    const file = await lstat(source).catch(missing);
    if (file === null) return { outcome: 'damaged', reason: 'its file is gone' };
    if (!file.isFile()) return { outcome: 'damaged', reason: 'it is no file' };
    const reservation = eviction.reserveFree(DRAFT, file.size);
    if (reservation === null) return { outcome: 'no-room' };
    try {
      const linked = await this.#draw(source, digest, options, reservation);
      if (linked === null) return { outcome: 'damaged', reason: 'its bytes are not those of its digest' };
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await rename(this.#draft, path);
      const now = steadyNow();
      const { size } = statSync(path);
      index.addBlob({ digest, size, created: now, lastUse: Math.min(now, Math.floor(file.mtimeMs)) });
      eviction.added(digest);
      return { outcome: 'taken', bytes: size, linked };
    } finally {
      reservation.release();
      await rm(this.#draft, { force: true });
    }
  }

  /** Makes the draft. Resolves to whether it is a link; null where its bytes are wrong. */
  async #draw(
    source: string,
    digest: Digest,
    { link: wanted, signal }: { link: boolean; signal: AbortSignal },
    reservation: Reservation,
  ): Promise<boolean | null> {
    await rm(this.#draft, { force: true });
    const isLinked = wanted && (await works(link(source, this.#draft)));
    const isCloned = !isLinked && (await works(copyFile(source, this.#draft, constants.COPYFILE_FICLONE_FORCE)));
    if (!isLinked && !isCloned) return (await this.#copy(source, digest, signal, reservation)) ? false : null;
    if (isCloned) await chmod(this.#draft, 0o600);
    const { right } = await hashFile(this.#draft, digest, signal);
    if (isCloned && right) await synced(this.#draft);
    return right ? isLinked : null;
  }

  /** True where the bytes are those of the digest. */
  async #copy(source: string, digest: Digest, signal: AbortSignal, reservation: Reservation): Promise<boolean> {
    const from = SharedFile.open(source, 'r');
    try {
      const to = await open(this.#draft, 'wx', 0o600);
      try {
        const hash = createHash(digestAlgorithm(digest));
        const buffer = Buffer.allocUnsafe(STEP);
        for (let at = 0; ; ) {
          signal.throwIfAborted();
          const count = await from.read(buffer, STEP, at);
          if (count === 0) break;
          const chunk = buffer.subarray(0, count);
          hash.update(chunk);
          await to.writeFile(chunk);
          reservation.wrote(count);
          at += count;
        }
        if (hash.digest('hex') !== digestHex(digest)) return false;
        await to.sync();
        return true;
      } finally {
        await to.close();
      }
    } finally {
      from.release();
    }
  }
}

async function synced(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** False where these file systems do not do that. @throws other errors of the system */
async function works(attempt: Promise<unknown>): Promise<boolean> {
  try {
    await attempt;
    return true;
  } catch (error) {
    if (NOT_HERE.has((error as NodeJS.ErrnoException).code)) return false;
    throw error;
  }
}

function missing(error: NodeJS.ErrnoException): Stats | null {
  if (error.code === 'ENOENT') return null;
  throw error;
}
