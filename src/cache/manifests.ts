import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { CacheIndex, ManifestRow, TagRow } from './index-port.ts';
import type { Links } from './links.ts';
import type { ManifestStore } from './manifest-store.ts';

/** Bytes of manifests kept in memory, and rows of tags: the hot ones of a busy gateway. */
const HOT_BYTES = 16 * 1024 * 1024;
const HOT_TAGS = 10_000;
/** Bytes of manifests in the index. At a few KiB each this is a hundred thousand images. */
const KEPT_BYTES = 512 * 1024 * 1024;
const SHRINK_BATCH = 64;

/** Manifests and tags on the index, the hot ones in memory; uses are written in batches. Where the index fails, memory alone serves. */
export class Manifests implements ManifestStore {
  readonly #index: CacheIndex;
  readonly #links: Links;
  readonly #failed: (error: unknown) => void;
  /** Both in order of use, the oldest first. */
  readonly #hot = new Map<Digest, ManifestRow>();
  readonly #tags = new Map<string, TagRow>();
  #hotBytes = 0;
  generation = 0;
  #uses = new Map<Digest, number>();

  constructor(index: CacheIndex, links: Links, failed: (error: unknown) => void) {
    this.#index = index;
    this.#links = links;
    this.#failed = failed;
  }

  getManifest(digest: Digest): ManifestRow | null {
    const hot = this.#hot.get(digest);
    const row = hot ?? this.#safely(() => this.#index.manifest(digest), null);
    if (row === null) return null;
    if (hot !== undefined) this.#forget(digest);
    this.#remember(row);
    this.#uses.set(digest, Date.now());
    return row;
  }

  putManifest(row: ManifestRow): void {
    this.#forget(row.digest);
    this.#remember(row);
    this.#safely(() => this.#index.addManifest(row, Date.now()), undefined);
  }

  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    const key = tagKey(repository, tag, variant);
    const row = this.#tags.get(key) ?? this.#safely(() => this.#index.tag(repository, tag, variant), null);
    if (row !== null) this.#rememberTag(key, row);
    return row;
  }

  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    this.#rememberTag(tagKey(repository, tag, variant), row);
    this.#safely(() => this.#index.putTag(repository, tag, variant, row), undefined);
  }

  dropTag(repository: RepositoryKey, tag: string, variant: string): void {
    this.#tags.delete(tagKey(repository, tag, variant));
    this.#safely(() => this.#index.dropTag(repository, tag, variant), undefined);
  }

  holdsManifest(repository: RepositoryKey, digest: Digest): boolean {
    return this.#safely(() => this.#links.accessOf(repository, digest), null) !== null;
  }

  linkManifest(repository: RepositoryKey, digest: Digest, options: { readonly private?: boolean } = {}): void {
    this.#links.link(repository, [digest], options.private ?? false);
  }

  flush(): void {
    if (this.#uses.size > 0) {
      const uses = this.#uses;
      this.#uses = new Map();
      this.#index.touchManifests(uses);
    }
    for (const digest of this.#index.shrinkManifests(KEPT_BYTES, SHRINK_BATCH)) this.#forget(digest);
  }

  /** After rows were dropped behind its back. */
  forgetAll(): void {
    this.generation++;
    this.#hot.clear();
    this.#hotBytes = 0;
    this.#tags.clear();
  }

  #remember(row: ManifestRow): void {
    this.#hot.set(row.digest, row);
    this.#hotBytes += row.body.length;
    for (const oldest of this.#hot.keys()) {
      if (this.#hotBytes <= HOT_BYTES) break;
      this.#forget(oldest);
    }
  }

  #forget(digest: Digest): void {
    const hot = this.#hot.get(digest);
    if (hot === undefined) return;
    this.#hot.delete(digest);
    this.#hotBytes -= hot.body.length;
  }

  #rememberTag(key: string, row: TagRow): void {
    this.#tags.delete(key);
    this.#tags.set(key, row);
    for (const oldest of this.#tags.keys()) {
      if (this.#tags.size <= HOT_TAGS) break;
      this.#tags.delete(oldest);
    }
  }

  #safely<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#failed(error);
      return otherwise;
    }
  }
}

function tagKey({ registry, repository }: RepositoryKey, tag: string, variant: string): string {
  return `${registry}/${repository}:${tag} ${variant}`;
}
