import { LRUCache } from 'lru-cache';
import { contentId, type Digest, type RepositoryKey } from '../oci/names.ts';
import { isManifestDigest } from '../oci/schema1.ts';
import { MissingObject, WrongObject } from './blob-tier.ts';
import { Breaker } from './breaker.ts';
import type { FactStore } from './facts.ts';
import type { CacheIndex, Fact, Givers, KnownFact, ManifestRow, NewManifest, TagRow } from './index-port.ts';
import type { ListStore } from './list-store.ts';
import type { ManifestStore } from './manifest-store.ts';
import type { Giver } from './object-index.ts';
import type { SecondLevel } from './second-level.ts';
import type { SharedContent } from './shared-store.ts';

/** Answers of the shared store, and manifests out of it, kept by one look. */
const MAX_ANSWERS = 10_000;
const MAX_MANIFESTS = 1_000;
/** As long as a pull would wait, ms. */
const ANSWER_WITHIN = 2_000;

/** The facts as they are. What is learnt from the shared store counts here alone. */
export class UntouchedFacts implements FactStore {
  readonly #facts: FactStore;
  readonly #learnt = new Map<string, Fact>();
  readonly #givers = new Map<Digest, Givers>();

  constructor(facts: FactStore) {
    this.#facts = facts;
  }

  of(repository: RepositoryKey, digest: Digest): KnownFact | null {
    const kept = this.#facts.of(repository, digest);
    const learnt = this.#learnt.get(contentId(repository, digest));
    if (learnt === undefined) return kept;
    return {
      said: kept?.said ?? learnt.said,
      gave: kept?.gave === 'anyone' ? 'anyone' : (learnt.gave ?? kept?.gave ?? null),
      mediaType: kept?.mediaType ?? learnt.mediaType,
    };
  }

  giversOf(digest: Digest): Givers {
    const kept = this.#facts.giversOf(digest);
    const learnt = this.#givers.get(digest);
    if (learnt === undefined) return kept;
    return { open: kept.open || learnt.open, closedTo: [...kept.closedTo, ...learnt.closedTo] };
  }

  add(facts: readonly Fact[]): void {
    for (const fact of facts) {
      const { repository, digest, gave } = fact;
      this.#learnt.set(contentId(repository, digest), fact);
      if (gave === null) continue;
      const { open, closedTo } = this.#givers.get(digest) ?? { open: false, closedTo: [] };
      this.#givers.set(
        digest,
        gave === 'anyone'
          ? { open: true, closedTo }
          : { open, closedTo: [...closedTo, { registry: repository.registry, credential: gave }] },
      );
    }
  }

  /** Nobody is asked who could deny anything. */
  deny(): boolean {
    return false;
  }
}

/** Manifests and tags as they are; whether the bytes are right is looked at each time. */
export class UntouchedManifests implements ManifestStore {
  readonly generation = 0;
  readonly #index: CacheIndex;
  readonly #store: ManifestStore;
  /** Out of the shared store. */
  readonly #shared = new LRUCache<Digest, ManifestRow>({ max: MAX_MANIFESTS });

  constructor(index: CacheIndex, store: ManifestStore) {
    this.#index = index;
    this.#store = store;
  }

  /** @throws the index's errors */
  getManifest(digest: Digest): ManifestRow | null {
    const row = this.#index.manifest(digest);
    if (row !== null && isManifestDigest(row.body, digest)) return row;
    return this.#shared.get(digest) ?? null;
  }

  putManifest(row: NewManifest): void {
    this.#shared.set(row.digest, { ...row, came: 0 });
  }

  getTag(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    return this.#store.getTag(repository, tag, variant);
  }

  isPinned(repository: RepositoryKey, tag: string): boolean {
    return this.#store.isPinned(repository, tag);
  }

  putTag(): void {}

  dropTag(): void {}
}

/** The lists as they are. */
export function untouchedLists(lists: ListStore): ListStore {
  return {
    state: (repository, question) => lists.state(repository, question),
    get: (repository, question) => lists.get(repository, question),
    put: () => {},
    drop: () => {},
    dropAll: () => {},
  };
}

/** The shared store as it is: each answer is its own, and not that of a moment ago. What cannot be asked has nothing; `failed` says that it could not. */
export class UntouchedSharedStore implements SharedContent {
  readonly #level: SecondLevel;
  readonly #index = new Breaker({ service: "the shared store's index" });
  readonly #store = new Breaker({
    service: 'the shared store',
    isAnswer: (error) => error instanceof MissingObject || error instanceof WrongObject,
  });
  readonly #sizes = new LRUCache<Digest, Promise<{ readonly size: number | null }>>({ max: MAX_ANSWERS });
  readonly #signal: AbortSignal;
  /** Why it could not be asked at some time; null where it always answered. */
  failed: string | null = null;

  constructor(level: SecondLevel, signal: AbortSignal) {
    this.#level = level;
    this.#signal = signal;
  }

  async givers(digest: Digest): Promise<readonly Giver[]> {
    return (await this.#find(digest))?.givers ?? [];
  }

  async manifest(digest: Digest): Promise<Buffer | null> {
    const found = await this.#find(digest);
    if (found === null) return null;
    return await this.#try(async (signal) => {
      const body = await this.#level.readManifest(digest, found.object.size, signal);
      return body !== null && isManifestDigest(body, digest) ? body : null;
    });
  }

  /** Bytes of a blob that lies there; null where none does. */
  async size(digest: Digest): Promise<number | null> {
    let asked = this.#sizes.get(digest);
    if (asked === undefined) {
      asked = this.#look(digest).then((size) => ({ size }));
      this.#sizes.set(digest, asked);
    }
    return (await asked).size;
  }

  async link(digest: Digest): Promise<{ readonly url: string; readonly size: number } | null> {
    const size = await this.size(digest);
    const url = size === null ? null : await this.#try(() => this.#level.tier.link(digest, 1));
    return size === null || url === null ? null : { url, size };
  }

  keepManifest(): void {}

  denied(): void {}

  deniedElsewhere(): void {}

  async #look(digest: Digest): Promise<number | null> {
    const found = await this.#find(digest);
    if (found === null || found.object.kind !== 'blob') return null;
    const there = await this.#try((signal) => this.#level.tier.stat(digest, signal));
    return there?.size === found.object.size ? there.size : null;
  }

  async #find(digest: Digest): ReturnType<SecondLevel['look']> {
    try {
      return await this.#index.ask(() => this.#level.look(digest), this.#signal, ANSWER_WITHIN);
    } catch (error) {
      return this.#without(error);
    }
  }

  async #try<T>(task: (signal: AbortSignal) => Promise<T>): Promise<T | null> {
    try {
      return await this.#store.ask(task, this.#signal, ANSWER_WITHIN);
    } catch (error) {
      if (error instanceof MissingObject || error instanceof WrongObject) return null;
      return this.#without(error);
    }
  }

  #without(error: unknown): null {
    this.#signal.throwIfAborted();
    this.failed ??= (error as Error).message;
    return null;
  }
}
