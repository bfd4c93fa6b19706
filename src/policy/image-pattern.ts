import { splitPattern } from '../config/images.ts';
import { Glob } from '../kit/glob.ts';
import { canonicalRegistry, DOCKER_HUB, hasMixedCase } from '../oci/known-registries.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';

/** A repository as patterns are held against it. */
export interface NamedRepository {
  /** Every name that people write for it, in lower case. */
  readonly names: readonly string[];
  /** Its registry takes `Q4_0` and `q4_0` for one tag. */
  readonly anyCase: boolean;
}

/** `docker.io/library/nginx` is called `docker.io/nginx` too; a pattern is for it where it matches either. */
export function namesOf({ registry, repository }: RepositoryKey): NamedRepository {
  const host = plainRegistry(registry);
  const name = `${host}/${repository}`.toLowerCase();
  const short = `${DOCKER_HUB}/library/`;
  const isShort = name.startsWith(short) && !name.includes('/', short.length);
  return {
    names: isShort ? [name, `${DOCKER_HUB}/${name.slice(short.length)}`] : [name],
    anyCase: hasMixedCase(host),
  };
}

/** One name for a registry that has several; the port that HTTPS has anyway is none of it. */
function plainRegistry(registry: string): string {
  return canonicalRegistry(registry.toLowerCase().replace(/:443$/, ''));
}

/** One pattern of the configuration, ready to be held against images. */
export class ImagePattern {
  /** Registry and repository, the registry by its one name. */
  readonly name: string;
  /** What tags it is for; null where it names none. */
  readonly tag: string | null;
  /** What digests; where it names none of these either, it is for all of a repository. */
  readonly digest: string | null;
  readonly #name: Glob;
  readonly #tag: Glob;
  readonly #tagInAnyCase: Glob;
  readonly #digest: Glob;

  /** @throws {BadValue} where it is none; the configuration has checked its own */
  constructor(text: string) {
    const { name, tag, digest } = splitPattern(text);
    const slash = name.indexOf('/');
    this.name = slash < 0 ? name : `${plainRegistry(name.slice(0, slash))}${name.slice(slash)}`;
    this.tag = tag;
    this.digest = digest;
    this.#name = new Glob(this.name);
    this.#tag = new Glob(tag ?? '*');
    this.#tagInAnyCase = new Glob((tag ?? '*').toLowerCase());
    this.#digest = new Glob(digest ?? '*');
  }

  get forTags(): boolean {
    return this.tag !== null;
  }

  get forDigests(): boolean {
    return this.digest !== null;
  }

  isFor({ names }: NamedRepository): boolean {
    return names.some((name) => this.#name.matches(name));
  }

  isForTag(tag: string, { anyCase }: Pick<NamedRepository, 'anyCase'>): boolean {
    return this.forTags && (anyCase ? this.#tagInAnyCase.matches(tag.toLowerCase()) : this.#tag.matches(tag));
  }

  isForDigest(digest: Digest): boolean {
    return this.forDigests && this.#digest.matches(digest);
  }

  /** Whether it is for all that the other one is for, so that the other one, before it, never decides. */
  covers(other: ImagePattern): boolean {
    if (!this.#name.covers(other.name)) return false;
    if (this.tag !== null) return other.tag !== null && this.#tag.covers(other.tag);
    return this.digest === null || (other.digest !== null && this.#digest.covers(other.digest));
  }
}
