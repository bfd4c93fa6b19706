import { LRUCache } from 'lru-cache';
import type { Config } from '../config/config.ts';
import { andThen, type MaybePromise } from '../kit/async.ts';
import { RegistryError } from '../oci/errors.ts';
import { type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import type { ImageHistory } from './history.ts';
import { MAX_SPANS, type TagSpan } from './history-store.ts';
import { PatternList } from './pattern-list.ts';
import type { RepositoryRules } from './repository-rules.ts';

/** Tags whose last matured digest is remembered, for while the history cannot be read. */
const MAX_TAGS = 10_000;

type CooldownConfig = Pick<Config['policy'], 'cooldown' | 'cooldownImages'>;

/** Why something does not pass yet. Times are ms since 1970, of the history's clock. */
export interface Youth {
  /** When its repository first showed it, or showed what names it. */
  readonly firstSeen: number;
  readonly passesFrom: number;
}

/** What a repository was never seen to hold; its registry has to be asked before anything can be said of it. */
export const UNSEEN = 'unseen';

export interface CooldownOptions {
  readonly history: ImageHistory;
  readonly config: CooldownConfig;
  /** Of the history's clock. */
  readonly now: () => number;
}

/** A span of a tag, and when the tag was first seen to stand for something else after it, ms since 1970. */
interface LeftSpan {
  readonly span: TagSpan;
  readonly left: number;
}

/**
 * Decides what is old enough to pass, by `policy.cooldown`: what its repository first showed at least so long ago, by the sight of this gateway or any of its
 * fleet. What a manifest names is as old as the manifest. It asks the history, and nothing of a registry. See *Cooldown* in README.md.
 */
export class Cooldown {
  readonly #history: ImageHistory;
  readonly #now: () => number;
  #span: number | null;
  /** What passes by them is what has to be old. */
  #rules: PatternList;
  /** By repository, tag and variants. */
  readonly #matured = new LRUCache<string, LeftSpan>({ max: MAX_TAGS });

  constructor({ history, config, now }: CooldownOptions) {
    this.#history = history;
    this.#now = now;
    this.#span = config.cooldown;
    this.#rules = new PatternList(config.cooldownImages);
  }

  /** Whether anything has to be old. Nothing else need be asked where nothing has. */
  get isOn(): boolean {
    return this.#span !== null;
  }

  /** Takes another configuration, for all that is asked from now on. */
  reconfigure({ cooldown, cooldownImages }: CooldownConfig): void {
    this.#span = cooldown;
    this.#rules = new PatternList(cooldownImages);
  }

  /**
   * Whether what a tag stands for is too young to be given for it; null where it may be. At once where that is known. What was not seen before is
   * taken for seen now: its registry has shown it, or did once.
   * @throws {RegistryError} unavailable where the history cannot be read
   */
  ofTag(key: RepositoryKey, tag: string, digest: Digest): MaybePromise<Youth | null> {
    if (this.#span === null || !this.#rules.of(key).ofTag(tag).passes) return null;
    return andThen(this.#youth(key, digest), (youth) => (youth === UNSEEN ? this.seenNow(key, digest) : youth));
  }

  /**
   * Whether what is asked for by its digest, a manifest or a blob, is too young; null where it may be given. It may where a tag is excepted that stood
   * for it, or for what names it.
   * @throws {RegistryError} unavailable where the history cannot be read
   */
  ofDigest(key: RepositoryKey, digest: Digest): MaybePromise<Youth | typeof UNSEEN | null> {
    if (this.#span === null) return null;
    const rules = this.#rules.of(key);
    const ruling = rules.ofDigest(digest);
    if (ruling?.passes === false) return null;
    const youth = this.#youth(key, digest);
    if (ruling !== null || youth === null) return youth;
    return this.#unlessTagExcepted(key, digest, rules, youth);
  }

  /** From when on what was first seen so may be given for the tag, ms since 1970; null where it need not be old. */
  passesFrom(key: RepositoryKey, tag: string, firstSeen: number): number | null {
    if (this.#span === null || !this.#rules.of(key).ofTag(tag).passes) return null;
    return firstSeen + this.#span;
  }

  /** Takes what a repository has just shown, or showed at a time that nobody knows, for seen now. */
  seenNow(key: RepositoryKey, digest: Digest): Youth | null {
    this.#history.seen(key, digest, true);
    return this.#youthAt(this.#now());
  }

  /**
   * What the tag last stood for that is old enough to be given in place of `young`; null where there is nothing. What it was seen to have left before
   * that was old enough has to be twice as old: it may have been withdrawn, and where the tag has come to rest since, what it rests on is old enough before that.
   * @param variants of the class of `Accept` headers
   * @throws {RegistryError} unavailable where the history cannot be read, and nothing is remembered
   */
  async lastMatured(
    key: RepositoryKey,
    tag: string,
    variants: readonly string[],
    young: Digest,
  ): Promise<TagSpan | null> {
    const id = `${repositoryId(key)}:${tag} ${variants.join(' ')}`;
    try {
      const spans = await this.#history.spans(key, tag, { variants, limit: MAX_SPANS });
      const found = spans
        .map((span) => ({ span, left: leftAt(span, spans) ?? this.#now() }))
        .find((each) => each.span.digest !== young && this.#hasMatured(each));
      if (found === undefined) return null;
      this.#matured.set(id, found);
      return found.span;
    } catch (error) {
      const found = this.#matured.get(id);
      if (found !== undefined && found.span.digest !== young && this.#hasMatured(found)) return found.span;
      throw unreadable(error);
    }
  }

  /** How often its registry is asked is no matter: between two looks nobody knows when the tag moved, and what passed before goes on passing. */
  #hasMatured({ span: { firstSeen, to }, left }: LeftSpan): boolean {
    const now = this.#now();
    if (this.#span === null || firstSeen === null || firstSeen > now) return false;
    const age = now - firstSeen;
    return age >= this.#span && (Math.max(to, left) - firstSeen >= this.#span || age >= 2 * this.#span);
  }

  /** At once where it is known to be old enough: that can only become more so. */
  #youth(key: RepositoryKey, digest: Digest): MaybePromise<Youth | typeof UNSEEN | null> {
    const known = this.#history.readLately(key, digest) ?? null;
    if (known !== null && this.#youthAt(known) === null) return null;
    return this.#readYouth(key, digest);
  }

  async #readYouth(key: RepositoryKey, digest: Digest): Promise<Youth | typeof UNSEEN | null> {
    let firstSeen: number | null;
    try {
      firstSeen = await this.#history.firstSeen(key, digest);
    } catch (error) {
      throw unreadable(error);
    }
    if (firstSeen === null) return UNSEEN;
    // It was kept while the clock was wrong.
    return firstSeen > this.#now() ? this.seenNow(key, digest) : this.#youthAt(firstSeen);
  }

  #youthAt(firstSeen: number): Youth | null {
    if (this.#span === null || (firstSeen <= this.#now() && this.#now() - firstSeen >= this.#span)) return null;
    return { firstSeen, passesFrom: firstSeen + this.#span };
  }

  async #unlessTagExcepted(
    key: RepositoryKey,
    digest: Digest,
    rules: RepositoryRules,
    youth: MaybePromise<Youth | typeof UNSEEN | null>,
  ): Promise<Youth | typeof UNSEEN | null> {
    const found = await youth;
    if (found === null) return null;
    let tags: readonly string[];
    try {
      tags = await this.#history.tagsNaming(key, digest);
    } catch (error) {
      throw unreadable(error);
    }
    if (tags.length === 0) return rules.ofUntagged(digest).passes ? found : null;
    return tags.every((tag) => rules.ofTag(tag).passes) ? found : null;
  }
}

/** When the tag was first seen to stand for something else after a span; spans of several variants may lie within each other. Null where it was not. */
function leftAt(span: TagSpan, spans: readonly TagSpan[]): number | null {
  let left: number | null = null;
  for (const { digest, from, to } of spans) {
    if (digest !== span.digest && to > span.to) left = Math.min(left ?? from, Math.max(from, span.to));
  }
  return left === null ? null : Math.max(left, span.to);
}

function unreadable(cause: unknown): RegistryError {
  const reason = 'what it has seen of images cannot be read, and policy.cooldown asks for it';
  return new RegistryError('unavailable', { facts: { reason }, cause });
}
