import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/names.ts';
import type { CacheIndex, Link } from './index-port.ts';

/** Answers kept in memory; some 200 bytes each. */
const MAX_ANSWERS = 20_000;

/** Which repository is known to hold which content. Answers are kept in memory; new links are written in batches, off the path of a pull. */
export class Links {
  readonly #index: CacheIndex;
  readonly #answers = new LRUCache<string, 'public' | 'private'>({ max: MAX_ANSWERS });
  #pending = new Map<string, Link>();

  constructor(index: CacheIndex) {
    this.#index = index;
  }

  /** @throws the index's errors */
  accessOf(repository: RepositoryKey, digest: Digest): 'public' | 'private' | null {
    const key = keyOf(repository, digest);
    const known = this.#answers.get(key);
    if (known !== undefined) return known;
    const links = [this.#pending.get(key), this.#index.linkOf(repository, digest)].filter((link) => link != null);
    if (links.length === 0) return null;
    const access = links.every((link) => link.private) ? 'private' : 'public';
    this.#answers.set(key, access);
    return access;
  }

  link(repository: RepositoryKey, digests: readonly Digest[], isPrivate: boolean): void {
    for (const digest of digests) {
      const key = keyOf(repository, digest);
      const known = this.#answers.get(key);
      if (known === 'public' || (known === 'private' && isPrivate)) continue;
      this.#pending.set(key, { repository, digest, private: isPrivate });
      // Public wins over private. A private link leaves the answer open: the index may have a public one.
      if (!isPrivate) this.#answers.set(key, 'public');
    }
  }

  /** Writes new links. @throws the index's errors */
  flush(): void {
    if (this.#pending.size === 0) return;
    const links = [...this.#pending.values()];
    this.#pending = new Map();
    this.#index.link(links, Date.now());
  }

  /** Rows were dropped from the index directly: answers in memory may be wrong. */
  invalidate(): void {
    this.#answers.clear();
  }
}

function keyOf(repository: RepositoryKey, digest: Digest): string {
  return `${repository.registry}/${repository.repository}@${digest}`;
}
