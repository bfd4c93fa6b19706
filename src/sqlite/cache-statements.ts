import type { Statement } from 'better-sqlite3';
import { LRUCache } from 'lru-cache';
import { type Digest, digestAlgorithm, digestHex } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/names.ts';
import type { Database } from './database.ts';

/**
 * The statements of the cache's index (the log of uses has its own, in use-log.ts). All but `onlyOf`, which is for a command, find their
 * rows by a key, whatever the number of rows; a test asks SQLite for their plans.
 */
export const CACHE_SQL = {
  blob: 'SELECT digest, number, size, created FROM blobs WHERE digest = ?',
  numberOf: 'SELECT number FROM blobs WHERE digest = ?',
  addBlob: `INSERT INTO blobs (digest, number, size, created)
    VALUES (?, (SELECT next_number FROM totals WHERE id = 1), ?, ?)
    ON CONFLICT DO UPDATE SET size = excluded.size, created = excluded.created RETURNING number`,
  removeBlob: 'DELETE FROM blobs WHERE digest = ? RETURNING number',
  blobsAfter: 'SELECT digest, number, size, created FROM blobs WHERE digest > ? ORDER BY digest LIMIT ?',
  totals: 'SELECT blobs, bytes, manifests, manifest_bytes AS manifestBytes FROM totals WHERE id = 1',
  repository: 'SELECT id FROM repositories WHERE registry = ? AND name = ?',
  addRepository: 'INSERT INTO repositories (registry, name) VALUES (?, ?) ON CONFLICT DO NOTHING',
  link: `INSERT INTO links (repository, digest, private, seen) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET private = min(private, excluded.private), seen = max(seen, excluded.seen)`,
  linkOf: 'SELECT private FROM links WHERE repository = ? AND digest = ?',
  unlink: 'DELETE FROM links WHERE repository = ? AND digest = ?',
  linksAfter: `SELECT repository, digest, seen,
      EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = links.digest)
        OR EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = links.digest) AS here
    FROM links WHERE (repository, digest) > (?, ?) ORDER BY repository, digest LIMIT ?`,
  manifest: 'SELECT digest, media_type AS mediaType, body FROM manifests WHERE digest = ?',
  addManifest: `INSERT INTO manifests (digest, media_type, size, last_use, body) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (digest) DO UPDATE SET media_type = excluded.media_type, size = excluded.size,
      last_use = excluded.last_use, body = excluded.body`,
  touchManifest: 'UPDATE manifests SET last_use = ? WHERE digest = ? AND last_use < ?',
  oldestManifests: 'SELECT digest, size FROM manifests ORDER BY last_use, digest LIMIT ?',
  manifestsBefore: 'SELECT digest FROM manifests WHERE last_use < ? ORDER BY last_use, digest LIMIT ?',
  removeManifest: 'DELETE FROM manifests WHERE digest = ?',
  manifestsAfter: `SELECT digest, media_type AS mediaType, body FROM manifests WHERE digest > ? ORDER BY digest LIMIT ?`,
  tag: 'SELECT digest, checked_at AS checkedAt FROM tags WHERE repository = ? AND tag = ? AND variant = ?',
  putTag: `INSERT INTO tags (repository, tag, variant, digest, checked_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET digest = excluded.digest, checked_at = excluded.checked_at`,
  dropTag: 'DELETE FROM tags WHERE repository = ? AND tag = ? AND variant = ?',
  dropStaleTags: `DELETE FROM tags WHERE (repository, tag, variant) IN
    (SELECT repository, tag, variant FROM tags WHERE checked_at < ? ORDER BY checked_at LIMIT ?)`,
  onlyOf: `SELECT DISTINCT links.digest AS digest FROM repositories JOIN links ON links.repository = repositories.id
    WHERE repositories.registry = ? AND links.digest > ?
      AND (EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = links.digest)
        OR EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = links.digest))
      AND NOT EXISTS (SELECT 1 FROM links AS other JOIN repositories AS owner ON owner.id = other.repository
        WHERE other.digest = links.digest AND owner.registry <> repositories.registry)
    ORDER BY links.digest LIMIT ?`,
  forgetLinks: `DELETE FROM links WHERE (repository, digest) IN (SELECT links.repository, links.digest
    FROM repositories JOIN links ON links.repository = repositories.id WHERE repositories.registry = ? LIMIT ?)`,
  forgetTags: `DELETE FROM tags WHERE (repository, tag, variant) IN (SELECT tags.repository, tags.tag, tags.variant
    FROM repositories JOIN tags ON tags.repository = repositories.id WHERE repositories.registry = ? LIMIT ?)`,
  count: `INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value`,
  counters: 'SELECT name, value FROM counters',
} as const;

export type CacheStatements = Readonly<Record<keyof typeof CACHE_SQL, Statement>>;

export function prepareAll<K extends string>(
  database: Database,
  sql: Readonly<Record<K, string>>,
): Readonly<Record<K, Statement>> {
  const names = Object.keys(sql) as K[];
  return Object.fromEntries(names.map((name) => [name, database.prepare(sql[name])])) as Record<K, Statement>;
}

const SHA256 = 1;
const SHA512 = 2;

/** A digest as the tables hold it: a byte for the algorithm, then the raw hash. Half the size of its text, and in the same order. */
export function toBytes(digest: Digest): Buffer {
  const hex = digestHex(digest);
  const bytes = Buffer.allocUnsafe(1 + hex.length / 2);
  bytes[0] = digestAlgorithm(digest) === 'sha512' ? SHA512 : SHA256;
  bytes.write(hex, 1, 'hex');
  return bytes;
}

export function fromBytes(bytes: Buffer): Digest {
  return `${bytes[0] === SHA512 ? 'sha512' : 'sha256'}:${bytes.toString('hex', 1)}` as Digest;
}

/** Ids of repositories kept in memory. */
const MAX_IDS = 10_000;

/** The ids by which the index's other tables name repositories. */
export class RepositoryIds {
  readonly #database: Pick<Database, 'inTransaction'>;
  readonly #run: Pick<CacheStatements, 'repository' | 'addRepository'>;
  readonly #known = new LRUCache<string, number>({ max: MAX_IDS });

  constructor(database: Pick<Database, 'inTransaction'>, run: Pick<CacheStatements, 'repository' | 'addRepository'>) {
    this.#database = database;
    this.#run = run;
  }

  /** Undefined where the index knows nothing of the repository. */
  find(repository: RepositoryKey): number | undefined {
    return this.#known.get(`${repository.registry}/${repository.repository}`) ?? this.#look(repository);
  }

  /** Gives the repository an id if it has none. */
  ensure(repository: RepositoryKey): number {
    const known = this.find(repository);
    if (known !== undefined) return known;
    this.#run.addRepository.run(repository.registry, repository.repository);
    return this.#look(repository) ?? 0;
  }

  #look({ registry, repository }: RepositoryKey): number | undefined {
    const row = this.#run.repository.get(registry, repository) as { id: number } | undefined;
    // If the transaction under way is rolled back, the row of this id may be gone: such an id is not kept.
    if (row === undefined || this.#database.inTransaction) return row?.id;
    this.#known.set(`${registry}/${repository}`, row.id);
    return row.id;
  }
}
