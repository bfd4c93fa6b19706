import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import type {
  BlobRow,
  CacheIndex,
  Counter,
  IndexTotals,
  Link,
  ManifestRow,
  TagRow,
  UsedBlob,
} from '../cache/index-port.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Digest } from '../oci/digest.ts';
import type { RepositoryKey } from '../oci/names.ts';
import type { Logger } from '../telemetry/log.ts';
import { CACHE_SQL, type CacheStatements, fromBytes, prepareAll, RepositoryIds, toBytes } from './cache-statements.ts';
import { type Database, openDatabase } from './database.ts';
import { cacheMigrations } from './migrations/cache.ts';
import { START, UseLog, type UsePlace } from './use-log.ts';

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
    return new SqliteCacheIndex(openDatabase(path, cacheMigrations, { durability: 'normal' }));
  } catch (error) {
    if (!(error instanceof OperatorError) || error.code !== 'DATABASE_DAMAGED') throw error;
    log.error({ err: error }, 'the index of the cache is damaged; it is put aside as cache.db.damaged and made anew');
    renameSync(path, `${path}.damaged`);
    for (const rest of ['-wal', '-shm']) rmSync(path + rest, { force: true });
    return new SqliteCacheIndex(openDatabase(path, cacheMigrations, { durability: 'normal' }));
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

  count(increments: Readonly<Partial<Record<Counter, number>>>): void {
    this.#transaction(() => {
      for (const [name, by] of Object.entries(increments)) if (by !== 0) this.#run.count.run(name, by);
    });
  }

  counters(): Readonly<Record<Counter, number>> {
    const rows = this.#run.counters.all() as { name: Counter; value: number }[];
    const counted = Object.fromEntries(rows.map(({ name, value }) => [name, value]));
    return { hits: 0, misses: 0, fetched: 0, served: 0, evictions: 0, ...counted };
  }

  close(): void {
    this.#database.close();
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
