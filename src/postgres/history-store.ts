import type { Fence } from '../kit/locks.ts';
import { type Digest, type RepositoryKey, repositoryId } from '../oci/names.ts';
import {
  type HistoryStore,
  MAX_SPANS,
  type NewestOfTag,
  placeSighting,
  type Sightings,
  type TagSpan,
  type WholeHistory,
} from '../policy/history-store.ts';
import type { PostgresDatabase, Query } from './database.ts';

/** Spans of a tag that a sighting is placed among: what a node writes late is some minutes old, and no tag that people use moves more often. */
const LATEST = 32;

const SPAN = `t.variant, t.digest, t.seen_from AS "from", t.seen_to AS "to", s.first AS "firstSeen"`;
const SPANS = `history_tags t JOIN history_repositories r ON r.id = t.repository
  LEFT JOIN history_sights s ON s.repository = t.repository AND s.digest = t.digest`;

interface SpanRow {
  /** Null until it is put. */
  readonly id: number | null;
  readonly digest: Digest;
  from: number;
  to: number;
}

/** What the nodes of a fleet saw of images, in their database. */
export class PostgresHistoryStore implements HistoryStore {
  readonly #database: Pick<PostgresDatabase, 'query' | 'write'>;

  constructor(database: Pick<PostgresDatabase, 'query' | 'write'>) {
    this.#database = database;
  }

  async record({ tags, seen, named }: Sightings): Promise<void> {
    if (tags.length + seen.length + named.length === 0) return;
    await this.#database.write({ by: this, topic: null }, async (query) => {
      // One node after the other: what one reads of a tag or of a parent no other may be changing. Each takes some milliseconds, seconds apart.
      await query('LOCK TABLE history_repositories IN SHARE ROW EXCLUSIVE MODE');
      const ids = await repositoryIds(query, [...tags, ...seen, ...named]);
      await recordTags(query, ids, tags);
      const owner = (key: RepositoryKey): number => ids.get(repositoryId(key)) ?? 0;
      const shown = [...seen, ...named.map(({ parent, ...rest }) => ({ ...rest, digest: parent }))];
      await putSights(
        query,
        shown.map((each) => ({ repository: owner(each), digest: each.digest, first: each.at, last: each.at })),
      );
      await recordNames(query, owner, named);
      return { result: undefined, changed: true };
    });
  }

  async spans(
    { registry, repository }: RepositoryKey,
    tag: string,
    { variants, limit }: { readonly variants?: readonly string[]; readonly limit: number },
  ): Promise<readonly TagSpan[]> {
    const { rows } = await this.#database.query<TagSpan>(
      `SELECT ${SPAN} FROM ${SPANS} WHERE r.registry = $1 AND r.repository = $2 AND t.tag = $3 AND ($4::text[] IS NULL OR t.variant = ANY ($4))
       ORDER BY t.seen_from DESC, t.id DESC LIMIT $5`,
      [registry, repository, tag, variants ?? null, limit],
    );
    return rows;
  }

  async tags({ registry, repository }: RepositoryKey, limit: number): Promise<readonly NewestOfTag[]> {
    const { rows } = await this.#database.query<NewestOfTag>(
      `SELECT * FROM (
         SELECT DISTINCT ON (t.tag, t.variant) t.tag, ${SPAN} FROM ${SPANS} WHERE r.registry = $1 AND r.repository = $2
         ORDER BY t.tag, t.variant, t.seen_from DESC, t.id DESC
       ) AS newest ORDER BY "to" DESC, tag, variant LIMIT $3`,
      [registry, repository, limit],
    );
    return rows;
  }

  async firstSeen(
    { registry, repository }: RepositoryKey,
    digests: readonly Digest[],
  ): Promise<ReadonlyMap<Digest, number>> {
    const { rows } = await this.#database.query<{ digest: Digest; first: number }>(
      `SELECT digest, first FROM history_sights s JOIN history_repositories r ON r.id = s.repository
       WHERE r.registry = $1 AND r.repository = $2 AND digest = ANY ($3)`,
      [registry, repository, digests],
    );
    return new Map(rows.map(({ digest, first }) => [digest, first]));
  }

  async tagsNaming({ registry, repository }: RepositoryKey, digest: Digest, limit: number): Promise<readonly string[]> {
    const { rows } = await this.#database.query<{ tag: string }>(
      `WITH RECURSIVE owner AS (SELECT id FROM history_repositories WHERE registry = $1 AND repository = $2),
         naming (id) AS (
           SELECT id FROM history_sights WHERE repository = (SELECT id FROM owner) AND digest = $3
           UNION SELECT parent FROM history_names JOIN naming ON child = naming.id
         )
       SELECT tag FROM history_tags WHERE repository = (SELECT id FROM owner) AND (digest = $3 OR digest IN
         (SELECT s.digest FROM history_sights s JOIN naming USING (id))) GROUP BY tag ORDER BY max(seen_to) DESC, tag LIMIT $4`,
      [registry, repository, digest, limit],
    );
    return rows.map(({ tag }) => tag);
  }

  async lastSeenBehind(newer: number): Promise<number | null> {
    const text = 'SELECT last FROM history_sights ORDER BY last DESC LIMIT 1 OFFSET $1';
    return (await this.#database.query<{ last: number }>(text, [newer])).rows[0]?.last ?? null;
  }

  async dropBefore(before: number, limit: number, under?: Fence): Promise<boolean> {
    return await this.#database.write({ by: this, topic: null, under }, async (query) => {
      // Before any other lock, as `record` does.
      await query('LOCK TABLE history_repositories IN SHARE ROW EXCLUSIVE MODE');
      const drop = async (table: string, column: string, most: number): Promise<number> => {
        const { rowCount } = await query(
          `DELETE FROM ${table} WHERE id IN (SELECT id FROM ${table} WHERE ${column} < $1 LIMIT $2)`,
          [before, most],
        );
        return rowCount ?? 0;
      };
      const tags = await drop('history_tags', 'seen_to', limit);
      const sights = tags === limit ? 0 : await drop('history_sights', 'last', limit - tags);
      if (tags + sights === limit) return { result: true, changed: true };
      await query(
        `DELETE FROM history_repositories r WHERE NOT EXISTS (SELECT FROM history_tags WHERE repository = r.id)
           AND NOT EXISTS (SELECT FROM history_sights WHERE repository = r.id)`,
      );
      return { result: false, changed: true };
    });
  }
}

/** Of the repositories, by `repositoryId`; made where there is none. */
async function repositoryIds(query: Query, keys: readonly RepositoryKey[]): Promise<ReadonlyMap<string, number>> {
  const distinct = [...new Map(keys.map((key) => [repositoryId(key), key])).values()];
  const columns = [distinct.map(({ registry }) => registry), distinct.map(({ repository }) => repository)];
  await query(
    `INSERT INTO history_repositories (registry, repository)
     SELECT registry, repository FROM unnest($1::text[], $2::text[]) AS asked (registry, repository)
     WHERE NOT EXISTS (SELECT FROM history_repositories r WHERE r.registry = asked.registry AND r.repository = asked.repository)`,
    columns,
  );
  const { rows } = await query<RepositoryKey & { id: number }>(
    `SELECT r.id, r.registry, r.repository FROM history_repositories r
     JOIN unnest($1::text[], $2::text[]) AS asked (registry, repository) USING (registry, repository)`,
    columns,
  );
  return new Map(rows.map(({ id, ...key }) => [repositoryId(key), id]));
}

async function recordTags(query: Query, ids: ReadonlyMap<string, number>, tags: Sightings['tags']): Promise<void> {
  if (tags.length === 0) return;
  const keyOf = (repository: number, tag: string, variant: string): string => `${repository} ${tag} ${variant}`;
  const asked = new Map(
    tags.map(({ tag, variant, ...key }) => {
      const repository = ids.get(repositoryId(key)) ?? 0;
      return [keyOf(repository, tag, variant), { repository, tag, variant }] as const;
    }),
  );
  const { rows } = await query<SpanRow & { repository: number; tag: string; variant: string }>(
    `SELECT asked.repository, asked.tag, asked.variant, latest.* FROM jsonb_to_recordset($1) AS asked (repository bigint, tag text, variant text),
       LATERAL (SELECT id, digest, seen_from AS "from", seen_to AS "to" FROM history_tags t
         WHERE t.repository = asked.repository AND t.tag = asked.tag AND t.variant = asked.variant
         ORDER BY seen_from DESC, id DESC LIMIT ${LATEST}) AS latest`,
    [JSON.stringify([...asked.values()])],
  );
  const spans = new Map<string, SpanRow[]>();
  for (const { repository, tag, variant, ...span } of rows) {
    const key = keyOf(repository, tag, variant);
    spans.set(key, [...(spans.get(key) ?? []), span]);
  }
  const changed = new Set<SpanRow>();
  for (const { tag, variant, digest, at, ...key } of tags) {
    const id = keyOf(ids.get(repositoryId(key)) ?? 0, tag, variant);
    const of = spans.get(id) ?? [];
    spans.set(id, of);
    const placed = placeSighting(of, digest, at);
    if (placed.kind === 'longer') changed.add(Object.assign(placed.span, { from: placed.from, to: placed.to }));
    if (placed.kind !== 'new') continue;
    of.push({ id: null, digest, from: at, to: at });
    of.sort((one, other) => other.from - one.from);
  }
  const wider = [...changed].filter(({ id }) => id !== null);
  await query(
    `UPDATE history_tags SET seen_from = wider."from", seen_to = wider."to"
     FROM jsonb_to_recordset($1) AS wider (id bigint, "from" bigint, "to" bigint) WHERE history_tags.id = wider.id`,
    [JSON.stringify(wider)],
  );
  const fresh = [...spans].flatMap(([id, of]) =>
    of
      .filter((span) => span.id === null)
      .reverse()
      .map(({ digest, from, to }) => ({ ...asked.get(id), digest, seen_from: from, seen_to: to })),
  );
  if (fresh.length === 0) return;
  await query(
    `INSERT INTO history_tags (repository, tag, variant, digest, seen_from, seen_to)
     SELECT * FROM jsonb_to_recordset($1) AS fresh (repository bigint, tag text, variant text, digest text, seen_from bigint, seen_to bigint)`,
    [JSON.stringify(fresh)],
  );
  await query(
    `DELETE FROM history_tags USING jsonb_to_recordset($1) AS fresh (repository bigint, tag text, variant text), LATERAL
       (SELECT id FROM history_tags t WHERE t.repository = fresh.repository AND t.tag = fresh.tag AND t.variant = fresh.variant
        ORDER BY seen_from DESC, id DESC OFFSET ${MAX_SPANS}) AS old
     WHERE history_tags.id = old.id`,
    [JSON.stringify(fresh)],
  );
}

interface SightRow {
  readonly repository: number;
  readonly digest: Digest;
  readonly first: number;
  readonly last: number;
}

/** Puts sights, each of which may be there; what is named by one that is earlier now is no later than it. */
async function putSights(query: Query, sights: readonly SightRow[]): Promise<void> {
  const merged = new Map<string, SightRow>();
  for (const sight of sights) {
    const key = `${sight.repository} ${sight.digest}`;
    const { first, last } = merged.get(key) ?? sight;
    merged.set(key, { ...sight, first: Math.min(first, sight.first), last: Math.max(last, sight.last) });
  }
  if (merged.size === 0) return;
  const { rows } = await query<{ id: number }>(
    `INSERT INTO history_sights (repository, digest, first, last)
     SELECT * FROM jsonb_to_recordset($1) AS put (repository bigint, digest text, first bigint, last bigint)
     ON CONFLICT (repository, digest) DO UPDATE SET first = least(history_sights.first, excluded.first),
       last = greatest(history_sights.last, excluded.last)
     RETURNING id`,
    [JSON.stringify([...merged.values()])],
  );
  for (let ids = rows.map(({ id }) => id); ids.length > 0; ) {
    const { rows: lowered } = await query<{ id: number }>(
      `UPDATE history_sights SET first = earlier.first
       FROM (SELECT child, min(p.first) AS first FROM history_names JOIN history_sights p ON p.id = parent
         WHERE parent = ANY ($1) GROUP BY child) AS earlier
       WHERE history_sights.id = earlier.child AND history_sights.first > earlier.first RETURNING id`,
      [ids],
    );
    ids = lowered.map(({ id }) => id);
  }
}

/** What manifests name, whose own sights are there. */
async function recordNames(
  query: Query,
  owner: (key: RepositoryKey) => number,
  named: Sightings['named'],
): Promise<void> {
  const edges = named.flatMap(({ parent, children, at, ...key }) =>
    children.map((child) => ({ repository: owner(key), parent, child, at })),
  );
  if (edges.length === 0) return;
  // A manifest of this batch may name another of it: each pass may make what the next one reads earlier, which `putSights` carries on downwards.
  const { rows } = await query<SightRow>(
    `SELECT named.repository, named.child AS digest, min(p.first) AS first, max(named.at) AS last
     FROM jsonb_to_recordset($1) AS named (repository bigint, parent text, child text, at bigint)
     JOIN history_sights p ON p.repository = named.repository AND p.digest = named.parent GROUP BY named.repository, named.child`,
    [JSON.stringify(edges)],
  );
  await putSights(query, rows);
  const { rows: parents } = await query<SightRow>(
    `WITH named AS (SELECT * FROM jsonb_to_recordset($1) AS edge (repository bigint, parent text, child text)),
       added AS (
         INSERT INTO history_names (parent, child)
         SELECT DISTINCT p.id, c.id FROM named
         JOIN history_sights p ON p.repository = named.repository AND p.digest = named.parent
         JOIN history_sights c ON c.repository = named.repository AND c.digest = named.child
         ON CONFLICT DO NOTHING RETURNING parent
       )
     SELECT DISTINCT s.repository, s.digest, s.first, s.last FROM history_sights s JOIN added ON added.parent = s.id`,
    [JSON.stringify(edges)],
  );
  await putSights(query, parents);
}

/** All of it, for a migration. */
export async function readHistory(query: Query): Promise<WholeHistory> {
  const rows = async <T>(sql: string): Promise<T[]> => (await query(sql)).rows as T[];
  return {
    spans: await rows(
      `SELECT r.registry, r.repository, tag, variant, digest, seen_from AS "from", seen_to AS "to"
       FROM history_tags t JOIN history_repositories r ON r.id = t.repository ORDER BY t.id`,
    ),
    sights: await rows(
      `SELECT r.registry, r.repository, digest, first, last FROM history_sights s JOIN history_repositories r ON r.id = s.repository`,
    ),
    names: await rows(
      `SELECT r.registry, r.repository, p.digest AS parent, c.digest AS child FROM history_names n
       JOIN history_sights p ON p.id = n.parent JOIN history_sights c ON c.id = n.child
       JOIN history_repositories r ON r.id = p.repository`,
    ),
  };
}

/** Rows that are put by one statement: some megabytes. */
const BATCH = 10_000;

/** Puts all of it into a database that has none. */
export async function writeHistory(query: Query, { spans, sights, names }: WholeHistory): Promise<void> {
  const ids = new Map<string, number>();
  const all = [...spans, ...sights];
  for (let at = 0; at < all.length; at += BATCH) {
    for (const [key, id] of await repositoryIds(query, all.slice(at, at + BATCH))) ids.set(key, id);
  }
  const put = async (rows: readonly RepositoryKey[], sql: string): Promise<void> => {
    for (let at = 0; at < rows.length; at += BATCH) {
      const batch = rows.slice(at, at + BATCH).map((row) => ({ ...row, repository: ids.get(repositoryId(row)) ?? 0 }));
      await query(sql, [JSON.stringify(batch)]);
    }
  };
  await put(
    spans,
    `INSERT INTO history_tags (repository, tag, variant, digest, seen_from, seen_to) SELECT * FROM
       jsonb_to_recordset($1) AS put (repository bigint, tag text, variant text, digest text, "from" bigint, "to" bigint)`,
  );
  await put(
    sights,
    `INSERT INTO history_sights (repository, digest, first, last) SELECT * FROM
       jsonb_to_recordset($1) AS put (repository bigint, digest text, first bigint, last bigint)`,
  );
  await put(
    names,
    `INSERT INTO history_names (parent, child) SELECT p.id, c.id FROM
       jsonb_to_recordset($1) AS put (repository bigint, parent text, child text)
     JOIN history_sights p ON p.repository = put.repository AND p.digest = put.parent
     JOIN history_sights c ON c.repository = put.repository AND c.digest = put.child`,
  );
}
