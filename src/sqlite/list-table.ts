import { createHash } from 'node:crypto';
import type { Statement } from 'better-sqlite3';
import type { ListIndex, ListLimits, ListOwners, ListRow, ListState } from '../cache/index-port.ts';
import type { CredentialId } from '../oci/credentials.ts';
import type { RepositoryKey } from '../oci/names.ts';
import { type Database, prepareAll } from './database.ts';
import { fromColumns, type Repositories, toColumns } from './fact-table.ts';

/** The statements of lists. All of them find their rows by a key, whatever the number of rows; a test asks SQLite for their plans. */
export const LIST_SQL = {
  listState: `SELECT checked_at AS checkedAt, shown, shown_by AS shownBy FROM lists
    WHERE repository = ? AND question = ? AND generation = ?`,
  list: `SELECT checked_at AS checkedAt, shown, shown_by AS shownBy, mark, next, cut_after AS cutAfter, body FROM lists
    WHERE repository = ? AND question = ? AND generation = ?`,
  confirmList: `UPDATE lists SET checked_at = ?, shown = ?, shown_by = ?
    WHERE repository = ? AND question = ? AND generation = ? AND sum = ?`,
  putList: `INSERT INTO lists
      (repository, question, generation, checked_at, shown, shown_by, registry, client, size, sum, mark, next, cut_after, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (repository, question) DO UPDATE SET generation = excluded.generation, checked_at = excluded.checked_at,
      shown = excluded.shown, shown_by = excluded.shown_by, size = excluded.size, sum = excluded.sum, mark = excluded.mark, next = excluded.next,
      cut_after = excluded.cut_after, body = excluded.body`,
  dropList: 'DELETE FROM lists WHERE repository = ? AND question = ?',
  dropLists: 'DELETE FROM lists WHERE repository = ?',
  dropOldLists: `DELETE FROM lists WHERE id IN
    (SELECT id FROM lists WHERE checked_at < ? ORDER BY checked_at LIMIT ?)`,
  listsToCome: `UPDATE lists SET checked_at = 0 WHERE id IN
    (SELECT id FROM lists WHERE checked_at > ? ORDER BY checked_at LIMIT ?)`,
  forgetLists: `DELETE FROM lists WHERE id IN (SELECT lists.id FROM repositories
    JOIN lists ON lists.repository = repositories.id WHERE repositories.registry = ? LIMIT ?)`,
  listShare: 'SELECT bytes FROM list_shares WHERE kind = ? AND name = ?',
  oldestOfAll: 'DELETE FROM lists WHERE id = (SELECT id FROM lists ORDER BY checked_at LIMIT 1)',
  oldestOfRegistry: `DELETE FROM lists WHERE id =
    (SELECT id FROM lists WHERE registry = ? ORDER BY checked_at LIMIT 1)`,
  oldestOfClient: `DELETE FROM lists WHERE id =
    (SELECT id FROM lists WHERE client = ? ORDER BY checked_at LIMIT 1)`,
} as const;

/** Charged for a list beside its own bytes: its row, and its entries in the indexes. So the room for bytes bounds their number, too. */
const OVERHEAD = 512;

interface RawState {
  readonly checkedAt: number;
  readonly shown: number;
  readonly shownBy: CredentialId;
}

/** The last list that a repository gave to each question, and in whose share of the room it counts. */
export class ListTable implements ListIndex {
  readonly #database: Database;
  readonly #run: Readonly<Record<keyof typeof LIST_SQL, Statement>>;
  readonly #repositories: Repositories;

  constructor(database: Database, repositories: Repositories) {
    this.#database = database;
    this.#run = prepareAll(database, LIST_SQL);
    this.#run.listShare.pluck();
    this.#repositories = repositories;
  }

  state(key: RepositoryKey, question: string): ListState | null {
    const repository = this.#repositories.find(key);
    if (repository === undefined) return null;
    const row = this.#run.listState.get(repository.id, hash(question), repository.generation) as RawState | undefined;
    return row === undefined ? null : stateOf(row);
  }

  get(key: RepositoryKey, question: string): ListRow | null {
    const repository = this.#repositories.find(key);
    if (repository === undefined) return null;
    const row = this.#run.list.get(repository.id, hash(question), repository.generation);
    if (row === undefined) return null;
    const { checkedAt: _, shown: __, shownBy: ___, ...list } = row as RawState & Omit<ListRow, keyof ListState>;
    return { ...list, ...stateOf(row as RawState) };
  }

  put(key: RepositoryKey, question: string, list: ListRow, owners: ListOwners, limits: ListLimits): void {
    const { body, mark, next, cutAfter, checkedAt } = list;
    const shown = toColumns(list.shown);
    const size = body.length + (next?.length ?? 0) + OVERHEAD;
    // It would push out all others of its client, and itself.
    if (size > limits.client) return;
    const sum = createHash('sha256')
      .update(body)
      .update(JSON.stringify([next, cutAfter]))
      .digest();
    this.#database
      .transaction(() => {
        const { id, generation } = this.#repositories.revived(key);
        const name = hash(question);
        if (this.#run.confirmList.run(checkedAt, ...shown, id, name, generation, sum).changes > 0) return;
        const { registry, client } = owners;
        const state = [generation, checkedAt, ...shown, registry, client, size, sum];
        this.#run.putList.run(id, name, ...state, mark, next, cutAfter, body);
        this.#shrink('client', client, limits.client, () => this.#run.oldestOfClient.run(client).changes);
        this.#shrink('registry', registry, limits.registry, () => this.#run.oldestOfRegistry.run(registry).changes);
        this.#shrink('all', '', limits.all, () => this.#run.oldestOfAll.run().changes);
      })
      .immediate();
  }

  drop(key: RepositoryKey, question: string): void {
    const repository = this.#repositories.find(key);
    if (repository !== undefined) this.#run.dropList.run(repository.id, hash(question));
  }

  dropAll(key: RepositoryKey): void {
    const repository = this.#repositories.find(key);
    if (repository !== undefined) this.#run.dropLists.run(repository.id);
  }

  dropBefore(before: number, limit: number): boolean {
    return this.#run.dropOldLists.run(before, limit).changes === limit;
  }

  /** Returns how many went. */
  forget(registry: string, limit: number): number {
    return this.#run.forgetLists.run(registry, limit).changes;
  }

  /** Those whose time is still to come are long ago. Returns how many were. */
  settle(now: number, limit: number): number {
    return this.#run.listsToCome.run(now, limit).changes;
  }

  bytes(): number {
    return this.#share('all', '');
  }

  #share(kind: 'all' | 'registry' | 'client', name: string): number {
    return (this.#run.listShare.get(kind, name) as number | undefined) ?? 0;
  }

  #shrink(kind: 'all' | 'registry' | 'client', name: string, limit: number, dropOldest: () => number): void {
    while (this.#share(kind, name) > limit && dropOldest() > 0);
  }
}

/** Clients make questions as long as URLs are. */
function hash(question: string): Buffer {
  return createHash('sha256').update(question).digest();
}

function stateOf({ checkedAt, shown, shownBy }: RawState): ListState {
  return { checkedAt, shown: fromColumns(shown, shownBy) ?? shownBy };
}
