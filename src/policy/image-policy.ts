import { LRUCache } from 'lru-cache';
import type { ImageRule } from '../config/images.ts';
import type { MaybePromise } from '../kit/async.ts';
import type { TagsFilter } from '../oci/documents.ts';
import { RegistryError } from '../oci/errors.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId, type Target } from '../oci/names.ts';
import { subjectOfTag } from '../oci/referrers-tag.ts';
import { Audiences } from './audiences.ts';
import { PatternList } from './pattern-list.ts';
import type { Ground, RepositoryRules, Ruling } from './repository-rules.ts';

/** Digests that pass by some tag, remembered: some 300 bytes each. */
const MAX_DIGESTS = 20_000;
/** Signatures have signatures; nobody goes deeper. */
const MAX_DEPTH = 4;
/** Questions to the history for one request. */
const MAX_LOOKUPS = 16;

/** What this gateway, or its fleet, saw tags stand for. */
export interface KnownTags {
  /** Tags of this repository that stand or stood for the digest, or for a manifest by which it is named. */
  tagsNaming(key: RepositoryKey, digest: Digest): Promise<readonly string[]>;
}

export interface ImagePolicyOptions {
  readonly rules: readonly ImageRule[];
  /** Null where nothing is remembered. */
  readonly history: KnownTags | null;
  /** Called for each refusal. */
  readonly onRefusal?: (refusal: ImageRefusal) => void;
}

export interface ImageRefusal {
  readonly registry: string;
  /** With its tag or digest. */
  readonly image: string;
  readonly ground: Ground;
}

/** What is made of one `policy.images`, dropped whole with it. */
class Rules {
  readonly audiences: Audiences;
  /** Nothing is refused to anybody. */
  readonly isOpen: boolean;
  readonly patterns: PatternList;
  /**
   * By audience, repository and digest; true where what it names is here as well. Only what passes by a tag: one that is not known now may be the
   * next moment.
   */
  readonly passing = new LRUCache<string, boolean>({ max: MAX_DIGESTS });

  constructor(rules: readonly ImageRule[]) {
    this.audiences = new Audiences(rules);
    this.isOpen = rules.length === 0;
    this.patterns = new PatternList(rules);
  }

  of(key: RepositoryKey, audience: string): RepositoryRules {
    return this.patterns.of(key, audience, () => this.audiences.read(audience));
  }

  /** As they are for whoever may be given the most of it. */
  ofAnybody(key: RepositoryKey): RepositoryRules {
    // No audience is called so.
    return this.patterns.of(key, ' ', () => this.audiences.ofAnybody);
  }
}

/**
 * Decides which images may pass, by `policy.images` and by nothing that has to be asked of a registry. One for each gateway, asked by the proxy core before
 * anything is looked up or fetched, for everything that names an image: manifests, blobs, lists. See *What may pass* in README.md.
 */
export class ImagePolicy {
  readonly #options: Omit<ImagePolicyOptions, 'rules'>;
  #rules: Rules;

  constructor({ rules, ...options }: ImagePolicyOptions) {
    this.#options = options;
    this.#rules = new Rules(rules);
  }

  /** Takes other rules, for all that is asked from now on. */
  reconfigure({ policy }: { readonly policy: { readonly images: readonly ImageRule[] } }): void {
    this.#rules = new Rules(policy.images);
  }

  /** Whether what tags stand for, and what manifests name, has to be known. */
  get needsTags(): boolean {
    return this.#rules.patterns.namesTags;
  }

  /** See {@link Audiences.of}. */
  audience(user: string | null, address: string): string {
    return this.#rules.audiences.of(user, address);
  }

  /**
   * Lets a pull in, or not; null where nothing is refused to anybody. At once where the rules alone decide; what they leave to tags may have to be looked up.
   * @param audience as `Pull.audience`
   * @throws {RegistryError} imageRefused; unavailable where what tags stood for cannot be read
   */
  admit({ what, ...key }: Target, audience = ''): MaybePromise<Admission | null> {
    const rules = this.#rules;
    if (rules.isOpen) return null;
    const admission = new Admission(
      rules,
      { registry: key.registry, repository: key.repository },
      audience,
      this.#options,
    );
    switch (what.kind) {
      case 'tags':
        return admission.list();
      case 'blob':
      case 'referrers':
        return admission.digest(what.digest);
      case 'manifest': {
        const { reference } = what;
        return reference.kind === 'digest' ? admission.digest(reference.digest) : admission.tag(reference.tag);
      }
    }
  }

  /**
   * Whether somebody may be given this. For what is asked on behalf of clients that another gateway of the fleet, with the same rules or others, has
   * judged: what nobody here may have is not fetched for it.
   */
  mayPassForSomebody(key: RepositoryKey, digest: Digest): boolean {
    const rules = this.#rules;
    if (rules.isOpen) return true;
    const of = rules.ofAnybody(key);
    return of.ofDigest(digest)?.passes ?? of.passesAnything;
  }
}

/** One pull of a repository, by the rules that were in force when it came. Others that come meanwhile are for the pulls after it. */
export class Admission {
  readonly #rules: Rules;
  readonly #of: RepositoryRules;
  readonly #key: RepositoryKey;
  readonly #audience: string;
  readonly #options: Omit<ImagePolicyOptions, 'rules'>;

  constructor(rules: Rules, key: RepositoryKey, audience: string, options: Omit<ImagePolicyOptions, 'rules'>) {
    this.#rules = rules;
    this.#of = rules.of(key, audience);
    this.#key = key;
    this.#audience = audience;
    this.#options = options;
  }

  list(): this {
    return this.#require(this.#of.ofTags(), repositoryId(this.#key));
  }

  /** What belongs to an image (signatures) passes with it, where no pattern for tags says otherwise. */
  tag(tag: string): MaybePromise<this> {
    const image = `${repositoryId(this.#key)}:${tag}`;
    const subject = subjectOfTag(tag);
    const ruling = this.#of.ofTag(tag);
    if (subject === null || isRefusedByName(ruling)) return this.#require(ruling, image);
    return this.digest(subject, image);
  }

  /** @param image what was asked for, where that is not the digest itself */
  digest(digest: Digest, image = contentId(this.#key, digest)): MaybePromise<this> {
    const ruling = this.#of.ofDigest(digest);
    if (ruling !== null) return this.#require(ruling, image);
    return this.#rules.passing.has(this.#id(digest)) ? this : this.#byTags(digest, image);
  }

  /** To be asked once it is known what a tag stands for: a digest that is refused is refused by its tag, too. @throws {RegistryError} imageRefused */
  tagged(tag: string, digest: Digest): void {
    const ruling = this.#of.ofTagged(tag, digest);
    if (ruling.ground === 'digest') this.#require(ruling, contentId(this.#key, digest));
  }

  /** How a list of tags is cut down to those that may pass; null where all of them do. */
  get tagsFilter(): TagsFilter | null {
    return this.#of.tagsFilter;
  }

  /** Whether what tags stand for decides about this repository's digests. */
  get dependsOnTags(): boolean {
    return this.#of.dependsOnTags;
  }

  /** Whether what this manifest names has still to be told. */
  wantsParts(digest: Digest): boolean {
    return this.#remembers && this.#rules.passing.get(this.#id(digest)) !== true;
  }

  /**
   * A manifest that was admitted is about to be given: whoever has it asks for what it names the next moment, which passes as it does.
   * @param parts what it names; null where that is not known
   */
  gives(digest: Digest, parts: readonly Digest[] | null): void {
    this.givesWith(parts ?? []);
    if (this.#remembers) this.#rules.passing.set(this.#id(digest), parts !== null);
  }

  /** So do those that a list of referrers names, which is about to be given. */
  givesWith(parts: readonly Digest[]): void {
    if (!this.#remembers) return;
    const { passing } = this.#rules;
    for (const part of parts) if (!passing.has(this.#id(part))) passing.set(this.#id(part), false);
  }

  /** Where patterns name digests, each is judged by itself. */
  get #remembers(): boolean {
    return this.#of.dependsOnTags && !this.#of.namesDigests;
  }

  async #byTags(digest: Digest, image: string): Promise<this> {
    const passes = await this.#passesByTag(digest, { lookups: MAX_LOOKUPS }, MAX_DEPTH);
    if (passes) this.#rules.passing.set(this.#id(digest), false);
    return this.#require({ passes, ground: 'untagged' }, image);
  }

  /** Whether a tag that may pass stood for it, or for what names it; or it belongs to what passes so. */
  async #passesByTag(digest: Digest, left: { lookups: number }, depth: number): Promise<boolean> {
    if (left.lookups-- <= 0) return false;
    const subjects = new Set<Digest>();
    for (const tag of await this.#tagsNaming(digest)) {
      const subject = subjectOfTag(tag);
      const ruling = this.#of.ofTagged(tag, digest);
      if (subject === null && ruling.passes) return true;
      if (subject !== null && subject !== digest && !isRefusedByName(ruling)) subjects.add(subject);
    }
    if (depth === 0) return false;
    for (const subject of subjects) {
      const ruling = this.#of.ofDigest(subject);
      if (ruling?.passes ?? (await this.#passesByTag(subject, left, depth - 1))) return true;
    }
    return false;
  }

  async #tagsNaming(digest: Digest): Promise<readonly string[]> {
    try {
      return (await this.#options.history?.tagsNaming(this.#key, digest)) ?? [];
    } catch (error) {
      const reason = 'what it knows of tags cannot be read, and policy.images asks for it';
      throw new RegistryError('unavailable', { facts: { reason }, cause: error });
    }
  }

  #id(digest: Digest): string {
    return `${this.#audience} ${contentId(this.#key, digest)}`;
  }

  #require({ passes, ground }: Ruling, image: string): this {
    if (passes) return this;
    this.#options.onRefusal?.({ registry: this.#key.registry, image, ground });
    const next = ground === 'untagged' ? { next: UNTAGGED } : {};
    throw new RegistryError('imageRefused', { facts: { image }, ...next });
  }
}

const UNTAGGED =
  'pull it by a tag that may pass first, since no such tag is known here to stand for it; or ask its operator, whose policy.images says what may pass';

/** A pattern that names tags, or the digest, refuses it. */
function isRefusedByName({ passes, ground }: Ruling): boolean {
  return !passes && (ground === 'tag' || ground === 'digest');
}
