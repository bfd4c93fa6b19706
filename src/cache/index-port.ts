import type { Digest, RepositoryKey } from '../oci/names.ts';

/** A blob that is complete in the cache. Times are ms since 1970. */
export interface BlobRow {
  readonly digest: Digest;
  readonly size: number;
  readonly created: number;
}

export interface UsedBlob extends BlobRow {
  readonly lastUse: number;
}

/** A repository is known to hold a blob or manifest. */
export interface Link {
  readonly repository: RepositoryKey;
  readonly digest: Digest;
  /** The registry gave it to the operator's credentials, so it may not be open to everyone. */
  readonly private: boolean;
}

export interface ManifestRow {
  readonly digest: Digest;
  /** Without parameters. */
  readonly mediaType: string;
  /** The exact bytes that the registry gave. */
  readonly body: Uint8Array;
}

/**
 * The digest that a tag had when its registry was last asked. A tag has one row for each class of `Accept` headers: the answer to one is
 * not given to another.
 */
export interface TagRow {
  readonly digest: Digest;
  /** ms since 1970. */
  readonly checkedAt: number;
}

export interface IndexTotals {
  readonly blobs: number;
  readonly bytes: number;
  readonly manifests: number;
  readonly manifestBytes: number;
}

/** Counters that outlive the process. */
export type CacheCounter = 'hits' | 'misses' | 'fetched' | 'served' | 'evictions';

/**
 * The port behind which the cache remembers what it holds. Synchronous, since it is always local: its implementations answer from memory or
 * from a file in microseconds, and writes come in batches. No method's cost may depend on the number of rows.
 */
export interface CacheIndex {
  blob(digest: Digest): BlobRow | null;
  /** Adds, or replaces size and times. */
  addBlob(row: UsedBlob): void;
  removeBlobs(digests: readonly Digest[]): void;
  /** Sets times of use; earlier times than the index has, and unknown digests, change nothing. Cheap for blobs that were looked up or added shortly before. */
  touchBlobs(uses: ReadonlyMap<Digest, number>): void;
  /**
   * All blobs, least recently used first, no more than `limit` at once. Each step takes a few ms at most, and so may find none before the end:
   * let others go on between two steps. Blobs may be added, used and removed meanwhile; one that is used comes again.
   */
  leastRecent(limit: number): Iterable<readonly UsedBlob[]>;
  /** Puts in order what `leastRecent` needs, so that it finds blobs at once; work of seconds for a large index, a few ms in each step. */
  tidy(): Iterable<undefined>;
  /** Null for a blob that is not here. May be slow where `tidy` has not run; for commands. */
  lastUse(digest: Digest): number | null;
  /** In a fixed order that new rows do not disturb; for walks over everything. */
  blobsAfter(digest: Digest | null, limit: number): BlobRow[];
  totals(): IndexTotals;

  /** A link that is there becomes public where one of the same is not private; never private again. */
  link(links: readonly Link[], at: number): void;
  linkOf(repository: RepositoryKey, digest: Digest): { readonly private: boolean } | null;
  /** Drops links not renewed since `before` (ms; kept to the day) whose content is not here; looks at no more than `limit`. Returns whether there may be more. */
  dropStaleLinks(before: number, limit: number): boolean;

  manifest(digest: Digest): ManifestRow | null;
  addManifest(row: ManifestRow, at: number): void;
  touchManifests(uses: ReadonlyMap<Digest, number>): void;
  /** Drops the least recently used ones until at most `bytes` are left, no more than `limit` at once. Returns those that went. */
  shrinkManifests(bytes: number, limit: number): Digest[];
  /** Drops manifests not used since `before`, no more than `limit` at once. Returns those that went. */
  dropManifestsBefore(before: number, limit: number): Digest[];
  removeManifests(digests: readonly Digest[]): void;
  manifestsAfter(digest: Digest | null, limit: number): ManifestRow[];

  tag(repository: RepositoryKey, tag: string, variant: string): TagRow | null;
  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void;
  dropTag(repository: RepositoryKey, tag: string, variant: string): void;
  /** Drops tags last asked before `before`; no more than `limit` at once. Returns whether there may be more. */
  dropStaleTags(before: number, limit: number): boolean;

  /** Digests of what this registry's repositories hold, and only they; for `cache prune --registry`. */
  onlyOf(registry: string, after: Digest | null, limit: number): Digest[];
  /** Forgets this registry's links and tags; no more than `limit` of each at once. Returns whether there may be more. */
  forgetRegistry(registry: string, limit: number): boolean;

  count(increments: Readonly<Partial<Record<CacheCounter, number>>>): void;
  counters(): Readonly<Record<CacheCounter, number>>;

  close(): void;
}
