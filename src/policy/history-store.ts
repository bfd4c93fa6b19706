import type { Fence } from '../kit/locks.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';

/** A tag as its registry answered one class of `Accept` headers: see `variantOf` in oci/media-types.ts. */
export interface TagKey extends RepositoryKey {
  readonly tag: string;
  readonly variant: string;
}

/** What a tag stood for, from the first time that this gateway saw it so to the last, ms since 1970. */
export interface TagSpan {
  readonly variant: string;
  readonly digest: Digest;
  readonly from: number;
  readonly to: number;
  /** When the repository first showed that manifest, under whatever name; null where that is not known any more. */
  readonly firstSeen: number | null;
}

/** A tag of a repository with what it was last seen to stand for. */
export interface NewestOfTag extends TagSpan {
  readonly tag: string;
}

/** What was seen since the last time, to be kept all at once. Times are ms since 1970. */
export interface Sightings {
  /** What tags were seen to stand for. */
  readonly tags: readonly (TagKey & { readonly digest: Digest; readonly at: number })[];
  /** Content that a repository has shown to hold: the earliest time stays its first sight, the latest says that it is still in use. */
  readonly seen: readonly (RepositoryKey & { readonly digest: Digest; readonly at: number })[];
  /** A manifest that a repository has shown, and what it names there: an index's manifests, an image's config and layers. */
  readonly named: readonly (RepositoryKey & {
    readonly parent: Digest;
    readonly children: readonly Digest[];
    readonly at: number;
  })[];
}

/** Most spans of one tag and variant; the oldest make room. A tag that moves each minute must not fill the disk. */
export const MAX_SPANS = 1_000;

/** All of it, for a migration to another store. */
export interface WholeHistory {
  readonly spans: readonly (TagKey & Pick<TagSpan, 'digest' | 'from' | 'to'>)[];
  readonly sights: readonly (RepositoryKey & {
    readonly digest: Digest;
    readonly first: number;
    readonly last: number;
  })[];
  readonly names: readonly (RepositoryKey & { readonly parent: Digest; readonly child: Digest })[];
}

/**
 * Port: what this gateway, or its whole fleet, saw of images, and when. It is not the cache's: what was evicted was seen all the same.
 * What a manifest names counts as seen since the manifest itself was, however late either of them is recorded: a first sight that becomes earlier
 * makes those of all that is named by it, through indexes too, no later than itself.
 * Every method is atomic. test/conformance/history-store.ts is its contract.
 */
export interface HistoryStore {
  /** Durable when it resolves. The same once more changes nothing; what comes late (another node's) finds its place by its time. */
  record(sightings: Sightings): Promise<void>;
  /** What the tag stood for, the newest first. `variants`: for those alone; left out: for whatever was accepted. */
  spans(
    repository: RepositoryKey,
    tag: string,
    of: { readonly variants?: readonly string[]; readonly limit: number },
  ): Promise<readonly TagSpan[]>;
  /** The tags of a repository, those first that were seen last, one row for each variant; no more than `limit`. */
  tags(repository: RepositoryKey, limit: number): Promise<readonly NewestOfTag[]>;
  /** When each was first seen in this repository; those that were not are left out. */
  firstSeen(repository: RepositoryKey, digests: readonly Digest[]): Promise<ReadonlyMap<Digest, number>>;
  /** Tags of this repository that stand or stood for the digest, or for a manifest by which it is named, through indexes too. */
  tagsNaming(repository: RepositoryKey, digest: Digest, limit: number): Promise<readonly string[]>;
  /** When that content was last seen after which `newer` others were; null where there are not so many. */
  lastSeenBehind(newer: number): Promise<number | null>;
  /**
   * Drops what was last seen before `before`; no more than `limit` rows at once. Returns whether there may be more.
   * @throws {FencedError} where `under` is another's by now
   */
  dropBefore(before: number, limit: number, under?: Fence): Promise<boolean>;
}

/** Where one sighting of a tag belongs among its spans: it makes one of them longer, or is a new one. */
export type Placed<S> =
  | { readonly kind: 'within' }
  | { readonly kind: 'longer'; readonly span: S; readonly from: number; readonly to: number }
  | { readonly kind: 'new' };

/**
 * Finds it. Nodes of a fleet write late, and not in the order in which they saw: a sighting belongs to the span before it or the one after it, if
 * either is of the same digest, and nothing lies between.
 * @param spans of the tag, the newest first; at least the one that began last before `at`, and the one that began next after it
 */
export function placeSighting<S extends Pick<TagSpan, 'digest' | 'from' | 'to'>>(
  spans: readonly S[],
  digest: Digest,
  at: number,
): Placed<S> {
  const place = spans.findIndex(({ from }) => from <= at);
  const before = place < 0 ? undefined : spans[place];
  if (before?.digest === digest) {
    return at <= before.to ? { kind: 'within' } : { kind: 'longer', span: before, from: before.from, to: at };
  }
  const after = place < 0 ? spans.at(-1) : spans[place - 1];
  if (after?.digest === digest) return { kind: 'longer', span: after, from: at, to: after.to };
  return { kind: 'new' };
}
