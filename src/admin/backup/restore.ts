import { mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { OperatorError } from '../../kit/operator-error.ts';
import type { Restored } from '../contract.ts';
import { type BackupManifest, DATABASE_FILES, invalid, readArchive, STATE_FILES } from './archive.ts';
import { commitRestore, completeRestore, DRAFT, giveToOwner } from './put-in-place.ts';

/** The start of every SQLite database (SQLite, *Database File Format*). */
const SQLITE = 'SQLite format 3\0';
/** The start of what gzip wrote (RFC 1952 §2.3.1). */
const GZIP = Buffer.from([0x1f, 0x8b]);

/** What is no reason to call a data directory used: the lock, and what a file system has at its root. */
const NOTHING: ReadonlySet<string> = new Set([
  'instance.lock',
  'instance.lock-journal',
  'instance.json',
  'lost+found',
  DRAFT,
]);
/** Names that a refusal repeats. */
const SHOWN = 3;

export interface RestoreOptions {
  /** Locked by this process. */
  readonly dataDir: string;
  readonly source: AsyncIterable<Uint8Array>;
  /** Replace what is there; it is kept aside. */
  readonly force: boolean;
  /**
   * Looks whether a database is whole, and how many steps its schema has.
   * @throws {OperatorError} `DATABASE_NEWER` where this version knows fewer, `DATABASE_DAMAGED`
   */
  readonly inspect: (path: string) => number;
  readonly signal: AbortSignal;
}

/**
 * Restores a backup, or a copy of the database that was made before an update, into a data directory. Everything is checked before anything that
 * is there is touched.
 * @throws {OperatorError} `RESTORE_REFUSED`, `BACKUP_INVALID`, `BACKUP_NEWER`, `RESTORE_FAILED` …; what was there is there
 */
export async function restore(options: RestoreOptions): Promise<Restored> {
  const { dataDir, force, inspect, signal } = options;
  // One that a kill had interrupted.
  await completeRestore(dataDir);
  const there = (await readdir(dataDir)).filter((name) => !NOTHING.has(name)).sort();
  if (there.length > 0 && !force) throw isNotEmpty(dataDir, there);
  const draft = join(dataDir, DRAFT);
  try {
    await mkdir(draft, { mode: 0o700 });
    const unpacked = await unpack(options, draft);
    const schema = inspect(join(draft, 'gateway.db'));
    if (unpacked !== null && schema !== unpacked.schemas['gateway.db']) {
      throw invalid(`its database has schema ${schema}, and its manifest says ${unpacked.schemas['gateway.db']}`);
    }
    signal.throwIfAborted();
    const restored = (await readdir(draft)).sort();
    await giveToOwner(dataDir, [draft, ...restored.map((name) => join(draft, name))]);
    await commitRestore(dataDir, {
      replaces: unpacked === null ? DATABASE_FILES : [...DATABASE_FILES, ...STATE_FILES.slice(1)],
      aside: `before-restore-${new Date().toISOString().replace(/[-:.]/g, '')}`,
    });
    const aside = await completeRestore(dataDir);
    const { version = null, created = null } = unpacked ?? {};
    return { dataDir, version, created, schema, files: restored, aside };
  } catch (error) {
    if (error instanceof OperatorError || signal.aborted) throw error;
    throw new OperatorError('RESTORE_FAILED', `${dataDir} could not be restored: ${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    await rm(draft, { recursive: true, force: true }).catch(() => {});
  }
}

/** Into the draft; null for a bare database. */
async function unpack(options: RestoreOptions, draft: string): Promise<BackupManifest | null> {
  const { source, signal } = options;
  const { start, whole } = await peek(source);
  if (start.length === 0) throw invalid('it is empty');
  if (start.subarray(0, GZIP.length).equals(GZIP)) {
    throw new OperatorError('BACKUP_INVALID', 'this is no backup that can be restored: it is compressed', {
      next: 'unpack it first: gunzip -c FILE | gateway restore -',
    });
  }
  if (!start.toString('latin1').startsWith(SQLITE)) return readArchive(whole, draft, signal);
  const file = await open(join(draft, 'gateway.db'), 'wx', 0o600);
  try {
    for await (const chunk of whole) {
      signal.throwIfAborted();
      await file.writeFile(chunk);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  return null;
}

/** The first bytes of a stream, and all of it. */
async function peek(source: AsyncIterable<Uint8Array>): Promise<{ start: Buffer; whole: AsyncGenerator<Uint8Array> }> {
  const chunks = source[Symbol.asyncIterator]();
  let start: Buffer = Buffer.alloc(0);
  while (start.length < SQLITE.length) {
    const next = await chunks.next();
    if (next.done === true) break;
    start = Buffer.concat([start, next.value]);
  }
  async function* whole(): AsyncGenerator<Uint8Array> {
    yield start;
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value;
  }
  return { start, whole: whole() };
}

function isNotEmpty(dataDir: string, there: readonly string[]): OperatorError {
  const names = there.slice(0, SHOWN).join(', ') + (there.length > SHOWN ? ' …' : '');
  return new OperatorError('RESTORE_REFUSED', `${dataDir} is not empty (${names}), and was left as it is`, {
    next: 'restore into another directory (--data-dir), or replace what is there with --force: it is kept aside then',
  });
}
