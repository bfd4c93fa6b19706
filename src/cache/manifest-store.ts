import type { Digest, RepositoryKey } from '../oci/names.ts';
import type { CacheIndex, ManifestRow, TagRow } from './index-port.ts';

/**
 * Manifests, and the digest that each tag had when its registry was last asked, as the proxy core keeps them. Every answer is synchronous.
 * Which client may be given a manifest is decided by the core, not here.
 */
export interface ManifestStore {
  /** Grows when rows were dropped by something other than these methods (prune, verify): what was built from them is out of date. */
  readonly generation: number;
  getManifest(digest: Digest): ManifestRow | null;
  /** The caller has checked the digest against the body. */
  putManifest(row: ManifestRow): void;
  /** `variant` names the class of `Accept` headers that the registry answered (see `variantOf` in oci/media-types.ts). */
  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null;
  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void;
  dropTag(repository: RepositoryKey, tag: string, variant: string): void;
}

/** Bytes of manifests in the index. At a few KiB each this is a hundred thousand images. */
const MAX_BYTES = 512 * 1024 * 1024;
/** Tags in the index, some 200 bytes each: clients can ask a registry that has every tag for any number of them. */
const MAX_TAGS = 100_000;
/** Manifests and tags that one flush drops at most, so that it takes no more than a few ms. */
const SHRINK_BATCH = 64;
const TAGS_BATCH = 1_000;

/**
 * The manifest store on the cache's index. Times of use are written in batches, by `flush`. Where the index fails, nothing is found and
 * nothing is kept, so that the manifests come from their registries.
 */
export class IndexedManifestStore implements ManifestStore {
  readonly #index: CacheIndex;
  readonly #onFailure: (error: unknown) => void;
  #generation = 0;
  #uses = new Map<Digest, number>();

  /** `onFailure` is called with every error of the index. */
  constructor(index: CacheIndex, onFailure: (error: unknown) => void) {
    this.#index = index;
    this.#onFailure = onFailure;
  }

  get generation(): number {
    return this.#generation;
  }

  getManifest(digest: Digest): ManifestRow | null {
    const row = this.#try(() => this.#index.manifest(digest), null);
    if (row !== null) this.#uses.set(digest, Date.now());
    return row;
  }

  putManifest(row: ManifestRow): void {
    this.#try(() => this.#index.addManifest(row, Date.now()), undefined);
  }

  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    return this.#try(() => this.#index.tag(repository, tag, variant), null);
  }

  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    this.#try(() => this.#index.putTag(repository, tag, variant, row), undefined);
  }

  dropTag(repository: RepositoryKey, tag: string, variant: string): void {
    this.#try(() => this.#index.dropTag(repository, tag, variant), undefined);
  }

  /** Writes the times of use, and drops the least recently used manifests where there are too many. @throws the index's errors */
  flush(): void {
    if (this.#uses.size > 0) {
      const uses = this.#uses;
      this.#uses = new Map();
      this.#index.touchManifests(uses);
    }
    this.#index.shrinkManifests(MAX_BYTES, SHRINK_BATCH);
    this.#index.shrinkTags(MAX_TAGS, TAGS_BATCH);
  }

  /** Rows were dropped from the index directly. */
  invalidate(): void {
    this.#generation++;
  }

  #try<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#onFailure(error);
      return otherwise;
    }
  }
}
