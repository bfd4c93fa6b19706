import { constants } from 'node:fs';
import { open, opendir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { OperatorError } from '../../kit/operator-error.ts';
import { type Digest, digestAlgorithm, digestHex, isRepositoryName, isTag, parseDigest } from '../../oci/names.ts';

// The file system of a `registry` (distribution, registry/storage/paths.go): blobs by their digest, and a folder for each repository that
// links to those it has.
//
//   <root>/docker/registry/v2/blobs/sha256/ab/abcd…/data
//   <root>/docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/abcd…/link
//   <root>/docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
//   <root>/docker/registry/v2/repositories/<name>/_layers/sha256/abcd…/link

/** Of a repository's folder, the part that is no part of its name. */
const INNER = /^_(manifests|layers|uploads)$/;
/** Bytes of a link: an algorithm, a colon and a hash. */
const MAX_LINK = 256;
/** A manifest that a registry takes (distribution-spec, *Pushing Manifests*: 4 MiB at least; registries take no more). */
const MAX_MANIFEST = 4 * 1024 * 1024;
/** Folders of a repository's name, which has 255 characters at most. */
const MAX_DEPTH = 128;

export interface StoredTag {
  readonly tag: string;
  readonly digest: Digest;
  /** When the registry looked it up last, ms since 1970: a pull-through cache writes the link each time. */
  readonly at: number;
}

/** A folder that a `registry` keeps its images in. Whatever is in it may be damaged, or no such folder's. */
export class DistributionStorage {
  readonly #base: string;

  private constructor(root: string) {
    this.#base = join(root, 'docker', 'registry', 'v2');
  }

  /** @throws {OperatorError} `STORAGE_UNREADABLE` where there is none, or this user cannot read it */
  static async open(root: string): Promise<DistributionStorage> {
    const storage = new DistributionStorage(root);
    try {
      await readdir(join(storage.#base, 'repositories'));
      await readdir(join(storage.#base, 'blobs'));
    } catch (error) {
      throw unreadable(root, error as NodeJS.ErrnoException);
    }
    return storage;
  }

  blob(digest: Digest): string {
    const hex = digestHex(digest);
    return join(this.#base, 'blobs', digestAlgorithm(digest), hex.slice(0, 2), hex, 'data');
  }

  /** Names of repositories, in no order. */
  async *repositories(): AsyncGenerator<string> {
    yield* this.#below('', 0);
  }

  async *#below(name: string, depth: number): AsyncGenerator<string> {
    let isRepository = false;
    const deeper: string[] = [];
    try {
      for await (const entry of await opendir(join(this.#base, 'repositories', name))) {
        if (!entry.isDirectory()) continue;
        if (INNER.test(entry.name)) isRepository ||= entry.name === '_manifests';
        else deeper.push(name === '' ? entry.name : `${name}/${entry.name}`);
      }
    } catch (error) {
      throw unreadable(join(this.#base, 'repositories', name), error as NodeJS.ErrnoException);
    }
    if (isRepository) yield name;
    if (depth < MAX_DEPTH) for (const one of deeper) yield* this.#below(one, depth + 1);
  }

  async tags(repository: string): Promise<StoredTag[]> {
    const folder = this.#in(repository, '_manifests', 'tags');
    const tags: StoredTag[] = [];
    for (const tag of await names(folder)) {
      const link = join(folder, tag, 'current', 'link');
      const digest = await readLink(link);
      if (!isTag(tag) || digest === null) continue;
      tags.push({ tag, digest, at: await changedAt(link) });
    }
    return tags;
  }

  /** Digests of the manifests that a repository has. */
  async manifests(repository: string): Promise<Digest[]> {
    const folder = this.#in(repository, '_manifests', 'revisions');
    const found: Digest[] = [];
    for (const algorithm of await names(folder)) {
      for (const hex of await names(join(folder, algorithm))) {
        const digest = parseDigest(`${algorithm}:${hex}`);
        if (digest !== null && (await readLink(join(folder, algorithm, hex, 'link'))) === digest) found.push(digest);
      }
    }
    return found;
  }

  /** When a repository was given a manifest, ms since 1970. */
  manifestAt(repository: string, digest: Digest): Promise<number> {
    const place = [digestAlgorithm(digest), digestHex(digest), 'link'];
    return changedAt(this.#in(repository, '_manifests', 'revisions', ...place));
  }

  /** Whether a repository has a blob: its registry gave it through this very repository. */
  async hasLayer(repository: string, digest: Digest): Promise<boolean> {
    const link = this.#in(repository, '_layers', digestAlgorithm(digest), digestHex(digest), 'link');
    return (await readLink(link)) === digest;
  }

  /** A manifest's bytes; null where they are not there, or too many. @throws the system's error for what cannot be read */
  async readManifest(digest: Digest): Promise<Buffer | null> {
    return readUpTo(this.blob(digest), MAX_MANIFEST);
  }

  #in(repository: string, ...parts: string[]): string {
    return join(this.#base, 'repositories', repository, ...parts);
  }
}

/** A name that image names may have, whatever its registry thinks of capitals. */
export function isStoredRepository(name: string): boolean {
  return isRepositoryName(name.toLowerCase());
}

async function names(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw unreadable(folder, error);
  });
}

async function readLink(path: string): Promise<Digest | null> {
  const bytes = await readUpTo(path, MAX_LINK);
  return bytes === null ? null : parseDigest(bytes.toString('latin1').trim());
}

async function changedAt(path: string): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => Math.floor(mtimeMs),
    () => 0,
  );
}

/** Null for what is not there, is no file, or is longer. Never through a symbolic link: it would lead to any file of this machine. */
async function readUpTo(path: string, most: number): Promise<Buffer | null> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const found = await file.stat();
      return found.isFile() && found.size <= most ? await file.readFile() : null;
    } finally {
      await file.close();
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'EISDIR') return null;
    throw unreadable(path, error as NodeJS.ErrnoException);
  }
}

function unreadable(path: string, error: NodeJS.ErrnoException): OperatorError {
  const user = process.geteuid?.();
  const who = user === undefined ? 'the gateway' : `the gateway, which runs as user ${user},`;
  const denied = error.code === 'EACCES' || error.code === 'EPERM';
  const next = denied
    ? `let that user read it: setfacl -R -m u:${user}:rX ${path}`
    : "give the storage's root here with --root (in a container's configuration the path is that within the container); a service's unit may hide /home, /root and /tmp from the gateway";
  return new OperatorError(
    'STORAGE_UNREADABLE',
    `${who} cannot read the registry's storage ${path}: ${error.message}`,
    {
      next,
      cause: error,
    },
  );
}
