import { LRUCache } from 'lru-cache';
import { steadyNow } from '../kit/time.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import { isManifestDigest } from '../oci/schema1.ts';
import type { CacheIndex, ManifestRow, NewManifest, TagRow } from './index-port.ts';
import type { Pins } from './pins.ts';

/**
 * Manifests, and the digest that each tag had when its registry was last asked, as the proxy core keeps them. Every answer is synchronous.
 * Which client may be given a manifest is decided by the core, not here.
 */
export interface ManifestStore {
  /** Grows when rows were dropped by something other than these methods (prune, verify): what was built from them is out of date. */
  readonly generation: number;
  getManifest(digest: Digest): ManifestRow | null;
  /** The caller has checked the digest against the body. */
  putManifest(row: NewManifest): void;
  /** `variant` names the class of `Accept` headers that the registry answered (see `variantOf` in oci/media-types.ts). */
  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null;
  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void;
  dropTag(repository: RepositoryKey, tag: string, variant: string): void;
  /** An operator has pinned it: what is kept of it may be given however long its registry is away. */
  isPinned(repository: RepositoryKey, tag: string): boolean;
}

/** Bytes of manifests in the index, where the cache is large. At a few KiB each this is a hundred thousand images. */
const MOST_BYTES = 512 * 1024 * 1024;
/** Manifests' share of a smaller cache: they count in `cache.maxSize`, and blobs need the rest. */
const SHARE = 0.1;
/** Where no blobs are kept at all, manifests may take this. */
const BYTES_ALONE = 64 * 1024 * 1024;
/** Tags in the index, some 200 bytes each: clients can ask a registry that has every tag for any number of them. */
const MAX_TAGS = 100_000;
const TAGS_BATCH = 1_000;
/** Manifests dropped in one step, and how long one flush may go on with that, ms. */
const SHRINK_BATCH = 32;
const SHRINK_TIME = 5;
/** A manifest that was seen to be right is believed for so long, ms; of so many it is known. */
const CHECKED_FOR = 24 * 60 * 60 * 1000;
const CHECKED_KEPT = 10_000;

export interface ManifestStoreOptions {
  /** `cache.maxSize`, as it is now. */
  readonly maxSize: () => number;
  readonly pins: Pins;
  /** Called with every error of the index. */
  readonly failed: (error: unknown) => void;
  /** The bytes of these were wrong; they have left the index. */
  readonly damaged: (digests: readonly Digest[]) => void;
}

/**
 * The manifest store on the cache's index. Times of use are written in batches, by `flush`. Where the index fails, nothing is found and
 * nothing is kept, so that the manifests come from their registries.
 */
export class IndexedManifestStore implements ManifestStore {
  readonly #index: CacheIndex;
  readonly #options: ManifestStoreOptions;
  readonly #checked = new LRUCache<Digest, true>({ max: CHECKED_KEPT, ttl: CHECKED_FOR });
  #generation = 0;
  #uses = new Map<Digest, number>();

  constructor(index: CacheIndex, options: ManifestStoreOptions) {
    this.#index = index;
    this.#options = options;
  }

  get generation(): number {
    return this.#generation;
  }

  getManifest(digest: Digest): ManifestRow | null {
    const row = this.#try(() => this.#index.manifest(digest), null);
    if (row === null) return null;
    if (!this.#checked.has(digest) && !isManifestDigest(row.body, digest)) {
      this.#try(() => this.#index.removeManifests([digest]), undefined);
      this.#options.damaged([digest]);
      return null;
    }
    this.#checked.set(digest, true, { noUpdateTTL: true });
    this.#uses.set(digest, steadyNow());
    return row;
  }

  putManifest(row: NewManifest): void {
    this.#try(() => this.#index.addManifest(row, steadyNow()), undefined);
    this.#checked.set(row.digest, true);
  }

  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    const row = this.#try(() => this.#index.tag(repository, tag, variant), null);
    return row ?? this.#options.pins.tag(repository, tag, variant);
  }

  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    this.#try(() => this.#index.putTag(repository, tag, variant, row), undefined);
    this.#options.pins.saw(repository, tag, variant, row.digest);
  }

  isPinned(repository: RepositoryKey, tag: string): boolean {
    return this.#options.pins.tag(repository, tag) !== null;
  }

  dropTag(repository: RepositoryKey, tag: string, variant: string): void {
    this.#try(() => this.#index.dropTag(repository, tag, variant), undefined);
  }

  /** Writes the times of use, and drops the least recently used manifests where there are too many. @throws the index's errors */
  flush(): void {
    if (this.#uses.size > 0) {
      this.#index.touchManifests(this.#uses);
      this.#uses = new Map();
    }
    this.#index.shrinkTags(MAX_TAGS, TAGS_BATCH);
    const maxSize = this.#options.maxSize();
    const most = maxSize === 0 ? BYTES_ALONE : Math.min(MOST_BYTES, SHARE * maxSize);
    // As many as may have come since the last flush, and the rest at the next.
    for (const until = performance.now() + SHRINK_TIME; ; ) {
      const gone = this.#index.shrinkManifests(most, SHRINK_BATCH, (digest) => this.#options.pins.has(digest));
      if (gone.length < SHRINK_BATCH || performance.now() > until) return;
    }
  }

  /** Rows were dropped from the index directly. */
  invalidate(): void {
    this.#generation++;
  }

  #try<T>(task: () => T, otherwise: T): T {
    try {
      return task();
    } catch (error) {
      this.#options.failed(error);
      return otherwise;
    }
  }
}
