import type { TagsFilter } from '../oci/documents.ts';
import type { Digest } from '../oci/names.ts';
import type { ImagePattern, NamedRepository } from './image-pattern.ts';

/** A pattern of the configuration, read. */
export interface HeldRule {
  readonly pattern: ImagePattern;
  readonly allows: boolean;
}

/**
 * What decided: a pattern for the whole repository, for tags or for digests; that no pattern matched; or that no tag is known which may pass and
 * stood for what was asked for by its digest.
 */
export type Ground = 'repository' | 'tag' | 'digest' | 'unlisted' | 'untagged';

export interface Ruling {
  readonly passes: boolean;
  readonly ground: Ground;
}

/**
 * The patterns that are for one repository, in order: the last one that matches decides. Tags are judged by patterns without a tag and by those that name
 * them, digests by patterns without a tag and by those that name digests; what patterns say of tags reaches digests through the tags that stood for them.
 */
export class RepositoryRules {
  readonly #repository: NamedRepository;
  /** All of them, the last first. */
  readonly #rules: readonly HeldRule[];
  /** What holds where none of them matches. */
  readonly #otherwise: Ruling;
  /** The last pattern for all of the repository, else the same. */
  readonly #base: Ruling;
  /** Those behind it, the last first. */
  readonly #later: readonly HeldRule[];

  /** @param isClosed what no pattern matches does not pass */
  constructor(repository: NamedRepository, rules: readonly HeldRule[], isClosed: boolean) {
    this.#repository = repository;
    this.#rules = rules.filter(({ pattern }) => pattern.isFor(repository)).reverse();
    this.#otherwise = { passes: !isClosed, ground: 'unlisted' };
    const last = this.#rules.findIndex(({ pattern }) => isForAll(pattern));
    const base = this.#rules[last];
    this.#base = base === undefined ? this.#otherwise : { passes: base.allows, ground: 'repository' };
    this.#later = last < 0 ? this.#rules : this.#rules.slice(0, last);
  }

  /** The tag, before anybody knows what it stands for. */
  ofTag(tag: string): Ruling {
    const rule = this.#later.find(({ pattern }) => pattern.isForTag(tag, this.#repository));
    return rule === undefined ? this.#base : { passes: rule.allows, ground: 'tag' };
  }

  /** The tag once it is known to stand for this, or for what names this: a digest that is refused is refused by its tag too. */
  ofTagged(tag: string, digest: Digest): Ruling {
    for (const { pattern, allows } of this.#later) {
      if (pattern.isForTag(tag, this.#repository)) return { passes: allows, ground: 'tag' };
      if (!allows && pattern.isForDigest(digest)) return { passes: false, ground: 'digest' };
    }
    return this.#base;
  }

  /**
   * What is asked for by its digest; null where it depends on which tags stood for it. A pattern that allows digests opens them whatever patterns say of tags, unless
   * one behind it refuses the repository or the digest.
   */
  ofDigest(digest: Digest): Ruling | null {
    const tagRules: HeldRule[] = [];
    let base: Ruling | null = null;
    for (const rule of this.#rules) {
      const { pattern, allows } = rule;
      if (pattern.forTags) {
        if (base === null) tagRules.push(rule);
        continue;
      }
      if (pattern.forDigests) {
        if (!pattern.isForDigest(digest)) continue;
        if (allows) return { passes: true, ground: 'digest' };
      }
      base ??= { passes: allows, ground: pattern.forDigests ? 'digest' : 'repository' };
      if (!allows) break;
    }
    const ruling = base ?? this.#otherwise;
    return tagRules.every(({ allows }) => allows === ruling.passes) ? ruling : null;
  }

  /** What is asked for by its digest, where that depends on its tags and none is known. */
  ofUntagged(digest: Digest): Ruling {
    const isRefused = this.#later.some(({ pattern, allows }) => !allows && pattern.isForDigest(digest));
    return isRefused ? { passes: false, ground: 'digest' } : this.#base;
  }

  /** Its tags as a whole: refused where none of them can pass. */
  ofTags(): Ruling {
    if (this.#later.some(({ pattern, allows }) => allows && pattern.forTags)) return { passes: true, ground: 'tag' };
    return this.#base;
  }

  /** How a list of its tags is cut down to those that may pass; null where all of them do. */
  get tagsFilter(): TagsFilter | null {
    const rules = this.#later.flatMap(({ pattern, allows }) =>
      pattern.tag === null ? [] : [{ tag: pattern.tag, allows }],
    );
    const { passes } = this.#base;
    if (passes && rules.every(({ allows }) => allows)) return null;
    return { rules, otherwise: passes, anyCase: this.#repository.anyCase };
  }

  /** Whether what tags stand for decides about its digests. */
  get dependsOnTags(): boolean {
    return this.#later.some(({ pattern }) => pattern.forTags);
  }

  /** Whether patterns name digests of it. */
  get namesDigests(): boolean {
    return this.#rules.some(({ pattern }) => pattern.forDigests);
  }

  /** Whether anything of it may pass: a tag, a digest. */
  get passesAnything(): boolean {
    return this.#base.passes || this.#later.some(({ allows }) => allows);
  }
}

function isForAll(pattern: ImagePattern): boolean {
  return !pattern.forTags && !pattern.forDigests;
}
