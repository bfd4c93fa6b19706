import type { Statement } from 'better-sqlite3';
import type { KeptTag, TagPlace, TagRow } from '../cache/index-port.ts';
import type { RepositoryKey } from '../oci/names.ts';
import { type Database, prepareAll } from './database.ts';
import { fromBytes, toBytes } from './digest-bytes.ts';
import type { Repositories } from './fact-table.ts';

/** The statements of tags. All of them find their rows by a key, whatever the number of rows; a test asks SQLite for their plans. */
export const TAG_SQL = {
  tag: 'SELECT digest, checked_at AS checkedAt FROM tags WHERE repository = ? AND tag = ? AND variant = ?',
  putTag: `INSERT INTO tags (repository, tag, variant, digest, checked_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET digest = excluded.digest, checked_at = excluded.checked_at`,
  dropTag: 'DELETE FROM tags WHERE repository = ? AND tag = ? AND variant = ?',
  tagsBehind: `SELECT tag, variant, digest, checked_at AS checkedAt FROM tags
    WHERE repository = ? AND (tag, variant) > (?, ?) ORDER BY tag, variant LIMIT ?`,
  // CROSS: in this order, whatever the numbers of rows.
  tagsOfOthers: `SELECT registry, name AS repository, tag, variant, digest, checked_at AS checkedAt
    FROM repositories CROSS JOIN tags ON tags.repository = repositories.id
    WHERE (registry, name) > (?, ?) ORDER BY registry, name, tag, variant LIMIT ?`,
  tagsToCome: `UPDATE tags SET checked_at = 0 WHERE (repository, tag, variant) IN
    (SELECT repository, tag, variant FROM tags WHERE checked_at > ? ORDER BY checked_at LIMIT ?)`,
  dropStaleTags: `DELETE FROM tags WHERE (repository, tag, variant) IN
    (SELECT repository, tag, variant FROM tags WHERE checked_at < ? ORDER BY checked_at LIMIT ?)`,
  shrinkTags: `DELETE FROM tags WHERE (repository, tag, variant) IN
    (SELECT repository, tag, variant FROM tags ORDER BY checked_at LIMIT ?)`,
  forgetTags: `DELETE FROM tags WHERE (repository, tag, variant) IN (SELECT tags.repository, tags.tag, tags.variant
    FROM repositories JOIN tags ON tags.repository = repositories.id WHERE repositories.registry = ? LIMIT ?)`,
} as const;

interface RawTag {
  readonly digest: Buffer;
  readonly checkedAt: number;
}

type RawKeptTag = RawTag & Pick<KeptTag, 'tag' | 'variant'>;

/** What tags stood for when their registries were last asked, for each class of `Accept` headers. */
export class TagTable {
  readonly #run: Readonly<Record<keyof typeof TAG_SQL, Statement>>;
  readonly #repositories: Repositories;

  constructor(database: Database, repositories: Repositories) {
    this.#run = prepareAll(database, TAG_SQL);
    this.#repositories = repositories;
  }

  get(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    const known = this.#repositories.find(repository);
    if (known === undefined) return null;
    const row = this.#run.tag.get(known.id, tag, variant) as RawTag | undefined;
    return row === undefined ? null : { digest: fromBytes(row.digest), checkedAt: row.checkedAt };
  }

  /** Within a transaction: its repository may be new. */
  put(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    this.#run.putTag.run(this.#repositories.ensure(repository).id, tag, variant, toBytes(row.digest), row.checkedAt);
  }

  drop(repository: RepositoryKey, tag: string, variant: string): void {
    const known = this.#repositories.find(repository);
    if (known !== undefined) this.#run.dropTag.run(known.id, tag, variant);
  }

  after(place: TagPlace | null, limit: number): KeptTag[] {
    const { registry, repository, tag, variant } = place ?? { registry: '', repository: '', tag: '', variant: '' };
    const known = this.#repositories.find({ registry, repository });
    const own = known === undefined ? [] : (this.#run.tagsBehind.all(known.id, tag, variant, limit) as RawKeptTag[]);
    const rest = limit - own.length;
    const others = rest === 0 ? [] : this.#run.tagsOfOthers.all(registry, repository, rest);
    return [
      ...own.map((row) => ({ registry, repository, ...row, digest: fromBytes(row.digest) })),
      ...(others as (RawKeptTag & RepositoryKey)[]).map((row) => ({ ...row, digest: fromBytes(row.digest) })),
    ];
  }

  /** Times that are still to come become long ago. Returns how many did. */
  settle(now: number, limit: number): number {
    return this.#run.tagsToCome.run(now, limit).changes;
  }

  dropStale(before: number, limit: number): boolean {
    return this.#run.dropStaleTags.run(before, limit).changes === limit;
  }

  /** Drops the tags asked for longest ago. */
  dropOldest(limit: number): void {
    this.#run.shrinkTags.run(limit);
  }

  /** Returns how many went. */
  forget(registry: string, limit: number): number {
    return this.#run.forgetTags.run(registry, limit).changes;
  }
}
