import { contentId, type Digest, type RepositoryKey } from '../../src/oci/names.ts';
import type { KnownTags } from '../../src/policy/image-policy.ts';

/** What tags stand for and what manifests name, as a test says it. */
export class MemoryTags implements KnownTags {
  /** Questions so far. */
  asked = 0;
  failing = false;
  readonly #tags = new Map<string, Set<string>>();
  readonly #parents = new Map<string, Digest[]>();

  tag(key: RepositoryKey, tag: string, digest: Digest): void {
    const id = contentId(key, digest);
    this.#tags.set(id, (this.#tags.get(id) ?? new Set()).add(tag));
  }

  names(key: RepositoryKey, parent: Digest, child: Digest): void {
    const id = contentId(key, child);
    this.#parents.set(id, [...(this.#parents.get(id) ?? []), parent]);
  }

  async tagsNaming(key: RepositoryKey, digest: Digest): Promise<readonly string[]> {
    this.asked += 1;
    if (this.failing) throw new Error('the database is gone');
    return [...this.of(key, digest)];
  }

  of(key: RepositoryKey, digest: Digest, seen = new Set<Digest>()): Set<string> {
    if (seen.has(digest)) return new Set();
    seen.add(digest);
    const id = contentId(key, digest);
    const above = (this.#parents.get(id) ?? []).flatMap((parent) => [...this.of(key, parent, seen)]);
    return new Set([...(this.#tags.get(id) ?? []), ...above]);
  }
}
