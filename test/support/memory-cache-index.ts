import type {
  BlobRow,
  CacheCounter,
  CacheIndex,
  Fact,
  Givers,
  IndexTotals,
  KeptTag,
  KnownFact,
  ManifestRow,
  NewBlob,
  NewManifest,
  RegistryCredential,
  Scrubbed,
  TagPlace,
  TagRow,
  UsedBlob,
} from '../../src/cache/index-port.ts';
import { steadyNow } from '../../src/kit/time.ts';
import type { Shown } from '../../src/oci/credentials.ts';
import { type Digest, type RepositoryKey, repositoryId } from '../../src/oci/names.ts';
import { MemoryLists } from './memory-lists.ts';
import { MemoryPins } from './memory-pins.ts';
import { MemoryUploads } from './memory-uploads.ts';

const DAY = 86_400_000;

/** The cache's index in memory: plain maps, sorted when asked. For tests; it forgets when the process ends. */
export class MemoryCacheIndex implements CacheIndex {
  readonly lists = new MemoryLists();
  readonly uploads = new MemoryUploads();
  readonly pins = new MemoryPins();
  readonly #removals = new Set<Digest>();
  readonly #blobs = new Map<Digest, UsedBlob>();
  readonly #places = new Map<Scrubbed, Digest | null>();
  readonly #facts = new Map<string, Fact & { seen: number }>();
  readonly #denied = new Set<string>();
  readonly #manifests = new Map<Digest, ManifestRow & { lastUse: number }>();
  readonly #tags = new Map<string, KeptTag>();
  readonly #counters: Record<CacheCounter, number> = { hits: 0, misses: 0, fetched: 0, served: 0, evictions: 0 };

  blob(digest: Digest): BlobRow | null {
    const row = this.#blobs.get(digest);
    return row === undefined ? null : unused(row);
  }

  lastUse(digest: Digest): number | null {
    return this.#blobs.get(digest)?.lastUse ?? null;
  }

  addBlob(row: NewBlob): void {
    this.#blobs.set(row.digest, { ...row, checkedAt: row.created });
  }

  settleTimes(now: number): boolean {
    for (const [digest, row] of this.#manifests) {
      if (row.lastUse > now) this.#manifests.set(digest, { ...row, lastUse: 0 });
    }
    for (const [key, row] of this.#tags) if (row.checkedAt > now) this.#tags.set(key, { ...row, checkedAt: 0 });
    this.lists.settle(now);
    return false;
  }

  markChecked(digest: Digest, at: number): void {
    const row = this.#blobs.get(digest);
    if (row !== undefined) this.#blobs.set(digest, { ...row, checkedAt: at });
  }

  scrubPlace(what: Scrubbed): Digest | null {
    return this.#places.get(what) ?? null;
  }

  putScrubPlace(what: Scrubbed, place: Digest | null): void {
    this.#places.set(what, place);
  }

  removeBlobs(digests: readonly Digest[]): void {
    for (const digest of digests) {
      this.#blobs.delete(digest);
      this.#removals.delete(digest);
    }
  }

  announceRemoval(digests: readonly Digest[]): void {
    for (const digest of digests) this.#removals.add(digest);
  }

  finishRemovals(isGone: (digest: Digest) => boolean): void {
    this.removeBlobs([...this.#removals].filter(isGone));
    this.#removals.clear();
  }

  touchBlobs(uses: ReadonlyMap<Digest, number>): void {
    for (const [digest, lastUse] of uses) {
      const row = this.#blobs.get(digest);
      if (row !== undefined && row.lastUse < lastUse) this.#blobs.set(digest, { ...row, lastUse });
    }
  }

  *leastRecent(limit: number): Generator<UsedBlob[], void> {
    const order = (a: UsedBlob, b: UsedBlob): number => a.lastUse - b.lastUse || compare(a.digest, b.digest);
    for (let last: UsedBlob | undefined; ; ) {
      const behind = [...this.#blobs.values()].filter((row) => last === undefined || order(row, last) > 0);
      const found = behind.sort(order).slice(0, limit);
      if (found.length === 0) return;
      last = found.at(-1);
      yield found;
    }
  }

  tidy(): Iterable<undefined> {
    return [];
  }

  blobsAfter(digest: Digest | null, limit: number): BlobRow[] {
    return sortedAfter(this.#blobs, digest).slice(0, limit).map(unused);
  }

  totals(): IndexTotals {
    const blobs = [...this.#blobs.values()];
    const manifests = [...this.#manifests.values()];
    return {
      blobs: blobs.length,
      bytes: blobs.reduce((sum, { size }) => sum + size, 0),
      manifests: manifests.length,
      manifestBytes: manifests.reduce((sum, { body }) => sum + body.length, 0),
      tags: this.#tags.size,
      facts: this.#facts.size,
    };
  }

  addFacts(facts: readonly Fact[], at: number): void {
    for (const fact of facts) {
      const key = factKey(fact.repository, fact.digest);
      const known = this.#facts.get(key);
      const wins = fact.gave !== null || known?.gave == null;
      this.#facts.set(key, {
        ...fact,
        said: further(known?.said, fact.said),
        gave: further(known?.gave, fact.gave),
        mediaType: (wins ? (fact.mediaType ?? known?.mediaType) : (known?.mediaType ?? fact.mediaType)) ?? null,
        seen: Math.max(known?.seen ?? 0, Math.floor(at / DAY)),
      });
    }
  }

  factOf(repository: RepositoryKey, digest: Digest): KnownFact | null {
    const fact = this.#facts.get(factKey(repository, digest));
    return fact === undefined ? null : { said: fact.said, gave: fact.gave, mediaType: fact.mediaType };
  }

  giversOf(digest: Digest): Givers {
    const given = [...this.#facts.values()].filter((fact) => fact.digest === digest && fact.gave !== null);
    const closed = new Map<string, RegistryCredential>();
    for (const { gave, repository } of given) {
      if (gave === null || gave === 'anyone') continue;
      closed.set(`${repository.registry} ${gave}`, { registry: repository.registry, credential: gave });
    }
    return { open: given.some(({ gave }) => gave === 'anyone'), closedTo: [...closed.values()] };
  }

  denyRepository(repository: RepositoryKey): boolean {
    const keys = [...this.#facts.keys()].filter((key) => key.startsWith(factKey(repository, '' as Digest)));
    for (const key of keys) this.#facts.delete(key);
    const before = this.lists.bytes();
    this.lists.forget(`${repositoryId(repository)} `);
    const known = keys.length > 0 || this.lists.bytes() < before;
    if (known) this.#denied.add(repositoryId(repository));
    return known;
  }

  wasDenied(repository: RepositoryKey): boolean {
    return this.#denied.has(repositoryId(repository));
  }

  denyDigest(repository: RepositoryKey, digest: Digest): boolean {
    return this.#facts.delete(factKey(repository, digest));
  }

  dropStaleFacts(before: number, limit: number): boolean {
    let dropped = 0;
    for (const [key, { digest, seen }] of this.#facts) {
      if (dropped >= limit) return true;
      if (seen >= Math.floor(before / DAY) || this.#blobs.has(digest) || this.#manifests.has(digest)) continue;
      this.#facts.delete(key);
      dropped++;
    }
    return false;
  }

  dropEmptyRepositories(): boolean {
    return false;
  }

  manifest(digest: Digest): ManifestRow | null {
    const row = this.#manifests.get(digest);
    return row === undefined ? null : { digest, body: row.body, came: row.came };
  }

  addManifest(row: NewManifest, at: number): void {
    this.#manifests.set(row.digest, { ...row, came: at, lastUse: at });
  }

  touchManifests(uses: ReadonlyMap<Digest, number>): void {
    for (const [digest, lastUse] of uses) {
      const row = this.#manifests.get(digest);
      if (row !== undefined && row.lastUse < lastUse) this.#manifests.set(digest, { ...row, lastUse });
    }
  }

  shrinkManifests(bytes: number, limit: number, spare?: (digest: Digest) => boolean): Digest[] {
    const dropped: Digest[] = [];
    const order = [...this.#manifests.values()].sort((a, b) => a.lastUse - b.lastUse || compare(a.digest, b.digest));
    for (const { digest } of order) {
      if (this.totals().manifestBytes <= bytes || dropped.length >= limit) break;
      if (this.#isSpared(digest, spare)) continue;
      this.#manifests.delete(digest);
      dropped.push(digest);
    }
    return dropped;
  }

  dropManifestsBefore(before: number, limit: number, spare?: (digest: Digest) => boolean): Digest[] {
    const old = [...this.#manifests.values()].filter(({ lastUse }) => lastUse < before);
    const going = old.map(({ digest }) => digest).filter((digest) => !this.#isSpared(digest, spare));
    const digests = going.slice(0, limit);
    this.removeManifests(digests);
    return digests;
  }

  #isSpared(digest: Digest, spare?: (digest: Digest) => boolean): boolean {
    if (spare?.(digest) !== true) return false;
    this.touchManifests(new Map([[digest, steadyNow()]]));
    return true;
  }

  removeManifests(digests: readonly Digest[]): void {
    for (const digest of digests) this.#manifests.delete(digest);
  }

  manifestsAfter(digest: Digest | null, limit: number): ManifestRow[] {
    return sortedAfter(this.#manifests, digest)
      .slice(0, limit)
      .map(({ digest: found, body, came }) => ({ digest: found, body, came }));
  }

  tag(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    const row = this.#tags.get(tagKey(repository, tag, variant));
    return row === undefined ? null : { digest: row.digest, checkedAt: row.checkedAt };
  }

  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    const { registry, repository: name } = repository;
    this.#tags.set(tagKey(repository, tag, variant), { registry, repository: name, tag, variant, ...row });
  }

  dropTag(repository: RepositoryKey, tag: string, variant: string): void {
    this.#tags.delete(tagKey(repository, tag, variant));
  }

  tagsAfter(place: TagPlace | null, limit: number): KeptTag[] {
    const byPlace = (a: TagPlace, b: TagPlace) =>
      compare(a.registry, b.registry) ||
      compare(a.repository, b.repository) ||
      compare(a.tag, b.tag) ||
      compare(a.variant, b.variant);
    return [...this.#tags.values()]
      .filter((row) => place === null || byPlace(row, place) > 0)
      .sort(byPlace)
      .slice(0, limit);
  }

  dropStaleTags(before: number, limit: number): boolean {
    let dropped = 0;
    for (const [key, { checkedAt }] of this.#tags) {
      if (dropped >= limit) return true;
      if (checkedAt >= before) continue;
      this.#tags.delete(key);
      dropped++;
    }
    return false;
  }

  shrinkTags(rows: number, limit: number): void {
    const oldest = [...this.#tags].sort(([, a], [, b]) => a.checkedAt - b.checkedAt);
    const over = Math.min(limit, oldest.length - rows);
    for (const [key] of oldest.slice(0, Math.max(0, over))) this.#tags.delete(key);
  }

  onlyOf(registry: string, after: Digest | null, limit: number): Digest[] {
    const others = new Set<Digest>();
    const own = new Set<Digest>();
    for (const { repository, digest, gave } of this.#facts.values()) {
      if (gave === null) continue;
      (repository.registry === registry ? own : others).add(digest);
    }
    return [...own]
      .filter((digest) => !others.has(digest) && (this.#blobs.has(digest) || this.#manifests.has(digest)))
      .filter((digest) => after === null || compare(digest, after) > 0)
      .sort(compare)
      .slice(0, limit);
  }

  forgetRegistry(registry: string): boolean {
    this.lists.forget(`${registry}/`);
    for (const map of [this.#facts, this.#tags]) {
      for (const key of map.keys()) if (key.startsWith(`${registry}/`)) map.delete(key);
    }
    return false;
  }

  count(increments: Readonly<Partial<Record<CacheCounter, number>>>): void {
    for (const [name, by] of Object.entries(increments)) this.#counters[name as CacheCounter] += by;
  }

  counters(): Readonly<Record<CacheCounter, number>> {
    return { ...this.#counters };
  }

  readonly #lossListeners: (() => void)[] = [];

  onLoss(listener: () => void): void {
    this.#lossListeners.push(listener);
  }

  /** A disk that fails: what was made of late is gone. */
  lose(change: () => void): void {
    change();
    for (const listener of this.#lossListeners) listener();
  }

  close(): void {}
}

function unused({ digest, size, created, checkedAt }: UsedBlob): BlobRow {
  return { digest, size, created, checkedAt };
}

function further(known: Shown | null | undefined, added: Shown | null): Shown | null {
  return known === 'anyone' || added === 'anyone' ? 'anyone' : (added ?? known ?? null);
}

function sortedAfter<T extends { readonly digest: Digest }>(rows: Map<Digest, T>, after: Digest | null): T[] {
  return [...rows.values()]
    .filter(({ digest }) => after === null || compare(digest, after) > 0)
    .sort((a, b) => compare(a.digest, b.digest));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function factKey({ registry, repository }: RepositoryKey, digest: Digest): string {
  return `${registry}/${repository}@${digest}`;
}

function tagKey({ registry, repository }: RepositoryKey, tag: string, variant: string): string {
  return `${registry}/${repository}:${tag} ${variant}`;
}
