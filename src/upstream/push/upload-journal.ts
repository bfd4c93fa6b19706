import { createHash } from 'node:crypto';
import { lstat, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PrivateDraft } from '../../kit/durable-files.ts';
import { isObject } from '../../kit/json.ts';
import type { UploadSession } from './upload-session.ts';

/** Which blob, pushed where. */
export interface UploadKey {
  /** Of the registry: `https://registry.example`. */
  readonly origin: string;
  readonly repository: string;
  readonly digest: string;
}

/** Remembers upload sessions, so that a push that was killed goes on where its registry says it is. Never fails: a push goes on without it. */
export interface UploadJournal {
  /** The session of a push that has ended; null where there is none. */
  take(key: UploadKey): Promise<UploadSession | null>;
  put(key: UploadKey, session: UploadSession): Promise<void>;
  drop(key: UploadKey): Promise<void>;
}

export const NO_JOURNAL: UploadJournal = { take: async () => null, put: async () => {}, drop: async () => {} };

/** Of the files' form. */
const VERSION = 1;
/** No registry keeps an upload for longer: distribution purges after a week. */
const KEPT_MS = 7 * 24 * 3_600_000;
/** For longer nobody writes an entry. */
const DRAFT_MS = 60_000;
/** An entry has a URL with its state, some KiB at most. */
const MAX_BYTES = 64 * 1024;

/**
 * Sessions in files of a folder, one for each blob that is on its way: readable by its owner alone, for their URLs open the upload to whoever has them.
 */
export class FileJournal implements UploadJournal {
  readonly #folder: string;
  #ready: Promise<boolean> | null = null;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async take(key: UploadKey): Promise<UploadSession | null> {
    if (!(await this.#prepare())) return null;
    const path = this.#path(key);
    try {
      if ((await stat(path)).size > MAX_BYTES) return null;
      return sessionIn(JSON.parse(await readFile(path, 'utf8')), key);
    } catch {
      return null;
    }
  }

  async put(key: UploadKey, { location, offset, minChunk }: UploadSession): Promise<void> {
    if (!(await this.#prepare())) return;
    const entry = { version: VERSION, pid: process.pid, ...key, location: location.href, offset, minChunk };
    let draft: PrivateDraft | null = null;
    try {
      draft = await PrivateDraft.begin(this.#path(key));
      await draft.write(Buffer.from(`${JSON.stringify(entry)}\n`));
      await draft.keep({ replace: true });
    } catch {
      await draft?.drop();
    }
  }

  async drop(key: UploadKey): Promise<void> {
    await rm(this.#path(key), { force: true }).catch(() => {});
  }

  #path({ origin, repository, digest }: UploadKey): string {
    const name = createHash('sha256')
      .update(JSON.stringify([origin, repository, digest]))
      .digest('hex');
    return join(this.#folder, `${name}.json`);
  }

  /** Makes the folder, and forgets what no registry can remember. */
  #prepare(): Promise<boolean> {
    this.#ready ??= (async () => {
      try {
        await mkdir(this.#folder, { recursive: true, mode: 0o700 });
        for (const name of await readdir(this.#folder)) {
          const path = join(this.#folder, name);
          // Another push may just have ended.
          const { mtimeMs } = await lstat(path).catch(() => ({ mtimeMs: Date.now() }));
          // A draft is what a push left that was killed as it wrote.
          if (Date.now() - mtimeMs > (name.endsWith('.new') ? DRAFT_MS : KEPT_MS)) await rm(path, { force: true });
        }
        return true;
      } catch {
        return false;
      }
    })();
    return this.#ready;
  }
}

/** Null for what is of another blob, of a process that still pushes it, or no session. */
function sessionIn(entry: unknown, key: UploadKey): UploadSession | null {
  if (!isObject(entry) || entry.version !== VERSION) return null;
  const { pid, location, offset, minChunk } = entry;
  const isOurs = (['origin', 'repository', 'digest'] as const).every((name) => entry[name] === key[name]);
  if (!isOurs || typeof location !== 'string' || !URL.canParse(location)) return null;
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(minChunk)) return null;
  if (typeof pid === 'number' && pid !== process.pid && isAlive(pid)) return null;
  return { location: new URL(location), offset: offset as number, minChunk: minChunk as number };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
