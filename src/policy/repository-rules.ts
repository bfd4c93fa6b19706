import type { TagsFilter } from '../oci/documents.ts';
import type { Digest } from '../oci/names.ts';
import type { ImagePattern, NamedRepository } from './image-pattern.ts';

/** A line of `policy.images` as it holds for some clients. */
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
  /** The last pattern for all of the repository, or what holds where there is none. */
  readonly #base: Ruling;
  /** Those behind it, the last first. */
  readonly #later: readonly HeldRule[];

  /** @param isClosed what no pattern matches does not pass */
  constructor(repository: NamedRepository, rules: readonly HeldRule[], isClosed: boolean) {
    const own = rules.filter(({ pattern }) => pattern.isFor(repository));
    const last = own.findLastIndex(({ pattern }) => !pattern.forTags && !pattern.forDigests);
    const base = own[last];
    this.#repository = repository;
    this.#base =
      base === undefined ? { passes: !isClosed, ground: 'unlisted' } : { passes: base.allows, ground: 'repository' };
    this.#later = own.slice(last + 1).reverse();
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

  /** What is asked for by its digest; null where it depends on which tags stood for it. */
  ofDigest(digest: Digest): Ruling | null {
    const tagRules: HeldRule[] = [];
    let base = this.#base;
    for (const rule of this.#later) {
      const { pattern, allows } = rule;
      if (pattern.forTags) tagRules.push(rule);
      else if (pattern.isForDigest(digest)) {
        if (allows) return { passes: true, ground: 'digest' };
        base = { passes: false, ground: 'digest' };
        break;
      }
    }
    return tagRules.every(({ allows }) => allows === base.passes) ? base : null;
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

  /** Whether anything of it may pass: a tag, a digest. */
  get passesAnything(): boolean {
    return this.#base.passes || this.#later.some(({ allows }) => allows);
  }
}
