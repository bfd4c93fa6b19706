import { LRUCache } from 'lru-cache';
import { steadyNow } from '../kit/time.ts';
import type { Shown } from '../oci/credentials.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import type { CacheIndex, Fact, Givers, KnownFact, RegistryCredential } from './index-port.ts';

/**
 * What repositories said and gave, as the proxy core keeps it. Every answer is synchronous. What follows from it for a client is decided by
 * the core, not here.
 */
export interface FactStore {
  /** Null where this repository neither said nor gave it. */
  of(repository: RepositoryKey, digest: Digest): KnownFact | null;
  giversOf(digest: Digest): Givers;
  add(facts: readonly Fact[]): void;
  /**
   * A registry refuses a repository, or one digest of it: what was said and gave of that until now is void at once, and after a restart. False
   * where nothing of it was known, so that clients cannot make anything grow by asking for what is refused.
   */
  deny(repository: RepositoryKey, digest?: Digest): boolean;
}

/** A registry denied a repository, or one digest of it, to a GET. */
export interface Denial extends RepositoryKey {
  readonly digest?: Digest | undefined;
}

/** Port: denials among gateways that share their table. What registries deny to one counts for all. */
export interface SharedDenials {
  /**
   * Tells the others; at once, or when they can be told again.
   * @param known something was known here of what is denied; where not, a client may have made the name up, and the others may hear of it later
   */
  announce(denial: Denial, known: boolean): void;
  /** Calls `listener` with what other gateways were denied, in order, what was missed first. The function returned ends that. */
  watch(listener: (denial: Denial) => void): () => void;
}

/** Answers kept in memory; some 200 bytes each. */
const MAX_ANSWERS = 20_000;
/** Facts that wait to be written; what is only said beyond them is not remembered, which costs its repository one HEAD for each. */
const MAX_PENDING = 20_000;
/** So many wait only while the index cannot be written; what is given beyond them is fetched once more. */
const MAX_UNWRITTEN_FACTS = 2 * MAX_PENDING;
/** Facts written in one go, so that it takes no more than a few ms. */
const BATCH = 500;
/**
 * Facts in the index, some 150 bytes each. While there are more, those whose content is not here are swept, and what is only said is not
 * remembered: whoever made so many pays with HEADs, and what others gave stays.
 */
const MAX_FACTS = 1_000_000;
/** With no more denials than these that the index could not take yet, what else it says is believed … */
const FEW_UNWRITTEN_DENIALS = 1_000;
/** … and beyond these, some 300 bytes each, only their registries are remembered: all that is known of those is dropped once that can be. */
const MOST_UNWRITTEN_DENIALS = 100_000;
/** Denials that are made again where the index loses its newest changes: more than it ever holds back at once. */
const MAX_RECENT = 1_000;

const NOTHING: KnownFact = { said: null, gave: null, mediaType: null };
const NOBODY: Givers = { open: false, closedTo: [] };

/** The facts on the cache's index: answers are kept in memory, and new facts are written in batches, off the path of a pull. */
export class Facts implements FactStore {
  readonly #index: CacheIndex;
  readonly #onFailure: (error: unknown) => void;
  readonly #mostUnwrittenDenials: number;
  readonly #answers = new LRUCache<string, KnownFact>({ max: MAX_ANSWERS });
  readonly #givers = new LRUCache<Digest, Givers>({ max: MAX_ANSWERS });
  /** By `contentId`, in the order in which they came. */
  readonly #pending = new Map<string, Fact>();
  /** Keys of those pending facts that gave the digest. */
  readonly #given = new Map<Digest, Set<string>>();
  /** Repositories whose denial the index could not take: what it says of them is not believed. */
  readonly #unwrittenDenials = new Map<string, RepositoryKey>();
  /** Registries of such denials that were too many to be remembered one by one. */
  readonly #registriesToForget = new Set<string>();
  /** The newest denials that the index took. */
  readonly #recent = new LRUCache<string, RepositoryKey>({ max: MAX_RECENT });
  #full = false;
  #next: NodeJS.Immediate | undefined;

  /** `onFailure` is called with every error of the index; the answer is then as if nothing were known. */
  constructor(index: CacheIndex, onFailure: (error: unknown) => void, mostUnwrittenDenials = MOST_UNWRITTEN_DENIALS) {
    this.#index = index;
    this.#onFailure = onFailure;
    this.#mostUnwrittenDenials = mostUnwrittenDenials;
    index.onLoss(() => {
      for (const repository of this.#recent.values()) this.#writeLater(repository);
      this.invalidate();
    });
  }

  of(repository: RepositoryKey, digest: Digest): KnownFact | null {
    const key = contentId(repository, digest);
    const known = this.#answers.get(key);
    if (known !== undefined) return known;
    const kept = this.#isBelieved(repository) ? this.#try(() => this.#index.factOf(repository, digest), null) : null;
    const pending = this.#pending.get(key);
    const fact = pending === undefined ? kept : merge(kept ?? NOTHING, pending);
    if (fact !== null) this.#answers.set(key, fact);
    return fact;
  }

  giversOf(digest: Digest): Givers {
    const known = this.#givers.get(digest);
    if (known !== undefined) return known;
    const kept = this.#hasUnwrittenDenials ? null : this.#try(() => this.#index.giversOf(digest), null);
    let { open } = kept ?? NOBODY;
    const closedTo = new Map((kept?.closedTo ?? []).map((one) => [credentialKey(one), one]));
    for (const key of this.#given.get(digest) ?? []) {
      const fact = this.#pending.get(key);
      if (fact === undefined || fact.gave === null) continue;
      if (fact.gave === 'anyone') open = true;
      else {
        const giver = { registry: fact.repository.registry, credential: fact.gave };
        closedTo.set(credentialKey(giver), giver);
      }
    }
    const givers = { open, closedTo: [...closedTo.values()] };
    // Where the index could not be asked, it is asked the next time.
    if (kept !== null) this.#givers.set(digest, givers);
    return givers;
  }

  add(facts: readonly Fact[]): void {
    for (const fact of facts) {
      const { repository, digest } = fact;
      const key = contentId(repository, digest);
      const known = this.#answers.get(key);
      if (known !== undefined && addsNothing(known, fact)) continue;
      if (fact.gave === null && (this.#full || this.#pending.size >= MAX_PENDING)) continue;
      if (this.#pending.size >= MAX_UNWRITTEN_FACTS) continue;
      const waiting = this.#pending.get(key);
      this.#pending.set(key, waiting === undefined ? fact : { ...fact, ...merge(waiting, fact) });
      this.#answers.delete(key);
      if (fact.gave === null) continue;
      this.#given.set(digest, (this.#given.get(digest) ?? new Set()).add(key));
      this.#givers.delete(digest);
    }
  }

  deny(repository: RepositoryKey, digest?: Digest): boolean {
    const dropped = this.#dropPending(repository, digest);
    let known = dropped;
    try {
      const kept =
        digest === undefined ? this.#index.denyRepository(repository) : this.#index.denyDigest(repository, digest);
      known = kept || dropped;
      if (kept) this.#recent.set(repositoryId(repository), repository);
    } catch (error) {
      this.#onFailure(error);
      known = true;
      // Of the whole repository: more than was denied, but only until the index can be written.
      this.#writeLater(repository);
    }
    if (known) this.invalidate();
    return known;
  }

  /** Writes some of the denials that are not written yet, then some of the new facts; the rest follows by itself. @throws the index's errors */
  flush(): void {
    this.#writeDenials(BATCH);
    // A denial voids all that was written before it.
    if (!this.#hasUnwrittenDenials) this.#write(BATCH);
    this.#full = this.#index.totals().facts > MAX_FACTS;
    // All whose content is not here, however new.
    if (this.#full) this.#index.dropStaleFacts(Number.MAX_SAFE_INTEGER, BATCH);
    if ((this.#pending.size === 0 && !this.#hasUnwrittenDenials) || this.#next !== undefined) return;
    this.#next = setImmediate(() => {
      this.#next = undefined;
      this.#try(() => this.flush(), undefined);
    });
  }

  /** Writes everything. @throws the index's errors */
  flushAll(): void {
    clearImmediate(this.#next);
    this.#next = undefined;
    while (this.#hasUnwrittenDenials) this.#writeDenials(BATCH);
    this.#write(this.#pending.size);
  }

  /** Whether what the index says of a repository counts: it has heard of every denial of it. */
  believes(repository: RepositoryKey): boolean {
    return this.#isBelieved(repository);
  }

  /** Rows were dropped from the index directly: answers in memory may be wrong. */
  invalidate(): void {
    this.#answers.clear();
    this.#givers.clear();
  }

  /** Writes the oldest of the new facts, which wait on where the index cannot take them. */
  #write(count: number): void {
    const batch: [string, Fact][] = [];
    for (const entry of this.#pending) {
      if (batch.length >= count) break;
      batch.push(entry);
    }
    if (batch.length === 0) return;
    const facts = batch.map(([, fact]) => fact);
    this.#index.addFacts(facts, steadyNow());
    for (const [key, fact] of batch) this.#forget(key, fact);
  }

  get #hasUnwrittenDenials(): boolean {
    return this.#unwrittenDenials.size > 0 || this.#registriesToForget.size > 0;
  }

  #writeLater(repository: RepositoryKey): void {
    const id = repositoryId(repository);
    if (this.#unwrittenDenials.size < this.#mostUnwrittenDenials) this.#unwrittenDenials.set(id, repository);
    else if (!this.#unwrittenDenials.has(id)) this.#registriesToForget.add(repository.registry);
  }

  /** Writes the oldest of the denials that are not written yet. */
  #writeDenials(count: number): void {
    let left = count;
    for (const [id, repository] of this.#unwrittenDenials) {
      if (left-- === 0) return;
      this.#index.denyRepository(repository);
      this.#unwrittenDenials.delete(id);
      this.#recent.set(id, repository);
    }
    for (const registry of this.#registriesToForget) {
      if (this.#index.forgetRegistry(registry, count)) return;
      this.#registriesToForget.delete(registry);
    }
  }

  #dropPending({ registry, repository }: RepositoryKey, digest: Digest | undefined): boolean {
    const before = this.#pending.size;
    if (digest !== undefined) {
      const key = contentId({ registry, repository }, digest);
      const fact = this.#pending.get(key);
      if (fact !== undefined) this.#forget(key, fact);
    } else {
      for (const [key, fact] of this.#pending) {
        const { registry: host, repository: name } = fact.repository;
        if (name === repository && host === registry) this.#forget(key, fact);
      }
    }
    return this.#pending.size < before;
  }

  #forget(key: string, { digest, gave }: Fact): void {
    this.#pending.delete(key);
    if (gave === null) return;
    const keys = this.#given.get(digest);
    keys?.delete(key);
    if (keys?.size === 0) this.#given.delete(digest);
  }

  #isBelieved(repository: RepositoryKey): boolean {
    if (!this.#hasUnwrittenDenials) return true;
    if (this.#unwrittenDenials.size > FEW_UNWRITTEN_DENIALS || this.#registriesToForget.has(repository.registry))
      return false;
    return !this.#unwrittenDenials.has(repositoryId(repository));
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

function credentialKey({ registry, credential }: RegistryCredential): string {
  return `${registry} ${credential}`;
}

/** Of two proofs the one without a credential counts, of two with one the newer; the type of what was given is not changed by what is only said. */
function merge(known: KnownFact, added: KnownFact): KnownFact {
  const addedFirst = added.gave !== null || known.gave === null;
  return {
    said: further(known.said, added.said),
    gave: further(known.gave, added.gave),
    mediaType: addedFirst ? (added.mediaType ?? known.mediaType) : (known.mediaType ?? added.mediaType),
  };
}

function addsNothing(known: KnownFact, added: KnownFact): boolean {
  const { said, gave, mediaType } = merge(known, added);
  return said === known.said && gave === known.gave && mediaType === known.mediaType;
}

function further(known: Shown | null, added: Shown | null): Shown | null {
  return known === 'anyone' || added === 'anyone' ? 'anyone' : (added ?? known);
}
