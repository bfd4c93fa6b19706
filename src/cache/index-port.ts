import type { CredentialId, Shown } from '../oci/credentials.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';

/** A blob that is complete in the cache. Times are ms since 1970. */
export interface BlobRow {
  readonly digest: Digest;
  readonly size: number;
  readonly created: number;
  /** When its bytes were last seen to be those of its digest; 0 for one of an earlier version. */
  readonly checkedAt: number;
}

export interface UsedBlob extends BlobRow {
  readonly lastUse: number;
}

/** A blob whose bytes were just seen to be right: its `checkedAt` is `created`. */
export type NewBlob = Omit<UsedBlob, 'checkedAt'>;

/** What the scrub walks over. */
export type Scrubbed = 'blobs' | 'manifests';

/** Credentials of one registry. */
export interface RegistryCredential {
  readonly registry: string;
  readonly credential: CredentialId;
}

/** What a repository said and gave of one digest, as it counts now. */
export interface KnownFact {
  /** A manifest that it gave names the digest, or its HEAD claims it; null where neither. */
  readonly said: Shown | null;
  /** A GET there brought the bytes, and their digest was right; null where none did. */
  readonly gave: Shown | null;
  /** What this repository calls the type of a manifest, without parameters; null where it never said, and for blobs. */
  readonly mediaType: string | null;
}

/** What a repository has just said or given of one digest. */
export interface Fact extends KnownFact {
  readonly repository: RepositoryKey;
  readonly digest: Digest;
}

/** Who gave a digest, as it counts now. */
export interface Givers {
  /** Some repository gave it without a credential. */
  readonly open: boolean;
  /** To which of the operator's credentials registries gave it. */
  readonly closedTo: readonly RegistryCredential[];
}

export interface ManifestRow {
  readonly digest: Digest;
  /** The exact bytes that the registry gave. */
  readonly body: Uint8Array;
  /** When a registry gave them last, ms since 1970; 0 for one of an earlier version. */
  readonly came: number;
}

/** A manifest that a registry has just given. */
export type NewManifest = Omit<ManifestRow, 'came'>;

/**
 * The digest that a tag had when its registry was last asked. A tag has one row for each class of `Accept` headers: the answer to one is
 * not given to another.
 */
export interface TagRow {
  readonly digest: Digest;
  /** ms since 1970. */
  readonly checkedAt: number;
}

/** One row of a tag: what its registry last answered to one class of `Accept` headers. */
export interface KeptTag extends RepositoryKey, TagRow {
  readonly tag: string;
  readonly variant: string;
}

/** A place in the walk over all rows of tags. */
export type TagPlace = Omit<KeptTag, keyof TagRow>;

/** How far the last list that a repository gave to a question is a proof, and when it came or was confirmed, ms since 1970. */
export interface ListState {
  readonly shown: Shown;
  readonly checkedAt: number;
}

/** A list of tags or referrers as its registry gave it: see `ListPage` in src/upstream/upstream.ts. */
export interface ListRow extends ListState {
  readonly body: Uint8Array;
  readonly mark: string;
  readonly next: string | null;
  readonly cutAfter: string | null;
}

/** In whose shares of the room a list counts: its registry's row, and who first asked for it. */
export interface ListOwners {
  readonly registry: string;
  readonly client: string;
}

/** Bytes of lists: of all together, of one registry, of one client. */
export interface ListLimits {
  readonly all: number;
  readonly registry: number;
  readonly client: number;
}

/** The part of the index that has the last list that a repository gave to each question. A denial of the repository voids its lists. */
export interface ListIndex {
  /** Null where there is none that counts. */
  state(repository: RepositoryKey, question: string): ListState | null;
  get(repository: RepositoryKey, question: string): ListRow | null;
  /** Adds or replaces it, and drops those confirmed longest ago where a share is full: of that one. The first owner of what is replaced stays. */
  put(repository: RepositoryKey, question: string, list: ListRow, owners: ListOwners, limits: ListLimits): void;
  drop(repository: RepositoryKey, question: string): void;
  dropAll(repository: RepositoryKey): void;
  /** Drops lists last confirmed before `before`; no more than `limit` at once. Returns whether there may be more. */
  dropBefore(before: number, limit: number): boolean;
  /** Bytes that they take in all. */
  bytes(): number;
}

/** Content that is kept here and is to be put into a shared store, as this repository gave it. */
export interface UploadRow {
  readonly digest: Digest;
  readonly kind: 'blob' | 'manifest';
  readonly repository: RepositoryKey;
}

/** The part of the index that has what is to be put into a shared store, in the order in which it came. */
export interface UploadIndex {
  /** Changes nothing where the digest waits already. */
  add(row: UploadRow): void;
  remove(digest: Digest): void;
  /** Puts it behind the others. */
  postpone(digest: Digest): void;
  oldest(limit: number): readonly UploadRow[];
  count(): number;
}

/** An image that operators have pinned, as it is held here. */
export interface PinRow extends RepositoryKey {
  /** Whoever pinned it names it so. */
  readonly id: string;
  /** By which it is pulled; null for one that was named by its digest. */
  readonly tag: string | null;
  /** Of the tag, as `variantOf` has it. */
  readonly variant: string;
  /** The manifest that the tag stood for. */
  readonly root: Digest;
  /** When its registry said so, ms since 1970. */
  readonly checkedAt: number;
  /** All that it holds, the root among them. */
  readonly manifests: readonly Digest[];
  /** `size` in bytes. */
  readonly blobs: readonly { readonly digest: Digest; readonly size: number }[];
}

/** The part of the index that has what operators have pinned. */
export interface PinIndex {
  /** Each of them, by id. */
  all(): readonly PinRow[];
  /** Adds, or replaces the one of that id. */
  put(row: PinRow): void;
  remove(id: string): void;
}

export interface IndexTotals {
  readonly blobs: number;
  readonly bytes: number;
  readonly manifests: number;
  readonly manifestBytes: number;
  readonly tags: number;
  readonly facts: number;
}

/** Counters that outlive the process. */
export type CacheCounter = 'hits' | 'misses' | 'fetched' | 'served' | 'evictions';

/**
 * The port behind which the cache remembers what it holds. Synchronous, since it is always local: its implementations answer from memory or
 * from a file in microseconds, and writes come in batches. No method's cost may depend on the number of rows.
 */
export interface CacheIndex {
  readonly lists: ListIndex;
  readonly uploads: UploadIndex;
  readonly pins: PinIndex;
  blob(digest: Digest): BlobRow | null;
  /** Adds, or replaces size and times. */
  addBlob(row: NewBlob): void;
  removeBlobs(digests: readonly Digest[]): void;
  /** The files of these blobs are about to be removed, and their rows after them: remembered until their rows are. */
  announceRemoval(digests: readonly Digest[]): void;
  /** Removes the rows of those whose removal was announced and whose file is gone, and forgets the others. For the start: no removal may be under way. */
  finishRemovals(isGone: (digest: Digest) => boolean): void;
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
  /**
   * Times of manifests, tags and lists that are still to come were kept while the clock was wrong; they become long ago. No more than `limit` of each
   * at once; returns whether there may be more. (Blobs' uses are put right by `tidy`.)
   */
  settleTimes(now: number, limit: number): boolean;
  /** The bytes of a blob were seen to be right. Changes nothing where it is not here. */
  markChecked(digest: Digest, at: number): void;
  /** Up to where the scrub has come in the order of `blobsAfter` and `manifestsAfter`; null: to begin at the start. */
  scrubPlace(what: Scrubbed): Digest | null;
  putScrubPlace(what: Scrubbed, place: Digest | null): void;

  /**
   * Adds to what is known: of two proofs the one without a credential counts, of two with one the newer; and the media type of what was given is not changed by what is
   * only said. What was known before the repository was last denied is replaced.
   */
  addFacts(facts: readonly Fact[], at: number): void;
  factOf(repository: RepositoryKey, digest: Digest): KnownFact | null;
  /** Looks at the newest 64 of each kind; what it overlooks is only fetched once more. */
  giversOf(digest: Digest): Givers;
  /** All that the repository said and gave until now is void. False where nothing of it is known since the last time: nothing is written then. */
  denyRepository(repository: RepositoryKey): boolean;
  /** Whether a repository that it knows was ever denied. */
  wasDenied(repository: RepositoryKey): boolean;
  /** What the repository said and gave of this digest is void. False where nothing is known. */
  denyDigest(repository: RepositoryKey, digest: Digest): boolean;
  /**
   * Drops facts that are void, and those not renewed since `before` (ms; kept to the day) whose content is not here; looks at no more than
   * `limit`, and goes on from there the next time. Returns whether it has not come to the end.
   */
  dropStaleFacts(before: number, limit: number): boolean;
  /** Drops repositories of which nothing is known; looks at no more than `limit`, and goes on from there the next time. Returns whether it has not come to the end. */
  dropEmptyRepositories(limit: number): boolean;

  manifest(digest: Digest): ManifestRow | null;
  addManifest(row: NewManifest, at: number): void;
  touchManifests(uses: ReadonlyMap<Digest, number>): void;
  /**
   * Drops the least recently used ones until at most `bytes` are left, no more than `limit` at once. Those that `spare` names count as used now. Returns
   * those that went.
   */
  shrinkManifests(bytes: number, limit: number, spare?: (digest: Digest) => boolean): Digest[];
  /** Drops manifests not used since `before`, no more than `limit` at once, and spares as `shrinkManifests` does. Returns those that went. */
  dropManifestsBefore(before: number, limit: number, spare?: (digest: Digest) => boolean): Digest[];
  removeManifests(digests: readonly Digest[]): void;
  manifestsAfter(digest: Digest | null, limit: number): ManifestRow[];

  tag(repository: RepositoryKey, tag: string, variant: string): TagRow | null;
  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void;
  dropTag(repository: RepositoryKey, tag: string, variant: string): void;
  /** Rows of tags behind this one, in the order of registry, repository, tag and variant; for walks over everything. */
  tagsAfter(place: TagPlace | null, limit: number): KeptTag[];
  /** Drops tags last asked before `before`; no more than `limit` at once. Returns whether there may be more. */
  dropStaleTags(before: number, limit: number): boolean;
  /** Drops the tags asked for longest ago until at most `rows` are left; no more than `limit` at once. */
  shrinkTags(rows: number, limit: number): void;

  /** Digests of what is here, and was given by this registry's repositories and no others; for `cache prune --registry`. */
  onlyOf(registry: string, after: Digest | null, limit: number): Digest[];
  /** Forgets this registry's facts, tags and lists; no more than `limit` of each at once. Returns whether there may be more. */
  forgetRegistry(registry: string, limit: number): boolean;

  count(increments: Readonly<Partial<Record<CacheCounter, number>>>): void;
  counters(): Readonly<Record<CacheCounter, number>>;

  /** Calls where changes are lost that had been made, because the disk failed. */
  onLoss(listener: () => void): void;
  close(): void;
}
