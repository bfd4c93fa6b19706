import {
  type FoundObject,
  type Giver,
  MAX_GIVERS,
  type ObjectIndex,
  type StoredObject,
} from '../../src/cache/object-index.ts';
import type { Fence } from '../../src/kit/locks.ts';
import { type Digest, type RepositoryKey, repositoryId } from '../../src/oci/names.ts';
import { LockTable } from './locks.ts';

interface Entry {
  object: StoredObject;
  readonly givers: Map<string, Giver>;
}

/** The index of a shared store in memory. */
export class MemoryObjectIndex implements ObjectIndex {
  readonly #entries: Map<Digest, Entry>;
  readonly #now: () => number;
  readonly #locks: LockTable;

  /** @param locks whose fences it knows */
  constructor(now: () => number = Date.now, locks = new LockTable(), entries = new Map<Digest, Entry>()) {
    this.#now = now;
    this.#locks = locks;
    this.#entries = entries;
  }

  /** Another holder of the same. */
  another(): MemoryObjectIndex {
    return new MemoryObjectIndex(this.#now, this.#locks, this.#entries);
  }

  async find(digest: Digest): Promise<FoundObject | null> {
    const entry = this.#entries.get(digest);
    if (entry === undefined || entry.object.condemnedAt !== null) return null;
    return { object: entry.object, givers: [...entry.givers.values()] };
  }

  async put(
    { digest, kind, size }: Pick<StoredObject, 'digest' | 'kind' | 'size'>,
    givers: readonly Giver[],
  ): Promise<void> {
    const known = this.#entries.get(digest)?.givers ?? new Map<string, Giver>();
    for (const giver of givers) {
      const id = repositoryId(giver.repository);
      const shown = known.get(id)?.shown === 'anyone' ? 'anyone' : giver.shown;
      if (known.size < MAX_GIVERS || known.has(id)) known.set(id, { repository: giver.repository, shown });
    }
    this.#entries.set(digest, {
      object: { digest, kind, size, lastUse: this.#now(), condemnedAt: null },
      givers: known,
    });
  }

  async deny(repository: RepositoryKey, digest?: Digest): Promise<void> {
    for (const [id, { givers }] of this.#entries) {
      if (digest === undefined || id === digest) givers.delete(repositoryId(repository));
    }
  }

  async touch(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) this.#change(digest, { lastUse: this.#now() });
  }

  async drop(digests: readonly Digest[]): Promise<void> {
    for (const digest of digests) this.#entries.delete(digest);
  }

  async bytes(): Promise<number> {
    return this.#living().reduce((sum, { size }) => sum + size, 0);
  }

  async after(digest: Digest | null, limit: number): Promise<StoredObject[]> {
    return [...this.#entries.values()]
      .map(({ object }) => object)
      .filter((object) => digest === null || object.digest > digest)
      .toSorted((a, b) => (a.digest < b.digest ? -1 : 1))
      .slice(0, limit);
  }

  async condemn(bytes: number, limit: number, under?: Fence): Promise<number> {
    this.#locks.check(under);
    let over = (await this.bytes()) - bytes;
    let count = 0;
    for (const { digest, size } of this.#living().toSorted((a, b) => a.lastUse - b.lastUse)) {
      if (over <= 0 || count === limit) break;
      this.#change(digest, { condemnedAt: this.#now() });
      over -= size;
      count++;
    }
    return count;
  }

  async doomed(graceMs: number, limit: number): Promise<StoredObject[]> {
    const before = this.#now() - graceMs;
    return [...this.#entries.values()]
      .map(({ object }) => object)
      .filter(({ condemnedAt }) => condemnedAt !== null && condemnedAt <= before)
      .slice(0, limit);
  }

  async forget(digests: readonly Digest[], under?: Fence): Promise<Digest[]> {
    this.#locks.check(under);
    return digests.filter((digest) => {
      const entry = this.#entries.get(digest);
      return entry !== undefined && entry.object.condemnedAt !== null && this.#entries.delete(digest);
    });
  }

  #living(): StoredObject[] {
    return [...this.#entries.values()].map(({ object }) => object).filter(({ condemnedAt }) => condemnedAt === null);
  }

  #change(digest: Digest, change: Partial<StoredObject>): void {
    const entry = this.#entries.get(digest);
    if (entry !== undefined) entry.object = { ...entry.object, ...change };
  }
}
