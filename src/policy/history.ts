import { LRUCache } from 'lru-cache';
import { Mutex } from '../kit/async.ts';
import { steadyNow } from '../kit/time.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import type { HistoryStore, NewestOfTag, Sightings, TagKey, TagSpan } from './history-store.ts';

/** How long what was seen may be in memory alone, ms. What a crash loses is seen again, later: content then counts as younger than it is. */
const FLUSH_AFTER = 5_000;
/** What waits is written at once where it is so much, and no more than the most is held while the store is away; the rest is seen again. */
const PENDING = { many: 1_000, most: 50_000 };
/** A tag that stays is written so often, ms; where it moves, and at the end, to the moment. */
const TAG_EVERY = 10 * 60_000;
/** That content is still in use is written so often, ms. */
const SEEN_EVERY = 24 * 60 * 60_000;
/** What a manifest names is written so often, ms, while it is served: rows that nobody uses are dropped. */
const NAMES_EVERY = 7 * 24 * 60 * 60_000;
/** Of each kind; some 200 bytes an entry. */
const REMEMBERED = 20_000;
/** What was read a moment ago is not read again, ms, unless something was written since; other nodes write, too. */
const READ_FOR = 2_000;
/** Tags that are asked for of one digest: whoever has more is one that all patterns know. */
const MAX_TAGS = 1_000;

export interface ImageHistoryOptions {
  readonly store: HistoryStore;
  /** Whether any rule that is in force has to know what manifests name. */
  readonly needsNames: () => boolean;
  readonly log: Pick<Logger, 'warn'>;
  /** Milliseconds since 1970, of a clock that never leaps. */
  readonly now?: () => number;
}

interface LatestOfTag {
  readonly key: TagKey;
  readonly digest: Digest;
  /** When that was last seen, and up to when it is written. */
  at: number;
  told: number;
}

interface Read<T> {
  readonly value: T;
  readonly at: number;
  /** Writes before it. */
  readonly writes: number;
}

/**
 * What registries have shown of images, and when. It is told of each answer that shows something (a HEAD with that digest, a GET with right bytes),
 * never of what a client asks for; what it is told is written a moment later, and counts for whoever reads at once.
 */
export class ImageHistory {
  readonly #store: HistoryStore;
  readonly #needsNames: () => boolean;
  readonly #log: ImageHistoryOptions['log'];
  readonly #now: () => number;
  readonly #tags: LRUCache<string, LatestOfTag>;
  /** When it was last told of content, and of what a manifest names, by `contentId`. */
  readonly #told = new LRUCache<string, number>({ max: REMEMBERED });
  readonly #toldNames = new LRUCache<string, number>({ max: REMEMBERED });
  readonly #firsts = new LRUCache<string, Read<number | null>>({ max: REMEMBERED });
  #pending = new Pending();
  readonly #writing = new Mutex();
  /** The flush that waits for the one before it. */
  #nextFlush: Promise<void> | null = null;
  #writes = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Of the timer; endless where none runs. */
  #wait = Number.POSITIVE_INFINITY;
  #failing = false;

  constructor({ store, needsNames, log, now = steadyNow }: ImageHistoryOptions) {
    this.#store = store;
    this.#needsNames = needsNames;
    this.#log = log;
    this.#now = now;
    this.#tags = new LRUCache({
      max: REMEMBERED,
      dispose: (latest, _, reason) => {
        if (reason === 'evict') this.#extend(latest);
      },
    });
  }

  /** Its registry has shown now that the tag stands for this manifest. */
  tagSeen(key: TagKey, digest: Digest): void {
    this.seen(key, digest);
    const id = `${repositoryId(key)}:${key.tag} ${key.variant}`;
    const at = this.#now();
    const latest = this.#tags.get(id);
    if (latest?.digest === digest && at - latest.told < TAG_EVERY) {
      latest.at = at;
      return;
    }
    if (latest !== undefined && latest.digest !== digest) this.#extend(latest);
    this.#tags.set(id, { key, digest, at, told: at });
    this.#pending.addTag(key, digest, at);
    this.#flushSoon();
  }

  /**
   * This repository has shown now that it holds this content. Told of what is kept as it is given again, too: that it is in use keeps its row, and
   * what was shown at a time that nobody knows counts as seen now.
   * @param anew it is not known, or from a time that is still to come: it is written though it was told lately
   */
  seen(key: RepositoryKey, digest: Digest, anew = false): void {
    const id = contentId(key, digest);
    const at = this.#now();
    if (!anew && at - (this.#told.get(id) ?? Number.NEGATIVE_INFINITY) < SEEN_EVERY) return;
    this.#told.set(id, at);
    this.#pending.addSeen(id, key, digest, at);
    this.#flushSoon();
  }

  /** Whether what this manifest names is wanted, and was not told lately. */
  wantsNames(key: RepositoryKey, parent: Digest): boolean {
    if (!this.#needsNames()) return false;
    const told = this.#toldNames.get(contentId(key, parent));
    return told === undefined || this.#now() - told >= NAMES_EVERY;
  }

  /** This repository has shown the manifest, or shown it before, and this is what it names. Ignored where nobody wants to know. */
  named(key: RepositoryKey, parent: Digest, children: readonly Digest[]): void {
    if (!this.wantsNames(key, parent)) return;
    const id = contentId(key, parent);
    const at = this.#now();
    this.#toldNames.set(id, at);
    this.#pending.addNamed(id, key, parent, children, at);
    this.#flushSoon();
  }

  /** When content was first seen in this repository, as it was last read; it may be earlier by now. Undefined where it was not read, null where it was not seen. */
  readLately(key: RepositoryKey, digest: Digest): number | null | undefined {
    return this.#firsts.get(contentId(key, digest))?.value;
  }

  /**
   * When content was first seen in this repository, ms since 1970; null where it was not. What a manifest names was seen since the manifest was.
   * @throws the store's errors
   */
  async firstSeen(key: RepositoryKey, digest: Digest): Promise<number | null> {
    return await this.#read(key, this.#firsts, contentId(key, digest), async () => {
      const found = await this.#store.firstSeen(key, [digest]);
      return found.get(digest) ?? null;
    });
  }

  /**
   * Tags of this repository that stand or stood for this content, or for a manifest by which it is named; those that were seen last come first.
   * @throws the store's errors
   */
  async tagsNaming(key: RepositoryKey, digest: Digest): Promise<readonly string[]> {
    await this.#settle(key);
    // Never an answer of a moment ago: a tag that another gateway has just seen opens what a client asks this one for.
    return await this.#store.tagsNaming(key, digest, MAX_TAGS);
  }

  /** What a tag stood for, the newest first; see `HistoryStore.spans`. @throws the store's errors */
  async spans(
    key: RepositoryKey,
    tag: string,
    of: { readonly variants?: readonly string[]; readonly limit: number },
  ): Promise<readonly TagSpan[]> {
    await this.#settle(key);
    return await this.#store.spans(key, tag, of);
  }

  /** The tags of a repository with what each was last seen to stand for; see `HistoryStore.tags`. @throws the store's errors */
  async tags(key: RepositoryKey, limit: number): Promise<readonly NewestOfTag[]> {
    await this.#settle(key);
    return await this.#store.tags(key, limit);
  }

  /** Resolves when what was seen in this repository is in the store, where other gateways find it. @throws the store's errors */
  settled(key: RepositoryKey): Promise<void> {
    return this.#settle(key);
  }

  /** Writes what waits. @throws the store's errors; it waits on then */
  flush(): Promise<void> {
    // All who come while one is on its way share the next: a store that answers nobody keeps each waiting for two writes, however many ask.
    this.#nextFlush ??= this.#writing.run(async () => {
      this.#nextFlush = null;
      const batch = this.#pending;
      if (batch.size === 0) return;
      this.#pending = new Pending();
      try {
        await this.#store.record(batch.sightings());
        this.#failing = false;
      } catch (error) {
        batch.append(this.#pending);
        this.#pending = batch;
        throw error;
      } finally {
        this.#writes++;
      }
    });
    return this.#nextFlush;
  }

  /** Writes all that was seen. Never rejects: what could not be written is seen again. */
  async close(): Promise<void> {
    for (const latest of this.#tags.values()) this.#extend(latest);
    await this.flush().catch((error: unknown) => this.#failed(error));
    clearTimeout(this.#timer);
  }

  async #read<T>(key: RepositoryKey, kept: LRUCache<string, Read<T>>, id: string, ask: () => Promise<T>): Promise<T> {
    await this.#settle(key);
    const before = kept.get(id);
    if (before?.writes === this.#writes && this.#now() - before.at < READ_FOR) return before.value;
    const writes = this.#writes;
    const value = await ask();
    kept.set(id, { value, at: this.#now(), writes });
    return value;
  }

  /** What was seen in this repository is in the store then. */
  async #settle(key: RepositoryKey): Promise<void> {
    // One that is on its way took its part, unless it fails.
    await this.#writing.run(async () => {});
    if (this.#pending.has(key)) await this.flush();
  }

  #extend(latest: LatestOfTag): void {
    if (latest.at <= latest.told) return;
    latest.told = latest.at;
    this.#pending.addTag(latest.key, latest.digest, latest.at);
    this.#flushSoon();
  }

  #flushSoon(): void {
    const { size } = this.#pending;
    if (size > PENDING.most) this.#giveUp();
    const wait = size >= PENDING.many && !this.#failing ? 0 : FLUSH_AFTER;
    if (wait >= this.#wait) return;
    clearTimeout(this.#timer);
    this.#wait = wait;
    const flush = (): void => {
      this.#wait = Number.POSITIVE_INFINITY;
      this.flush().catch((error: unknown) => this.#failed(error));
    };
    this.#timer = setTimeout(flush, wait).unref();
  }

  #failed(error: unknown): void {
    if (!this.#failing) this.#log.warn({ err: error }, 'what was seen of images was not written; it is tried again');
    this.#failing = true;
    this.#flushSoon();
  }

  /** The store is away, and too much waits for it. */
  #giveUp(): void {
    this.#pending = new Pending();
    this.#tags.clear();
    this.#told.clear();
    this.#toldNames.clear();
  }
}

/** What was seen and is not written yet. */
class Pending {
  readonly #tags: Sightings['tags'][number][] = [];
  readonly #seen = new Map<string, Sightings['seen'][number]>();
  readonly #named = new Map<string, Sightings['named'][number]>();
  readonly #repositories = new Set<string>();
  #size = 0;

  /** Rows that it will be, about. */
  get size(): number {
    return this.#size;
  }

  has(key: RepositoryKey): boolean {
    return this.#repositories.has(repositoryId(key));
  }

  addTag({ registry, repository, tag, variant }: TagKey, digest: Digest, at: number): void {
    this.#tags.push({ registry, repository, tag, variant, digest, at });
    this.#count({ registry, repository }, 1);
  }

  addSeen(id: string, { registry, repository }: RepositoryKey, digest: Digest, at: number): void {
    if (this.#seen.has(id)) return;
    this.#seen.set(id, { registry, repository, digest, at });
    this.#count({ registry, repository }, 1);
  }

  addNamed(
    id: string,
    { registry, repository }: RepositoryKey,
    parent: Digest,
    children: readonly Digest[],
    at: number,
  ): void {
    if (this.#named.has(id)) return;
    this.#named.set(id, { registry, repository, parent, children, at });
    this.#count({ registry, repository }, 1 + children.length);
  }

  /** What came after this. */
  append(later: Pending): void {
    for (const { digest, at, ...key } of later.#tags) this.addTag(key, digest, at);
    for (const [id, { digest, at, ...key }] of later.#seen) this.addSeen(id, key, digest, at);
    for (const [id, { parent, children, at, ...key }] of later.#named) this.addNamed(id, key, parent, children, at);
  }

  sightings(): Sightings {
    return { tags: this.#tags, seen: [...this.#seen.values()], named: [...this.#named.values()] };
  }

  #count(key: RepositoryKey, rows: number): void {
    this.#repositories.add(repositoryId(key));
    this.#size += rows;
  }
}
