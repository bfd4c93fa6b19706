import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/target.ts';
import type { CacheIndex, Link } from './index-port.ts';

/** Answers remembered in memory; some 100 bytes each. */
const HOT_LINKS = 20_000;

/** Which repository holds what. Hot answers come from memory, new links are written in batches off the path of a pull. */
export class Links {
  readonly #index: CacheIndex;
  /** In order of use, the oldest first. */
  readonly #hot = new Map<string, 'public' | 'private'>();
  #pending = new Map<string, Link>();

  constructor(index: CacheIndex) {
    this.#index = index;
  }

  accessOf(repository: RepositoryKey, digest: Digest): 'public' | 'private' | null {
    const key = keyOf(repository, digest);
    const hot = this.#hot.get(key);
    if (hot !== undefined) return hot;
    const links = [this.#pending.get(key), this.#index.linkOf(repository, digest)].filter((link) => link != null);
    if (links.length === 0) return null;
    const access = links.every((link) => link.private) ? 'private' : 'public';
    this.#remember(key, access);
    return access;
  }

  link(repository: RepositoryKey, digests: readonly Digest[], isPrivate: boolean): void {
    for (const digest of digests) {
      const key = keyOf(repository, digest);
      const known = this.#hot.get(key);
      if (known === 'public' || (known === 'private' && isPrivate)) continue;
      this.#pending.set(key, { repository, digest, private: isPrivate });
      // Public wins over private. For a private one the index is asked: it may have it as public.
      if (!isPrivate) this.#remember(key, 'public');
    }
  }

  flush(): void {
    if (this.#pending.size === 0) return;
    const links = [...this.#pending.values()];
    this.#pending = new Map();
    this.#index.link(links, Date.now());
  }

  /** Forgets what it remembers, for example when rows were dropped. */
  forget(): void {
    this.#hot.clear();
  }

  #remember(key: string, access: 'public' | 'private'): void {
    this.#hot.set(key, access);
    if (this.#hot.size <= HOT_LINKS) return;
    for (const oldest of this.#hot.keys()) {
      this.#hot.delete(oldest);
      break;
    }
  }
}

function keyOf(repository: RepositoryKey, digest: Digest): string {
  return `${repository.registry}/${repository.repository}@${digest}`;
}
