import { LRUCache } from 'lru-cache';
import type { ImageRule } from '../config/images.ts';
import type { TagsFilter } from '../oci/documents.ts';
import { RegistryError } from '../oci/errors.ts';
import { contentId, type Digest, type RepositoryKey, repositoryId, type Target } from '../oci/names.ts';
import { subjectOfTag } from '../oci/referrers-tag.ts';
import { Audiences, type Holds } from './audiences.ts';
import type { HistoryStore } from './history-store.ts';
import { ImagePattern, namesOf } from './image-pattern.ts';
import { type Ground, RepositoryRules, type Ruling } from './repository-rules.ts';

/** Repositories, each as one audience has it, whose patterns are remembered: to find them takes as many comparisons as there are patterns. */
const MAX_REPOSITORIES = 4_096;
/** Digests that pass by some tag, remembered: every layer of an image is asked for by its digest. */
const MAX_DIGESTS = 10_000;
/** Tags looked at of one digest: a base image's layer is in every tag of its repository that was pulled here. */
const MAX_TAGS = 1_000;
/** Signatures have signatures; nobody goes deeper. */
const MAX_DEPTH = 4;
/** Questions to the store for one request. */
const MAX_LOOKUPS = 16;

export interface ImagePolicyOptions {
  readonly rules: readonly ImageRule[];
  /** What tags stood for; null where nothing is remembered. */
  readonly history: Pick<HistoryStore, 'tagsNaming'> | null;
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
  readonly #rules: readonly { readonly pattern: ImagePattern; readonly allows: boolean }[];
  readonly #isClosed: boolean;
  readonly #repositories = new LRUCache<string, RepositoryRules>({ max: MAX_REPOSITORIES });
  /** By audience, repository and digest. Only what passes: a tag that is not known now may be the next moment. */
  readonly passing = new LRUCache<string, true>({ max: MAX_DIGESTS });

  constructor(rules: readonly ImageRule[]) {
    this.audiences = new Audiences(rules);
    this.isOpen = rules.length === 0;
    this.#rules = rules.map(({ pattern, allows }) => ({ pattern: new ImagePattern(pattern), allows }));
    this.#isClosed = rules.some(({ allows }) => allows);
  }

  of(key: RepositoryKey, audience: string): RepositoryRules {
    return this.#for(`${audience} ${repositoryId(key)}`, key, () => this.audiences.read(audience));
  }

  /** As they are for whoever may be given the most of it. */
  ofAnybody(key: RepositoryKey): RepositoryRules {
    // No audience has two spaces.
    return this.#for(`  ${repositoryId(key)}`, key, () => this.audiences.ofAnybody);
  }

  #for(id: string, key: RepositoryKey, holds: () => Holds): RepositoryRules {
    let found = this.#repositories.get(id);
    if (found === undefined) {
      const isHeld = holds();
      const held = this.#rules.filter((_, index) => isHeld(index));
      found = new RepositoryRules(namesOf(key), held, this.#isClosed);
      this.#repositories.set(id, found);
    }
    return found;
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

  /** See {@link Audiences.of}. */
  audience(user: string | null, address: string): string {
    return this.#rules.audiences.of(user, address);
  }

  /**
   * At once where the rules alone decide; what they leave to tags is looked up.
   * @param audience as `Pull.audience`
   * @throws {RegistryError} imageRefused; unavailable where what tags stood for cannot be read
   */
  admit({ what, ...key }: Target, audience = ''): Promise<void> | void {
    const rules = this.#rules;
    if (rules.isOpen) return;
    const of = rules.of(key, audience);
    switch (what.kind) {
      case 'tags':
        return this.#require(of.ofTags(), key, repositoryId(key));
      case 'blob':
      case 'referrers':
        return this.#admitDigest(rules, of, key, what.digest, audience, contentId(key, what.digest));
      case 'manifest': {
        const { reference } = what;
        if (reference.kind === 'digest')
          return this.#admitDigest(rules, of, key, reference.digest, audience, contentId(key, reference.digest));
        const image = `${repositoryId(key)}:${reference.tag}`;
        const subject = subjectOfTag(reference.tag);
        const ruling = of.ofTag(reference.tag);
        // What belongs to an image passes with it, where no pattern for tags says otherwise.
        if (subject === null || isRefusedByName(ruling)) return this.#require(ruling, key, image);
        return this.#admitDigest(rules, of, key, subject, audience, image);
      }
    }
  }

  /** To be asked once it is known what a tag stands for. @throws {RegistryError} imageRefused */
  admitTagged(key: RepositoryKey, tag: string, digest: Digest, audience = ''): void {
    const rules = this.#rules;
    if (rules.isOpen) return;
    const ruling = rules.of(key, audience).ofTagged(tag, digest);
    if (ruling.ground === 'digest') this.#require(ruling, key, contentId(key, digest));
  }

  /** How a list of its tags is cut down to those that may pass; null where all of them do. */
  tagsFilter(key: RepositoryKey, audience = ''): TagsFilter | null {
    const rules = this.#rules;
    return rules.isOpen ? null : rules.of(key, audience).tagsFilter;
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

  #admitDigest(
    rules: Rules,
    of: RepositoryRules,
    key: RepositoryKey,
    digest: Digest,
    audience: string,
    image: string,
  ): Promise<void> | void {
    const ruling = of.ofDigest(digest);
    if (ruling !== null) return this.#require(ruling, key, image);
    const id = `${audience} ${contentId(key, digest)}`;
    if (rules.passing.get(id) === true) return;
    return this.#admitByTags(rules, of, key, digest, id, image);
  }

  async #admitByTags(
    rules: Rules,
    of: RepositoryRules,
    key: RepositoryKey,
    digest: Digest,
    id: string,
    image: string,
  ): Promise<void> {
    const passes = await this.#passesByTag(of, key, digest, { lookups: MAX_LOOKUPS }, MAX_DEPTH);
    if (passes) rules.passing.set(id, true);
    this.#require({ passes, ground: 'untagged' }, key, image);
  }

  /** Whether a tag that may pass stood for it, or for what names it; or it belongs to what passes so. */
  async #passesByTag(
    of: RepositoryRules,
    key: RepositoryKey,
    digest: Digest,
    left: { lookups: number },
    depth: number,
  ): Promise<boolean> {
    if (left.lookups-- <= 0) return false;
    const tags = await this.#tagsNaming(key, digest);
    const subjects = new Set<Digest>();
    for (const tag of tags) {
      const subject = subjectOfTag(tag);
      const ruling = of.ofTagged(tag, digest);
      if (subject === null && ruling.passes) return true;
      if (subject !== null && subject !== digest && !isRefusedByName(ruling)) subjects.add(subject);
    }
    if (depth === 0) return false;
    for (const subject of subjects) {
      const ruling = of.ofDigest(subject);
      if (ruling?.passes ?? (await this.#passesByTag(of, key, subject, left, depth - 1))) return true;
    }
    return false;
  }

  async #tagsNaming(key: RepositoryKey, digest: Digest): Promise<readonly string[]> {
    try {
      return (await this.#options.history?.tagsNaming(key, digest, MAX_TAGS)) ?? [];
    } catch (error) {
      const reason = 'what it knows of tags cannot be read, and policy.images asks for it';
      throw new RegistryError('unavailable', { facts: { reason }, cause: error });
    }
  }

  #require({ passes, ground }: Ruling, { registry }: RepositoryKey, image: string): void {
    if (passes) return;
    this.#options.onRefusal?.({ registry, image, ground });
    throw new RegistryError('imageRefused', {
      facts: { image },
      ...(ground === 'untagged' ? { next: UNTAGGED } : {}),
    });
  }
}

const UNTAGGED =
  'pull it by a tag that may pass first, since no such tag is known here to stand for it; or ask its operator, whose policy.images says what may pass';

/** A pattern that names tags, or the digest, refuses it. */
function isRefusedByName({ passes, ground }: Ruling): boolean {
  return !passes && (ground === 'tag' || ground === 'digest');
}
