import type { Digest, RepositoryKey } from '../oci/names.ts';

/** A tag as its registry answered one class of `Accept` headers: see `variantOf` in oci/media-types.ts. */
export interface TagKey extends RepositoryKey {
  readonly tag: string;
  readonly variant: string;
}

/** What a tag stood for, from the first time that this gateway saw it so to the last, ms since 1970. */
export interface TagSpan {
  readonly digest: Digest;
  readonly from: number;
  readonly to: number;
}

/** What was seen since the last time, to be kept all at once. */
export interface Sightings {
  /** What tags were seen to stand for, in the order in which that was. */
  readonly tags: readonly (TagKey & { readonly digest: Digest; readonly at: number })[];
  /** Content that a repository has shown to hold, or that a manifest of it names, and since when it counts as seen: the earliest time stays. */
  readonly seen: readonly (RepositoryKey & { readonly digest: Digest; readonly at: number })[];
  /** What a manifest names, in its own repository. */
  readonly named: readonly (RepositoryKey & { readonly parent: Digest; readonly children: readonly Digest[] })[];
}

/**
 * Port: what this gateway, or its whole fleet, saw of images, and when. It is not the cache's: what was evicted was seen all the same.
 * Every method is atomic. test/conformance/history-store.ts is its contract.
 */
export interface HistoryStore {
  /** Durable when it resolves. The same once more changes nothing. */
  record(sightings: Sightings): Promise<void>;
  /** What the tag stood for, the newest first. */
  spans(tag: TagKey, limit: number): Promise<readonly TagSpan[]>;
  /** Those of the tag for whatever was accepted, the newest first. */
  spansOfAll(repository: RepositoryKey, tag: string, limit: number): Promise<readonly TagSpan[]>;
  /** When each was first seen in this repository; those that were not are left out. */
  firstSeen(repository: RepositoryKey, digests: readonly Digest[]): Promise<ReadonlyMap<Digest, number>>;
  /** Tags of this repository that stand or stood for the digest, or for a manifest by which it is named, through indexes too. */
  tagsNaming(repository: RepositoryKey, digest: Digest, limit: number): Promise<readonly string[]>;
  /** Drops what was last seen before `before`; no more than `limit` rows at once. Returns whether there may be more. */
  dropBefore(before: number, limit: number): Promise<boolean>;
}
