import { LRUCache } from 'lru-cache';
import { type RepositoryKey, repositoryId } from '../oci/names.ts';
import { ImagePattern, namesOf } from './image-pattern.ts';
import { type HeldRule, RepositoryRules } from './repository-rules.ts';

/** Repositories, each as one group of clients has it, whose patterns are remembered: to find them takes as many comparisons as there are patterns. */
const MAX_REPOSITORIES = 4_096;

/** A list of patterns of the configuration, dropped whole with it. What no pattern matches passes only where no pattern allows anything. */
export class PatternList {
  readonly #rules: readonly HeldRule[];
  readonly #isClosed: boolean;
  readonly #repositories = new LRUCache<string, RepositoryRules>({ max: MAX_REPOSITORIES });

  constructor(rules: readonly { readonly pattern: string; readonly allows: boolean }[]) {
    this.#rules = rules.map(({ pattern, allows }) => ({ pattern: new ImagePattern(pattern), allows }));
    this.#isClosed = rules.some(({ allows }) => allows);
  }

  /** Whether a pattern names tags, so that somebody has to know what they stand for. */
  get namesTags(): boolean {
    return this.#rules.some(({ pattern }) => pattern.forTags);
  }

  /**
   * Those that are for a repository.
   * @param group of clients for whom the same patterns hold: what is found is remembered for all of them
   * @param holds which patterns, by their place, hold for them; left out: all
   */
  of(key: RepositoryKey, group = '', holds: () => (place: number) => boolean = () => () => true): RepositoryRules {
    const id = `${group} ${repositoryId(key)}`;
    let found = this.#repositories.get(id);
    if (found === undefined) {
      const isHeld = holds();
      const held = this.#rules.filter((_, place) => isHeld(place));
      found = new RepositoryRules(namesOf(key), held, this.#isClosed);
      this.#repositories.set(id, found);
    }
    return found;
  }
}
