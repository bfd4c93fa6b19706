import type { Statement } from 'better-sqlite3';
import { LRUCache } from 'lru-cache';
import type {
  BlobRow,
  CacheCounter,
  CacheIndex,
  Fact,
  Givers,
  IndexTotals,
  KeptTag,
  KnownFact,
  ManifestRow,
  NewBlob,
  NewManifest,
  Scrubbed,
  TagPlace,
  TagRow,
  UsedBlob,
} from '../cache/index-port.ts';
import { steadyNow } from '../kit/time.ts';
import type { Digest, RepositoryKey } from '../oci/names.ts';
import { closeDatabase, type Database, onLoss, prepareAll } from './database.ts';
import { fromBytes, toBytes } from './digest-bytes.ts';
import { FactTable, type Repositories } from './fact-table.ts';
import { ListTable } from './list-table.ts';
import { PinTable } from './pin-table.ts';
import { TagTable } from './tag-table.ts';
import { UploadTable } from './upload-table.ts';
import { START, UseLog, type UsePlace } from './use-log.ts';

/**
 * The statements of the cache's index (facts, lists, tags and the log of uses have their own, in fact-table.ts, list-table.ts, tag-table.ts and use-log.ts). They find their rows by a key,
 * whatever the number of rows; a test asks SQLite for their plans.
 */
export const CACHE_SQL = {
  blob: 'SELECT digest, number, size, created, checked FROM blobs WHERE digest = ?',
  numberOf: 'SELECT number FROM blobs WHERE digest = ?',
  addBlob: `INSERT INTO blobs (digest, number, size, created, checked)
    VALUES (?, (SELECT next_number FROM totals WHERE id = 1), ?, ?, ?)
    ON CONFLICT DO UPDATE SET size = excluded.size, created = excluded.created, checked = excluded.checked
    RETURNING number`,
  markChecked: 'UPDATE blobs SET checked = ? WHERE digest = ?',
  scrubPlace: 'SELECT place FROM scrub WHERE what = ?',
  putScrubPlace: 'INSERT INTO scrub (what, place) VALUES (?, ?) ON CONFLICT DO UPDATE SET place = excluded.place',
  removeBlob: 'DELETE FROM blobs WHERE digest = ? RETURNING number',
  announceRemoval: 'INSERT OR IGNORE INTO removals (digest) VALUES (?)',
  removals: 'SELECT digest FROM removals',
  removed: 'DELETE FROM removals WHERE digest = ?',
  blobsAfter: 'SELECT digest, number, size, created, checked FROM blobs WHERE digest > ? ORDER BY digest LIMIT ?',
  totals: 'SELECT blobs, bytes, manifests, manifest_bytes AS manifestBytes, tags, facts FROM totals WHERE id = 1',
  manifest: 'SELECT digest, body, came FROM manifests WHERE digest = ?',
  addManifest: `INSERT INTO manifests (digest, media_type, size, last_use, came, body) VALUES (?, '', ?, ?, ?, ?)
    ON CONFLICT (digest) DO UPDATE SET
      size = excluded.size, last_use = excluded.last_use, came = excluded.came, body = excluded.body`,
  touchManifest: 'UPDATE manifests SET last_use = ? WHERE digest = ? AND last_use < ?',
  oldestManifests: 'SELECT digest, size FROM manifests ORDER BY last_use, digest LIMIT ?',
  manifestsBefore: 'SELECT digest FROM manifests WHERE last_use < ? ORDER BY last_use, digest LIMIT ?',
  manifestsToCome: `UPDATE manifests SET last_use = 0 WHERE id IN
    (SELECT id FROM manifests WHERE last_use > ? ORDER BY last_use, digest LIMIT ?)`,
  removeManifest: 'DELETE FROM manifests WHERE digest = ?',
  manifestsAfter: 'SELECT digest, body, came FROM manifests WHERE digest > ? ORDER BY digest LIMIT ?',
  count: `INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value`,
  counters: 'SELECT name, value FROM counters',
} as const;

type CacheStatements = Readonly<Record<keyof typeof CACHE_SQL, Statement>>;

/**
 * Memory for pages of the file, KiB: enough for the upper levels of all trees with a million blobs, so that a look-up reads one page. With
 * more, look-ups cost the same and writes cost more: after a page was split, SQLite walks over all pages in memory at the end of the transaction.
 */
const PAGES_KIB = 8 * 1024;
/** Numbers of blobs kept in memory: more than are looked up between two batches of uses. A few hundred bytes each. */
const MAX_NUMBERS = 10_000;

/** The cache's index in SQLite. Every statement is prepared once and finds its rows by a key. */
export class SqliteCacheIndex implements CacheIndex {
  readonly lists: ListTable;
  readonly uploads: UploadTable;
  readonly pins: PinTable;
  readonly #database: Database;
  readonly #run: CacheStatements;
  readonly #uses: UseLog;
  readonly #facts: FactTable;
  readonly #repositories: Repositories;
  readonly #tags: TagTable;
  readonly #lossListeners: (() => void)[] = [];
  /** A blob is looked up before it is used, so a batch of uses finds the numbers here and reads no pages from all over the table. */
  readonly #numbers = new LRUCache<Digest, number>({ max: MAX_NUMBERS });

  /** Takes the database over; `close` closes it. */
  constructor(database: Database) {
    this.#database = database;
    database.pragma(`cache_size = -${PAGES_KIB}`);
    this.#run = prepareAll(database, CACHE_SQL);
    const { numberOf, addBlob, removeBlob, removals } = this.#run;
    for (const statement of [numberOf, addBlob, removeBlob, removals]) statement.pluck();
    this.#uses = new UseLog(database);
    const { facts, repositories } = FactTable.open(database);
    this.#facts = facts;
    this.#repositories = repositories;
    this.#tags = new TagTable(database, repositories);
    this.lists = new ListTable(database, repositories);
    this.uploads = new UploadTable(database);
    this.pins = new PinTable(database);
    onLoss(database, () => {
      this.#uses.forget();
      this.#numbers.clear();
      this.#repositories.forget();
      this.uploads.recount();
      for (const listener of this.#lossListeners) listener();
    });
  }

  blob(digest: Digest): BlobRow | null {
    const row = this.#run.blob.get(toBytes(digest)) as RawBlob | undefined;
    if (row === undefined) return null;
    this.#numbers.set(digest, row.number);
    return { digest, size: row.size, created: row.created, checkedAt: row.checked };
  }

  lastUse(digest: Digest): number | null {
    const number = this.#number(digest);
    if (number === undefined) return null;
    return this.#transaction(() => this.#uses.lastUse(number)) ?? null;
  }

  addBlob({ digest, size, created, lastUse }: NewBlob): void {
    const bytes = toBytes(digest);
    const added = this.#transaction(() => {
      const number = this.#run.addBlob.get(bytes, size, created, created) as number;
      this.#uses.put(bytes, number, lastUse);
      return number;
    });
    this.#numbers.set(digest, added);
  }

  removeBlobs(digests: readonly Digest[]): void {
    this.#transaction(() => {
      for (const digest of digests) {
        this.#numbers.delete(digest);
        const bytes = toBytes(digest);
        const number = this.#run.removeBlob.get(bytes) as number | undefined;
        if (number !== undefined) this.#uses.remove(number);
        this.#run.removed.run(bytes);
      }
    });
  }

  announceRemoval(digests: readonly Digest[]): void {
    this.#transaction(() => {
      for (const digest of digests) this.#run.announceRemoval.run(toBytes(digest));
    });
  }

  finishRemovals(isGone: (digest: Digest) => boolean): void {
    const announced = (this.#run.removals.all() as Buffer[]).map(fromBytes);
    if (announced.length === 0) return;
    this.removeBlobs(announced.filter(isGone));
    this.#transaction(() => {
      for (const digest of announced) this.#run.removed.run(toBytes(digest));
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

  settleTimes(now: number, limit: number): boolean {
    let more = false;
    this.#transaction(() => {
      const manifests = this.#run.manifestsToCome.run(now, limit).changes;
      const tags = this.#tags.settle(now, limit);
      const lists = this.lists.settle(now, limit);
      more = manifests === limit || tags === limit || lists === limit;
    });
    return more;
  }

  markChecked(digest: Digest, at: number): void {
    this.#run.markChecked.run(at, toBytes(digest));
  }

  scrubPlace(what: Scrubbed): Digest | null {
    const row = this.#run.scrubPlace.get(what) as { place: Buffer } | undefined;
    return row === undefined || row.place.length === 0 ? null : fromBytes(row.place);
  }

  putScrubPlace(what: Scrubbed, place: Digest | null): void {
    this.#run.putScrubPlace.run(what, startAt(place));
  }

  addFacts(facts: readonly Fact[], at: number): void {
    this.#transaction(() => this.#facts.add(facts, at));
  }

  factOf(repository: RepositoryKey, digest: Digest): KnownFact | null {
    return this.#facts.of(repository, digest);
  }

  giversOf(digest: Digest): Givers {
    return this.#facts.giversOf(digest);
  }

  denyRepository(repository: RepositoryKey): boolean {
    return this.#repositories.deny(repository);
  }

  wasDenied(repository: RepositoryKey): boolean {
    return (this.#repositories.find(repository)?.generation ?? 0) > 0;
  }

  denyDigest(repository: RepositoryKey, digest: Digest): boolean {
    return this.#facts.denyDigest(repository, digest);
  }

  dropStaleFacts(before: number, limit: number): boolean {
    return this.#transaction(() => this.#facts.dropStale(before, limit));
  }

  dropEmptyRepositories(limit: number): boolean {
    return this.#transaction(() => this.#facts.dropEmptyRepositories(limit));
  }

  manifest(digest: Digest): ManifestRow | null {
    const row = this.#run.manifest.get(toBytes(digest)) as RawManifest | undefined;
    return row === undefined ? null : manifestRow(row);
  }

  addManifest({ digest, body }: NewManifest, at: number): void {
    this.#run.addManifest.run(toBytes(digest), body.length, at, at, body);
  }

  touchManifests(uses: ReadonlyMap<Digest, number>): void {
    this.#transaction(() => {
      for (const [digest, at] of uses) this.#run.touchManifest.run(at, toBytes(digest), at);
    });
  }

  shrinkManifests(bytes: number, limit: number, spare?: Spare): Digest[] {
    let over = this.totals().manifestBytes - bytes;
    if (over <= 0) return [];
    const dropped: Digest[] = [];
    this.#transaction(() => {
      for (const row of this.#run.oldestManifests.all(limit) as { digest: Buffer; size: number }[]) {
        if (over <= 0) break;
        if (this.#isSpared(row.digest, spare)) continue;
        this.#run.removeManifest.run(row.digest);
        over -= row.size;
        dropped.push(fromBytes(row.digest));
      }
    });
    return dropped;
  }

  dropManifestsBefore(before: number, limit: number, spare?: Spare): Digest[] {
    // What counts as used from now on is not found again.
    const end = Math.min(before, steadyNow() + 1);
    return this.#transaction(() => {
      for (;;) {
        const rows = this.#run.manifestsBefore.all(end, limit) as { digest: Buffer }[];
        const going = rows.filter(({ digest }) => !this.#isSpared(digest, spare, end));
        for (const { digest } of going) this.#run.removeManifest.run(digest);
        if (going.length > 0 || rows.length === 0) return going.map(({ digest }) => fromBytes(digest));
      }
    });
  }

  #isSpared(digest: Buffer, spare: Spare | undefined, atLeast = 0): boolean {
    if (spare?.(fromBytes(digest)) !== true) return false;
    const used = Math.max(atLeast, steadyNow());
    this.#run.touchManifest.run(used, digest, used);
    return true;
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
    return this.#tags.get(repository, tag, variant);
  }

  putTag(repository: RepositoryKey, tag: string, variant: string, row: TagRow): void {
    this.#transaction(() => this.#tags.put(repository, tag, variant, row));
  }

  dropTag(repository: RepositoryKey, tag: string, variant: string): void {
    this.#tags.drop(repository, tag, variant);
  }

  tagsAfter(place: TagPlace | null, limit: number): KeptTag[] {
    return this.#tags.after(place, limit);
  }

  dropStaleTags(before: number, limit: number): boolean {
    return this.#tags.dropStale(before, limit);
  }

  shrinkTags(rows: number, limit: number): void {
    const over = this.totals().tags - rows;
    if (over > 0) this.#tags.dropOldest(Math.min(over, limit));
  }

  onlyOf(registry: string, after: Digest | null, limit: number): Digest[] {
    return this.#facts.onlyOf(registry, startAt(after), limit).map(fromBytes);
  }

  forgetRegistry(registry: string, limit: number): boolean {
    return this.#transaction(() => {
      const facts = this.#facts.forget(registry, limit);
      const tags = this.#tags.forget(registry, limit);
      const lists = this.lists.forget(registry, limit);
      return facts === limit || tags === limit || lists === limit;
    });
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

  onLoss(listener: () => void): void {
    this.#lossListeners.push(listener);
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

/** Manifests that may not be dropped. */
type Spare = (digest: Digest) => boolean;

interface RawBlob {
  readonly digest: Buffer;
  readonly number: number;
  readonly size: number;
  readonly created: number;
  readonly checked: number;
}

interface RawManifest {
  readonly digest: Buffer;
  readonly body: Buffer;
  readonly came: number;
}

function blobRow(row: RawBlob): BlobRow {
  return { digest: fromBytes(row.digest), size: row.size, created: row.created, checkedAt: row.checked };
}

function manifestRow(row: RawManifest): ManifestRow {
  return { digest: fromBytes(row.digest), body: row.body, came: row.came };
}

function startAt(digest: Digest | null): Buffer {
  return digest === null ? Buffer.alloc(0) : toBytes(digest);
}
