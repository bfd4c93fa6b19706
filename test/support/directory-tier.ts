import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type BlobTier, type ListedObject, MissingObject, WrongObject } from '../../src/cache/blob-tier.ts';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import type { Extent } from '../../src/kit/interval-set.ts';
import type { Digest } from '../../src/oci/names.ts';

const BUFFER = 256 * 1024;

/** A shared store in a directory, such as one that several machines mount: an object is a file that appears by a rename. */
export class DirectoryTier implements BlobTier {
  readonly #objects: string;
  readonly #drafts: string;

  private constructor(directory: string) {
    this.#objects = join(directory, 'objects');
    this.#drafts = join(directory, 'drafts');
  }

  static async open(directory: string): Promise<DirectoryTier> {
    const tier = new DirectoryTier(directory);
    for (const folder of [tier.#objects, tier.#drafts]) await mkdir(folder, { recursive: true });
    return tier;
  }

  async stat(digest: Digest): Promise<{ size: number } | null> {
    return stat(this.#path(digest)).then(({ size }) => ({ size }), nothing);
  }

  async open(digest: Digest, { from, to }: Extent): Promise<ByteSource> {
    const file = await open(this.#path(digest)).catch(nothing);
    if (file === null) throw new MissingObject(digest);
    const { size } = await file.stat();
    if (size >= to) return new FileSource(file, from, to);
    await file.close();
    throw new WrongObject(`${digest} has ${size} bytes here`);
  }

  async store(digest: Digest, source: ByteSource, signal: AbortSignal): Promise<void> {
    const draft = join(this.#drafts, crypto.randomUUID());
    const file = await open(draft, 'wx');
    try {
      const buffer = Buffer.allocUnsafe(BUFFER);
      for (let count = await source.pull(buffer); count > 0; count = await source.pull(buffer)) {
        signal.throwIfAborted();
        await file.write(buffer, 0, count);
      }
      await file.sync();
      await rename(draft, this.#path(digest));
    } finally {
      await file.close();
      await rm(draft, { force: true });
    }
  }

  async remove(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) await rm(this.#path(digest), { force: true });
  }

  async list(after: Digest | null, limit: number): Promise<{ objects: ListedObject[]; last: boolean }> {
    const digests = (await readdir(this.#objects))
      .map((name) => name as Digest)
      .filter((digest) => after === null || digest > after)
      .toSorted();
    const objects = await Promise.all(
      digests.slice(0, limit).map(async (digest) => {
        const { size, mtimeMs } = await stat(this.#path(digest));
        return { digest, size, modified: mtimeMs };
      }),
    );
    return { objects, last: digests.length <= limit };
  }

  async link(): Promise<null> {
    return null;
  }

  async clearLeftovers(before: number): Promise<number> {
    let cleared = 0;
    for (const name of await readdir(this.#drafts)) {
      const path = join(this.#drafts, name);
      if ((await stat(path)).mtimeMs >= before) continue;
      await rm(path);
      cleared++;
    }
    return cleared;
  }

  async check(): Promise<null> {
    return null;
  }

  close(): void {}

  #path(digest: Digest): string {
    return join(this.#objects, digest);
  }
}

class FileSource implements ByteSource {
  readonly length: number;
  readonly #file: FileHandle;
  readonly #to: number;
  #at: number;
  #closed = false;

  constructor(file: FileHandle, from: number, to: number) {
    this.length = to - from;
    this.#file = file;
    this.#at = from;
    this.#to = to;
  }

  async pull(into: Uint8Array): Promise<number> {
    const wanted = Math.min(into.length, this.#to - this.#at);
    if (wanted === 0) return 0;
    const { bytesRead } = await this.#file.read(into, 0, wanted, this.#at);
    this.#at += bytesRead;
    return bytesRead;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }
}

function nothing(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null;
  throw error;
}
