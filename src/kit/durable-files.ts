import { randomBytes } from 'node:crypto';
import { type FileHandle, link, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Puts the names in a directory on the disk, as a rename or a new file needs it. @throws the system's error */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/**
 * A file that appears under its name only once it is whole and on the disk, readable by its owner alone. Until `keep` it lies beside that
 * name under another; whoever does not keep it drops it.
 */
export class PrivateDraft {
  readonly #path: string;
  readonly #draft: string;
  readonly #file: FileHandle;

  private constructor(path: string, draft: string, file: FileHandle) {
    this.#path = path;
    this.#draft = draft;
    this.#file = file;
  }

  /** @throws the system's error */
  static async begin(path: string): Promise<PrivateDraft> {
    const draft = `${path}.${randomBytes(4).toString('hex')}.new`;
    return new PrivateDraft(path, draft, await open(draft, 'wx', 0o600));
  }

  /** After what was written before. @throws the system's error */
  async write(bytes: Uint8Array): Promise<void> {
    await this.#file.writeFile(bytes);
  }

  /** @param replace what has the name already; where it is false, that stays. @throws the system's error; `EEXIST` */
  async keep({ replace }: { readonly replace: boolean }): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    await appear(this.#draft, this.#path, { replace });
  }

  async drop(): Promise<void> {
    await this.#file.close().catch(() => {});
    await rm(this.#draft, { force: true }).catch(() => {});
  }
}

/**
 * Gives a file its name, for good.
 * @param replace what has the name already; where it is false, that stays. @throws the system's error; `EEXIST`
 */
export async function appear(draft: string, path: string, { replace }: { readonly replace: boolean }): Promise<void> {
  if (replace) await rename(draft, path);
  else await takeFreeName(draft, path);
  await syncDirectory(dirname(path));
}

async function takeFreeName(draft: string, path: string): Promise<void> {
  try {
    await link(draft, path);
    await rm(draft);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') throw error;
    // A file system without hard links: somebody who takes the name in this very moment loses it.
    const taken = await stat(path).then(
      () => true,
      () => false,
    );
    if (taken) throw Object.assign(new Error(`${path} exists`), { code: 'EEXIST' });
    await rename(draft, path);
  }
}
