import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Statement } from 'better-sqlite3';
import { LRUCache } from 'lru-cache';
import type {
  BlobRow,
  CacheCounter,
  CacheIndex,
  IndexTotals,
  Link,
  ManifestRow,
  TagRow,
  UsedBlob,
} from '../cache/index-port.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { type Digest, digestAlgorithm, digestHex, type RepositoryKey } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { closeDatabase, type Database, onLoss, openDatabase, prepareAll } from './database.ts';
import { cacheMigrations } from './migrations/cache.ts';
import { START, UseLog, type UsePlace } from './use-log.ts';

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

type CacheStatements = Readonly<Record<keyof typeof CACHE_SQL, Statement>>;

const DAY = 24 * 60 * 60 * 1000;
/**
 * Memory for pages of the file, KiB: enough for the upper levels of all trees with a million blobs, so that a look-up reads one page. With
 * more, look-ups cost the same and writes cost more: after a page was split, SQLite walks over all pages in memory at the end of the transaction.
 */
const PAGES_KIB = 8 * 1024;
/** Numbers of blobs kept in memory: more than are looked up between two batches of uses. A few hundred bytes each. */
const MAX_NUMBERS = 10_000;

/**
 * Opens the cache's index, `<dataDir>/cache.db`. One that is damaged is put aside and made anew: maintenance finds the files again, and the
 * rest is fetched again.
 * @throws {OperatorError} `DATABASE_NEWER`, `DATABASE_UNUSABLE`
 */
export function openCacheIndex(dataDir: string, log: Logger): CacheIndex {
  const path = join(dataDir, 'cache.db');
  try {
    return new SqliteCacheIndex(openDatabase(path, cacheMigrations, { durability: 'normal', exclusive: true }));
  } catch (error) {
    if (!(error instanceof OperatorError) || error.code !== 'DATABASE_DAMAGED') throw error;
    log.error({ err: error }, 'the index of the cache is damaged; it is put aside as cache.db.damaged and made anew');
    renameSync(path, `${path}.damaged`);
    for (const rest of ['-wal', '-shm']) rmSync(path + rest, { force: true });
    return new SqliteCacheIndex(openDatabase(path, cacheMigrations, { durability: 'normal', exclusive: true }));
  }
}

/** The cache's index in SQLite. Every statement is prepared once and finds its rows by a key. */
export class SqliteCacheIndex implements CacheIndex {
  readonly #database: Database;
  readonly #run: CacheStatements;
  readonly #uses: UseLog;
  readonly #repositories: RepositoryIds;
  /** A blob is looked up before it is used, so a batch of uses finds the numbers here and reads no pages from all over the table. */
  readonly #numbers = new LRUCache<Digest, number>({ max: MAX_NUMBERS });
  #staleLinksAt: { repository: number; digest: Buffer } = { repository: -1, digest: Buffer.alloc(0) };

  /** Takes the database over; `close` closes it. */
  constructor(database: Database) {
    this.#database = database;
    database.pragma(`cache_size = -${PAGES_KIB}`);
    this.#run = prepareAll(database, CACHE_SQL);
    for (const statement of [this.#run.numberOf, this.#run.addBlob, this.#run.removeBlob]) statement.pluck();
    this.#uses = new UseLog(database);
    this.#repositories = new RepositoryIds(database, this.#run);
    onLoss(database, () => {
      this.#uses.forget();
      this.#numbers.clear();
    });
  }

  blob(digest: Digest): BlobRow | null {
    const row = this.#run.blob.get(toBytes(digest)) as RawBlob | undefined;
    if (row === undefined) return null;
    this.#numbers.set(digest, row.number);
    return { digest, size: row.size, created: row.created };
  }

  lastUse(digest: Digest): number | null {
    const number = this.#number(digest);
    return (number === undefined ? undefined : this.#uses.lastUse(number)) ?? null;
  }

  addBlob({ digest, size, created, lastUse }: UsedBlob): void {
    const bytes = toBytes(digest);
    const added = this.#transaction(() => {
      const number = this.#run.addBlob.get(bytes, size, created) as number;
      this.#uses.put(bytes, number, lastUse);
      return number;
    });
    this.#numbers.set(digest, added);
  }

  removeBlobs(digests: readonly Digest[]): void {
    this.#transaction(() => {
      for (const digest of digests) {
        this.#numbers.delete(digest);
        const number = this.#run.removeBlob.get(toBytes(digest)) as number | undefined;
        if (number !== undefined) this.#uses.remove(number);
      }
    });
  }

  touchBlobs(uses: ReadonlyMap<Digest, number>): void {
    this.#transaction(() => {
      for (const [digest, at] of uses) {
        const number = this.#number(digest);
        if (number !== undefined) this.#uses.touch(toBytes(digest), number, at);
      }
      this.#uses.tend(uses.size);
    });
  }

  *leastRecent(limit: number): Generator<UsedBlob[], void> {
    for (let place: UsePlace | null = START; place !== null; ) {
      const from: UsePlace = place;
      const found: UsedBlob[] = [];
      place = this.#transaction(() => {
        const { uses, next } = this.#uses.walk(from, limit);
        for (const { digest, blob, at } of uses) {
          const row = this.#run.blob.get(digest) as RawBlob | undefined;
          if (row?.number === blob) found.push({ ...blobRow(row), lastUse: at });
          else this.#uses.remove(blob);
        }
        return next;
      });
      yield found;
    }
  }

  *tidy(): Generator<undefined, void> {
    for (let place: UsePlace | null = START; place !== null; ) {
      const from: UsePlace = place;
      place = this.#transaction(() => this.#uses.tidy(from));
      yield;
    }
  }

  blobsAfter(digest: Digest | null, limit: number): BlobRow[] {
    return (this.#run.blobsAfter.all(startAt(digest), limit) as RawBlob[]).map(blobRow);
  }

  totals(): IndexTotals {
    return this.#run.totals.get() as IndexTotals;
  }

  link(links: readonly Link[], at: number): void {
    this.#transaction(() => {
      for (const { repository, digest, private: isPrivate } of links) {
        this.#run.link.run(
          this.#repositories.ensure(repository),
          toBytes(digest),
          isPrivate ? 1 : 0,
          Math.floor(at / DAY),
        );
      }
    });
  }

  linkOf(repository: RepositoryKey, digest: Digest): { readonly private: boolean } | null {
    const id = this.#repositories.find(repository);
    if (id === undefined) return null;
    const row = this.#run.linkOf.get(id, toBytes(digest)) as { private: number } | undefined;
    return row === undefined ? null : { private: row.private === 1 };
  }

  dropStaleLinks(before: number, limit: number): boolean {
    const from = this.#staleLinksAt;
    const rows = this.#run.linksAfter.all(from.repository, from.digest, limit) as RawLink[];
    this.#transaction(() => {
      for (const { repository, digest, seen, here } of rows) {
        if (seen < Math.floor(before / DAY) && here === 0) this.#run.unlink.run(repository, digest);
      }
    });
    const last = rows.length < limit ? undefined : rows.at(-1);
    this.#staleLinksAt = last ?? { repository: -1, digest: Buffer.alloc(0) };
    return last !== undefined;
  }

  manifest(digest: Digest): ManifestRow | null {
    const row = this.#run.manifest.get(toBytes(digest)) as RawManifest | undefined;
    return row === undefined ? null : manifestRow(row);
  }

  addManifest({ digest, mediaType, body }: ManifestRow, at: number): void {
    this.#run.addManifest.run(toBytes(digest), mediaType, body.length, at, body);
  }

  touchManifests(uses: ReadonlyMap<Digest, number>): void {
    this.#transaction(() => {
      for (const [digest, at] of uses) this.#run.touchManifest.run(at, toBytes(digest), at);
    });
  }

  shrinkManifests(bytes: number, limit: number): Digest[] {
    let over = this.totals().manifestBytes - bytes;
    if (over <= 0) return [];
    const dropped: Digest[] = [];
    this.#transaction(() => {
      for (const row of this.#run.oldestManifests.all(limit) as { digest: Buffer; size: number }[]) {
        if (over <= 0) break;
        this.#run.removeManifest.run(row.digest);
        over -= row.size;
        dropped.push(fromBytes(row.digest));
      }
    });
    return dropped;
  }

  dropManifestsBefore(before: number, limit: number): Digest[] {
    const rows = this.#run.manifestsBefore.all(before, limit) as { digest: Buffer }[];
    const digests = rows.map(({ digest }) => fromBytes(digest));
    this.removeManifests(digests);
    return digests;
  }

  removeManifests(digests: readonly Digest[]): void {
    this.#transaction(() => {
      for (const digest of digests) this.#run.removeManifest.run(toBytes(digest));
    });
  }

  manifestsAfter(digest: Digest | null, limit: number): ManifestRow[] {
    return (this.#run.manifestsAfter.all(startAt(digest), limit) as RawManifest[]).map(manifestRow);
  }

  tag(repository: RepositoryKey, tag: string, variant: string): TagRow | null {
    const id = this.#repositories.find(repository);
    if (id === undefined) return null;
    const row = this.#run.tag.get(id, tag, variant) as { digest: Buffer; checkedAt: number } | undefined;
    return row === undefined ? null : { digest: fromBytes(row.digest), checkedAt: row.checkedAt };
  }

  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    this.#transaction(() => {
      this.#run.putTag.run(this.#repositories.ensure(repository), tag, variant, toBytes(row.digest), row.checkedAt);
    });
  }

  dropTag(repository: RepositoryKey, tag: string, variant: string): void {
    const id = this.#repositories.find(repository);
    if (id !== undefined) this.#run.dropTag.run(id, tag, variant);
  }

  dropStaleTags(before: number, limit: number): boolean {
    return this.#run.dropStaleTags.run(before, limit).changes === limit;
  }

  onlyOf(registry: string, after: Digest | null, limit: number): Digest[] {
    const rows = this.#run.onlyOf.all(registry, startAt(after), limit) as { digest: Buffer }[];
    return rows.map(({ digest }) => fromBytes(digest));
  }

  forgetRegistry(registry: string, limit: number): boolean {
    let more = false;
    this.#transaction(() => {
      const links = this.#run.forgetLinks.run(registry, limit).changes;
      const tags = this.#run.forgetTags.run(registry, limit).changes;
      more = links === limit || tags === limit;
    });
    return more;
  }

  count(increments: Readonly<Partial<Record<CacheCounter, number>>>): void {
    this.#transaction(() => {
      for (const [name, by] of Object.entries(increments)) if (by !== 0) this.#run.count.run(name, by);
    });
  }

  counters(): Readonly<Record<CacheCounter, number>> {
    const rows = this.#run.counters.all() as { name: CacheCounter; value: number }[];
    const counted = Object.fromEntries(rows.map(({ name, value }) => [name, value]));
    return { hits: 0, misses: 0, fetched: 0, served: 0, evictions: 0, ...counted };
  }

  close(): void {
    closeDatabase(this.#database);
  }

  #transaction<T>(task: () => T): T {
    try {
      return this.#database.transaction(task).immediate();
    } catch (error) {
      this.#uses.forget();
      throw error;
    }
  }

  /** The number of a blob that is in the index. It is never given to another blob; one that is removed and added again gets a new number. */
  #number(digest: Digest): number | undefined {
    const known = this.#numbers.get(digest);
    if (known !== undefined) return known;
    const number = this.#run.numberOf.get(toBytes(digest)) as number | undefined;
    if (number !== undefined) this.#numbers.set(digest, number);
    return number;
  }
}

interface RawBlob {
  readonly digest: Buffer;
  readonly number: number;
  readonly size: number;
  readonly created: number;
}

interface RawLink {
  readonly repository: number;
  readonly digest: Buffer;
  readonly seen: number;
  readonly here: number;
}

interface RawManifest {
  readonly digest: Buffer;
  readonly mediaType: string;
  readonly body: Buffer;
}

function blobRow(row: RawBlob): BlobRow {
  return { digest: fromBytes(row.digest), size: row.size, created: row.created };
}

function manifestRow(row: RawManifest): ManifestRow {
  return { digest: fromBytes(row.digest), mediaType: row.mediaType, body: row.body };
}

function startAt(digest: Digest | null): Buffer {
  return digest === null ? Buffer.alloc(0) : toBytes(digest);
}

/** Ids of repositories kept in memory. */
const MAX_IDS = 10_000;

/** The ids by which the index's other tables name repositories. */
class RepositoryIds {
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

function fromBytes(bytes: Buffer): Digest {
  return `${bytes[0] === SHA512 ? 'sha512' : 'sha256'}:${bytes.toString('hex', 1)}` as Digest;
}
