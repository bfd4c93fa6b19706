import type { Statement } from 'better-sqlite3';
import type { Fence } from '../kit/locks.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import {
  type HistoryStore,
  MAX_SPANS,
  type NewestOfTag,
  placeSighting,
  type Sightings,
  type TagSpan,
  type WholeHistory,
} from '../policy/history-store.ts';
import { type Database, durable, prepareAll } from './database.ts';
import { fromBytes, toBytes } from './digest-bytes.ts';
import { checkFence } from './locks.ts';

const SPAN = `t.variant, t.digest, t.seen_from AS "from", t.seen_to AS "to", s.first AS firstSeen`;
const SPANS = `history_tags t LEFT JOIN history_sights s ON s.repository = t.repository AND s.digest = t.digest`;

const SQL = {
  repository: 'SELECT id FROM history_repositories WHERE registry = ? AND repository = ?',
  addRepository: 'INSERT INTO history_repositories (registry, repository) VALUES (?, ?) RETURNING id',
  spanAfter: `SELECT id, digest, seen_from AS "from", seen_to AS "to" FROM history_tags
    WHERE repository = ? AND tag = ? AND variant = ? AND seen_from > ? ORDER BY seen_from, id LIMIT 1`,
  spanBefore: `SELECT id, digest, seen_from AS "from", seen_to AS "to" FROM history_tags
    WHERE repository = ? AND tag = ? AND variant = ? AND seen_from <= ? ORDER BY seen_from DESC, id DESC LIMIT 1`,
  addSpan: 'INSERT INTO history_tags (repository, tag, variant, digest, seen_from, seen_to) VALUES (?, ?, ?, ?, ?, ?)',
  widenSpan: 'UPDATE history_tags SET seen_from = ?, seen_to = ? WHERE id = ?',
  cutSpans: `DELETE FROM history_tags WHERE id IN (SELECT id FROM history_tags
    WHERE repository = ? AND tag = ? AND variant = ? ORDER BY seen_from DESC, id DESC LIMIT -1 OFFSET ${MAX_SPANS})`,
  sight: 'SELECT id, first, last FROM history_sights WHERE repository = ? AND digest = ?',
  addSight: 'INSERT INTO history_sights (repository, digest, first, last) VALUES (?, ?, ?, ?) RETURNING id',
  changeSight: 'UPDATE history_sights SET first = ?, last = ? WHERE id = ?',
  addName: 'INSERT INTO history_names (parent, child) VALUES (?, ?) ON CONFLICT DO NOTHING',
  lowerNamed: `UPDATE history_sights SET first = :first
    WHERE id IN (SELECT child FROM history_names WHERE parent = :parent) AND first > :first RETURNING id`,
  spans: `SELECT ${SPAN} FROM ${SPANS} WHERE t.repository = :repository AND t.tag = :tag
    AND (:variants IS NULL OR t.variant IN (SELECT value FROM json_each(:variants)))
    ORDER BY t.seen_from DESC, t.id DESC LIMIT :limit`,
  tags: `SELECT t.tag, ${SPAN} FROM ${SPANS}
    WHERE t.repository = :repository AND t.id = (SELECT id FROM history_tags n
      WHERE n.repository = t.repository AND n.tag = t.tag AND n.variant = t.variant ORDER BY seen_from DESC, id DESC LIMIT 1)
    ORDER BY t.seen_to DESC, t.tag, t.variant LIMIT :limit`,
  tagsNaming: `WITH RECURSIVE naming (id) AS (
      SELECT id FROM history_sights WHERE repository = :repository AND digest = :digest
      UNION SELECT parent FROM history_names JOIN naming ON child = naming.id
    )
    SELECT tag FROM history_tags t WHERE t.repository = :repository AND (t.digest = :digest OR t.digest IN
      (SELECT digest FROM history_sights JOIN naming USING (id))) GROUP BY tag ORDER BY max(seen_to) DESC, tag LIMIT :limit`,
  lastSeenBehind: 'SELECT last FROM history_sights ORDER BY last DESC LIMIT 1 OFFSET ?',
  dropTags: 'DELETE FROM history_tags WHERE id IN (SELECT id FROM history_tags WHERE seen_to < ? LIMIT ?)',
  dropSights: 'DELETE FROM history_sights WHERE id IN (SELECT id FROM history_sights WHERE last < ? LIMIT ?)',
  dropRepositories: `DELETE FROM history_repositories WHERE
    NOT EXISTS (SELECT 1 FROM history_tags t WHERE t.repository = history_repositories.id)
    AND NOT EXISTS (SELECT 1 FROM history_sights s WHERE s.repository = history_repositories.id)`,
} as const;

interface SpanRow {
  readonly id: number;
  readonly digest: Digest;
  readonly from: number;
  readonly to: number;
}

interface SightRow {
  readonly id: number;
  readonly first: number;
  readonly last: number;
}

type Raw<T> = Omit<T, 'digest'> & { readonly digest: Buffer };

/** What was seen of images, in `gateway.db`. */
export class SqliteHistoryStore implements HistoryStore {
  readonly #database: Database;
  readonly #run: Readonly<Record<keyof typeof SQL, Statement>>;

  constructor(database: Database) {
    this.#database = database;
    this.#run = prepareAll(database, SQL);
    for (const name of ['repository', 'addRepository', 'addSight', 'lowerNamed', 'tagsNaming'] as const) {
      this.#run[name].pluck();
    }
  }

  async record({ tags, seen, named }: Sightings): Promise<void> {
    await this.#change(() => {
      for (const { tag, variant, digest, at, ...repository } of tags) {
        this.#recordTag(this.#makeRepository(repository), tag, variant, digest, at);
      }
      for (const { digest, at, ...repository } of seen) this.#sight(this.#makeRepository(repository), digest, at, at);
      for (const { parent, children, at, ...repository } of named) {
        const owner = this.#makeRepository(repository);
        const { id, first } = this.#sight(owner, parent, at, at);
        for (const child of children) this.#run.addName.run(id, this.#sight(owner, child, first, at).id);
      }
    });
  }

  async spans(
    repository: RepositoryKey,
    tag: string,
    { variants, limit }: { readonly variants?: readonly string[]; readonly limit: number },
  ): Promise<readonly TagSpan[]> {
    const id = this.#repository(repository);
    if (id === null) return [];
    const of = { repository: id, tag, limit, variants: variants === undefined ? null : JSON.stringify(variants) };
    return (this.#run.spans.all(of) as Raw<TagSpan>[]).map(withDigest);
  }

  async tags(repository: RepositoryKey, limit: number): Promise<readonly NewestOfTag[]> {
    const id = this.#repository(repository);
    if (id === null) return [];
    return (this.#run.tags.all({ repository: id, limit }) as Raw<NewestOfTag>[]).map(withDigest);
  }

  async firstSeen(repository: RepositoryKey, digests: readonly Digest[]): Promise<ReadonlyMap<Digest, number>> {
    const found = new Map<Digest, number>();
    const id = this.#repository(repository);
    if (id === null) return found;
    for (const digest of digests) {
      const row = this.#run.sight.get(id, toBytes(digest)) as SightRow | undefined;
      if (row !== undefined) found.set(digest, row.first);
    }
    return found;
  }

  async tagsNaming(repository: RepositoryKey, digest: Digest, limit: number): Promise<readonly string[]> {
    const id = this.#repository(repository);
    if (id === null) return [];
    return this.#run.tagsNaming.all({ repository: id, digest: toBytes(digest), limit }) as string[];
  }

  async lastSeenBehind(newer: number): Promise<number | null> {
    return (this.#run.lastSeenBehind.get(newer) as { last: number } | undefined)?.last ?? null;
  }

  async dropBefore(before: number, limit: number, under?: Fence): Promise<boolean> {
    return await this.#change(() => {
      checkFence(this.#database, under);
      const tags = this.#run.dropTags.run(before, limit).changes;
      const sights = tags === limit ? 0 : this.#run.dropSights.run(before, limit - tags).changes;
      if (tags + sights === limit) return true;
      this.#run.dropRepositories.run();
      return false;
    });
  }

  #recordTag(repository: number, tag: string, variant: string, digest: Digest, at: number): void {
    const around = [this.#run.spanAfter, this.#run.spanBefore]
      .map((find) => find.get(repository, tag, variant, at) as Raw<SpanRow> | undefined)
      .filter((row) => row !== undefined);
    const placed = placeSighting(around.map(withDigest), digest, at);
    if (placed.kind === 'longer') this.#run.widenSpan.run(placed.from, placed.to, placed.span.id);
    if (placed.kind !== 'new') return;
    this.#run.addSpan.run(repository, tag, variant, toBytes(digest), at, at);
    this.#run.cutSpans.run(repository, tag, variant);
  }

  /** Content was seen: since `first` at the latest, and still at `last`. What it names was then seen since that, too. */
  #sight(repository: number, digest: Digest, first: number, last: number): SightRow {
    const key = toBytes(digest);
    const known = this.#run.sight.get(repository, key) as SightRow | undefined;
    if (known === undefined) {
      return { id: this.#run.addSight.get(repository, key, first, last) as number, first, last };
    }
    const next = { id: known.id, first: Math.min(first, known.first), last: Math.max(last, known.last) };
    if (next.first < known.first || next.last > known.last) this.#run.changeSight.run(next.first, next.last, next.id);
    if (next.first < known.first) this.#lowerNamedBy(next.id, next.first);
    return next;
  }

  #lowerNamedBy(parent: number, first: number): void {
    for (const ids = [parent]; ids.length > 0; ) {
      ids.push(...(this.#run.lowerNamed.all({ first, parent: ids.pop() }) as number[]));
    }
  }

  #repository({ registry, repository }: RepositoryKey): number | null {
    return (this.#run.repository.get(registry, repository) as number | undefined) ?? null;
  }

  #makeRepository(key: RepositoryKey): number {
    return this.#repository(key) ?? (this.#run.addRepository.get(key.registry, key.repository) as number);
  }

  async #change<T>(task: () => T): Promise<T> {
    const result = this.#database.transaction(task).immediate();
    await durable(this.#database);
    return result;
  }
}

function withDigest<T extends { readonly digest: Buffer }>(row: T): Omit<T, 'digest'> & { readonly digest: Digest } {
  return { ...row, digest: fromBytes(row.digest) };
}

/** All of it, for a migration. */
export function readHistory(database: Database): WholeHistory {
  const rows = <T>(sql: string): T[] => database.prepare(sql).all() as T[];
  return {
    spans: rows<Raw<WholeHistory['spans'][number]>>(
      `SELECT r.registry, r.repository, tag, variant, digest, seen_from AS "from", seen_to AS "to"
       FROM history_tags t JOIN history_repositories r ON r.id = t.repository ORDER BY t.id`,
    ).map(withDigest),
    sights: rows<Raw<WholeHistory['sights'][number]>>(
      `SELECT r.registry, r.repository, digest, first, last
       FROM history_sights s JOIN history_repositories r ON r.id = s.repository`,
    ).map(withDigest),
    names: rows<RepositoryKey & { parent: Buffer; child: Buffer }>(
      `SELECT r.registry, r.repository, p.digest AS parent, c.digest AS child FROM history_names n
       JOIN history_sights p ON p.id = n.parent JOIN history_sights c ON c.id = n.child
       JOIN history_repositories r ON r.id = p.repository`,
    ).map((row) => ({ ...row, parent: fromBytes(row.parent), child: fromBytes(row.child) })),
  };
}

/** Puts all of it into a database that has none, in one transaction. */
export function writeHistory(database: Database, { spans, sights, names }: WholeHistory): void {
  const run = prepareAll(database, SQL);
  const ids = new Map<string, number>();
  const idOf = ({ registry, repository }: RepositoryKey): number => {
    const key = `${registry}/${repository}`;
    const id = ids.get(key) ?? (run.addRepository.get(registry, repository) as { id: number }).id;
    ids.set(key, id);
    return id;
  };
  database.transaction(() => {
    for (const { tag, variant, digest, from, to, ...repository } of spans) {
      run.addSpan.run(idOf(repository), tag, variant, toBytes(digest), from, to);
    }
    for (const { digest, first, last, ...repository } of sights) {
      run.addSight.get(idOf(repository), toBytes(digest), first, last);
    }
    for (const { parent, child, ...repository } of names) {
      const [one, other] = [parent, child].map((digest) => run.sight.get(idOf(repository), toBytes(digest)));
      run.addName.run((one as SightRow).id, (other as SightRow).id);
    }
  })();
}
