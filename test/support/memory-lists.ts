import type { ListIndex, ListLimits, ListOwners, ListRow, ListState } from '../../src/cache/index-port.ts';
import { type RepositoryKey, repositoryId } from '../../src/oci/names.ts';

interface Entry {
  readonly row: ListRow;
  readonly owners: ListOwners;
}

/** The lists of the index in memory: one map, looked through as a whole. */
export class MemoryLists implements ListIndex {
  readonly #entries = new Map<string, Entry>();

  state(repository: RepositoryKey, question: string): ListState | null {
    const row = this.get(repository, question);
    return row === null ? null : { shown: row.shown, checkedAt: row.checkedAt };
  }

  get(repository: RepositoryKey, question: string): ListRow | null {
    return this.#entries.get(keyOf(repository, question))?.row ?? null;
  }

  put(repository: RepositoryKey, question: string, row: ListRow, owners: ListOwners, limits: ListLimits): void {
    if (sizeOf(row) > limits.client) return;
    const key = keyOf(repository, question);
    this.#entries.set(key, { row, owners: this.#entries.get(key)?.owners ?? owners });
    this.#shrink(({ owners: { client } }) => client === owners.client, limits.client);
    this.#shrink(({ owners: { registry } }) => registry === owners.registry, limits.registry);
    this.#shrink(() => true, limits.all);
  }

  drop(repository: RepositoryKey, question: string): void {
    this.#entries.delete(keyOf(repository, question));
  }

  dropAll(repository: RepositoryKey): void {
    this.forget(`${repositoryId(repository)} `);
  }

  dropBefore(before: number): boolean {
    for (const [key, { row }] of this.#entries) if (row.checkedAt < before) this.#entries.delete(key);
    return false;
  }

  bytes(): number {
    return this.#bytesOf(() => true);
  }

  /** Whose key begins so: see `keyOf`. */
  forget(prefix: string): void {
    for (const key of this.#entries.keys()) if (key.startsWith(prefix)) this.#entries.delete(key);
  }

  settle(now: number): void {
    for (const [key, { row, owners }] of this.#entries) {
      if (row.checkedAt > now) this.#entries.set(key, { row: { ...row, checkedAt: 0 }, owners });
    }
  }

  #bytesOf(counts: (entry: Entry) => boolean): number {
    return [...this.#entries.values()].filter(counts).reduce((sum, { row }) => sum + sizeOf(row), 0);
  }

  #shrink(counts: (entry: Entry) => boolean, limit: number): void {
    while (this.#bytesOf(counts) > limit) {
      const own = [...this.#entries].filter(([, entry]) => counts(entry));
      const [oldest] = own.sort(([, a], [, b]) => a.row.checkedAt - b.row.checkedAt);
      if (oldest !== undefined) this.#entries.delete(oldest[0]);
    }
  }
}

function keyOf(repository: RepositoryKey, question: string): string {
  return `${repositoryId(repository)} ${question}`;
}

function sizeOf({ body, next }: ListRow): number {
  return body.length + (next?.length ?? 0) + 512;
}
