import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DEFAULT_CREDENTIAL } from '../../../src/oci/credentials.ts';
import type { Digest, RepositoryKey } from '../../../src/oci/names.ts';
import { CACHE_SQL, SqliteCacheIndex } from '../../../src/sqlite/cache-index.ts';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { toBytes } from '../../../src/sqlite/digest-bytes.ts';
import { FACT_SQL } from '../../../src/sqlite/fact-table.ts';
import { LIST_SQL } from '../../../src/sqlite/list-table.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
import { openCacheIndex } from '../../../src/sqlite/open-cache-index.ts';
import { TAG_SQL } from '../../../src/sqlite/tag-table.ts';
import { USE_SQL } from '../../../src/sqlite/use-log.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { cacheIndexConformance, digestOf, inOrder } from '../../conformance/cache-index.ts';
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';

let directory: string;
let made = 0;
const open = () => openDatabase(join(directory, `${made++}.db`), cacheMigrations, { durability: 'normal' });
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'gateway-index-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

cacheIndexConformance('SQLite', () => new SqliteCacheIndex(open()));
cacheIndexConformance('memory', () => new MemoryCacheIndex());

describe('the cache index in SQLite', () => {
  it('finds rows by a key in every statement on the path of a pull or of eviction', () => {
    const database = open();
    for (const [name, sql] of Object.entries({ ...CACHE_SQL, ...FACT_SQL, ...LIST_SQL, ...TAG_SQL, ...USE_SQL })) {
      // For commands and the start.
      if (['onlyOf', 'counters', 'removals'].includes(name)) continue;
      const blanks = Array(sql.split('?').length - 1).fill(null);
      const plan = database.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...blanks) as { detail: string }[];
      for (const { detail } of plan) {
        // A scan along an index in its order, or over what a part of the statement found, with a limit.
        const walksInOrder =
          /USING (COVERING )?INDEX (manifests_by_use|tags_by_check|lists_by_check)$|SCAN given$/.test(detail);
        expect(`${name}: ${detail}`).not.toMatch(/TEMP B-TREE/);
        if (!walksInOrder) expect(`${name}: ${detail}`).not.toMatch(/: SCAN (?!CONSTANT)/);
      }
    }
    database.close();
  });

  it('remembers across a restart', () => {
    const home = mkdtempSync(join(directory, 'home-'));
    const first = openCacheIndex(home, silentLog());
    first.addBlob({ digest: digestOf(1), size: 5, created: 1, lastUse: 2 });
    first.close();
    const second = openCacheIndex(home, silentLog());
    expect(second.blob(digestOf(1))).toEqual({ digest: digestOf(1), size: 5, created: 1, checkedAt: 1 });
    expect(second.lastUse(digestOf(1))).toBe(2);
    second.close();
  });

  it('knows the order of use again after a restart, uses from before and after it included', () => {
    const file = join(directory, `${made++}.db`);
    const index = () => new SqliteCacheIndex(openDatabase(file, cacheMigrations, { durability: 'normal' }));
    const first = index();
    for (let seed = 0; seed < 6_000; seed++)
      first.addBlob({ digest: digestOf(seed), size: 1, created: 1, lastUse: seed });
    first.touchBlobs(new Map([[digestOf(0), 10_000]]));
    first.removeBlobs([digestOf(1)]);
    first.close();
    const second = index();
    // Before anybody asked for the order, and before all of the log was read back.
    second.touchBlobs(new Map([[digestOf(2), 10_001]]));
    second.removeBlobs([digestOf(3)]);
    second.addBlob({ digest: digestOf(1), size: 1, created: 1, lastUse: 10_002 });
    const order = inOrder(second).map(({ digest }) => digest);
    const rest = Array.from({ length: 5_996 }, (_, number) => number + 4);
    expect(order).toEqual([...rest, 0, 2, 1].map((seed) => digestOf(seed)));
    second.close();
  });

  it('sweeps up what is outdated, so that the log does not grow with uses', () => {
    const database = open();
    const index = new SqliteCacheIndex(database);
    const digests = Array.from({ length: 200 }, (_, seed) => digestOf(seed));
    for (const digest of digests) index.addBlob({ digest, size: 1, created: 1, lastUse: 1 });
    let at = 2;
    for (let round = 0; round < 100; round++) index.touchBlobs(new Map(digests.map((digest) => [digest, at++])));
    const { entries } = database.prepare('SELECT count(*) AS entries FROM uses').get() as { entries: number };
    expect(entries).toBeGreaterThanOrEqual(200);
    expect(entries).toBeLessThanOrEqual(2 * 200 + 1_000 + 200);
    expect(inOrder(index).map(({ digest }) => digest)).toEqual(digests);
    index.close();
  });

  it('writes uses of blobs that were looked up or added without looking them up again', () => {
    const database = open();
    const index = new SqliteCacheIndex(database);
    const add = (seed: number) => index.addBlob({ digest: digestOf(seed), size: 1, created: 1, lastUse: seed });
    for (let seed = 0; seed < 3; seed++) add(seed);
    database.exec('ALTER TABLE blobs RENAME TO elsewhere');
    expect(() => index.blob(digestOf(0))).toThrow('no such table');
    index.touchBlobs(new Map([[digestOf(1), 10]]));
    database.exec('ALTER TABLE elsewhere RENAME TO blobs');
    expect(inOrder(index).map(({ digest }) => digest)).toEqual([0, 2, 1].map((seed) => digestOf(seed)));
    index.close();
  });

  it('reads the log back and sweeps it in steps, so that neither holds others up', () => {
    const file = join(directory, `${made++}.db`);
    const database = openDatabase(file, cacheMigrations, { durability: 'normal' });
    const [first, outdated, live] = [digestOf(1), digestOf(2), digestOf(3)];
    const makeUses = database.prepare(
      `WITH RECURSIVE n (i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
       INSERT INTO uses (at, digest, blob) SELECT i, ?, ? FROM n`,
    );
    const add = database.prepare('INSERT INTO blobs (digest, number, size, created) VALUES (?, ?, 1, 1)');
    const use = database.prepare('INSERT INTO uses (at, digest, blob) VALUES (?, ?, ?)');
    for (const [number, digest] of [first, outdated, live].entries()) add.run(toBytes(digest), number);
    use.run(5, toBytes(first), 0);
    makeUses.run(toBytes(outdated), 1);
    use.run(30_000, toBytes(live), 2);
    const entries = () => (database.prepare('SELECT count(*) AS n FROM uses').get() as { n: number }).n;
    const index = new SqliteCacheIndex(database);
    let [steps, left, most] = [0, entries(), 0];
    const seen: Digest[] = [];
    for (const page of index.leastRecent(2)) {
      seen.push(...page.map(({ digest }) => digest));
      most = Math.max(most, left - entries());
      left = entries();
      steps++;
    }
    expect(seen).toEqual([first, outdated, live]);
    expect(entries()).toBe(3);
    // 20,000 entries are read in at least four steps, and swept no more than 2,000 at once.
    expect(steps).toBeGreaterThanOrEqual(4 + 10);
    expect(most).toBeLessThanOrEqual(2_000);
    index.close();
  });

  it('is put in order in steps: the log is read back and swept, and the order is there at once', () => {
    const file = join(directory, `${made++}.db`);
    const home = () => openDatabase(file, cacheMigrations, { durability: 'normal' });
    const before = new SqliteCacheIndex(home());
    const digests = Array.from({ length: 6_000 }, (_, seed) => digestOf(seed));
    for (const [seed, digest] of digests.entries()) before.addBlob({ digest, size: 1, created: 1, lastUse: seed });
    const half = digests.slice(3_000);
    before.touchBlobs(new Map(half.map((digest, turn) => [digest, 10_000 + turn])));
    before.close();
    const database = home();
    const entries = () => (database.prepare('SELECT count(*) AS n FROM uses').get() as { n: number }).n;
    const index = new SqliteCacheIndex(database);
    expect(entries()).toBe(9_000);
    let steps = 0;
    for (const _ of index.tidy()) steps++;
    expect(steps).toBeGreaterThan(6);
    expect(entries()).toBe(6_000);
    for (const page of index.leastRecent(3)) {
      expect(page.map(({ digest }) => digest)).toEqual(digests.slice(0, 3));
      break;
    }
    index.close();
  });

  it('keeps the order of use where a batch could not be written', () => {
    const database = open();
    const index = new SqliteCacheIndex(database);
    for (let seed = 0; seed < 3; seed++) index.addBlob({ digest: digestOf(seed), size: 1, created: 1, lastUse: seed });
    database.exec(
      `CREATE TRIGGER broken BEFORE INSERT ON uses WHEN new.at = 11 BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`,
    );
    const batch = new Map([
      [digestOf(0), 10],
      [digestOf(1), 11],
    ]);
    expect(() => index.touchBlobs(batch)).toThrow('the disk is full');
    expect(inOrder(index).map(({ digest }) => digest)).toEqual([0, 1, 2].map((seed) => digestOf(seed)));
    index.close();
  });

  it('takes over an index of an earlier version, with its order of use and its totals', () => {
    const file = join(directory, `${made++}.db`);
    const old = openDatabase(file, cacheMigrations.slice(0, 1), { durability: 'normal' });
    const insert = old.prepare('INSERT INTO blobs (digest, size, created, last_use) VALUES (?, ?, ?, ?)');
    for (let seed = 0; seed < 5; seed++) insert.run(toBytes(digestOf(seed)), seed, 7, (seed * 3) % 5);
    old.close();
    const index = new SqliteCacheIndex(openDatabase(file, cacheMigrations, { durability: 'normal' }));
    expect(index.totals()).toMatchObject({ blobs: 5, bytes: 10 });
    expect(inOrder(index)).toEqual(
      [0, 2, 4, 1, 3].map((seed) => ({
        digest: digestOf(seed),
        size: seed,
        created: 7,
        checkedAt: 0,
        lastUse: (seed * 3) % 5,
      })),
    );
    index.addBlob({ digest: digestOf(9), size: 100, created: 1, lastUse: 9 });
    index.removeBlobs([digestOf(4)]);
    expect(index.totals()).toMatchObject({ blobs: 5, bytes: 106 });
    expect(inOrder(index).map(({ digest }) => digest)).toEqual([0, 2, 1, 3, 9].map((s) => digestOf(s)));
    index.close();
  });

  it('takes uses that are still to come for those of long ago, after the clock was put right', () => {
    const file = join(directory, `${made++}.db`);
    const index = () => new SqliteCacheIndex(openDatabase(file, cacheMigrations, { durability: 'normal' }));
    const ahead = Date.now() + 86_400_000;
    const before = index();
    const add = (seed: number, lastUse: number) =>
      before.addBlob({ digest: digestOf(seed), size: 1, created: 1, lastUse });
    for (let seed = 0; seed < 1_500; seed++) add(seed, 1_000 + seed);
    for (let seed = 2_000; seed < 3_500; seed++) add(seed, ahead + seed);
    before.touchBlobs(new Map([[digestOf(7), ahead]]));
    before.addManifest({ digest: digestOf(1), body: Buffer.from('1') }, ahead);
    before.addManifest({ digest: digestOf(2), body: Buffer.from('2') }, 5);
    before.close();

    const after = index();
    const now = Date.now();
    // One that was used ahead of time is used again before and after the log was read back.
    after.touchBlobs(new Map([[digestOf(2_100), now]]));
    for (const _ of after.tidy());
    after.touchBlobs(new Map([[digestOf(2_200), now + 1]]));
    const order = inOrder(after);
    expect(order.length).toBe(3_000);
    expect(order.slice(0, 1_498).every(({ lastUse }) => lastUse === 0)).toBe(true);
    expect(order.slice(1_498, 1_500).map(({ lastUse }) => lastUse)).toEqual([1_000, 1_001]);
    expect(order.slice(-2).map(({ digest }) => digest)).toEqual([digestOf(2_100), digestOf(2_200)]);
    while (after.settleTimes(now, 1));
    expect(after.shrinkManifests(1, 1)).toEqual([digestOf(1)]);
    after.close();
  });

  it('makes facts of the links of an earlier version: what has a private link is closed to its registry, what is not here was given by nobody', () => {
    const file = join(directory, `${made++}.db`);
    const old = openDatabase(file, cacheMigrations.slice(0, 2), { durability: 'normal' });
    const repositories = [
      ['docker.io', 'open'],
      ['evil.example', 'app'],
      ['private.example', 'app'],
    ] as const;
    const [open_, evil, closed] = repositories.map(([registry, repository]) => ({ registry, repository }));
    for (const [registry, name] of repositories) {
      old.prepare('INSERT INTO repositories (registry, name) VALUES (?, ?)').run(registry, name);
    }
    const link = (repository: number, seed: string, isPrivate: 0 | 1) =>
      old.prepare('INSERT INTO links VALUES (?, ?, ?, 20000)').run(repository, toBytes(digestOf(seed)), isPrivate);
    for (const [number, seed] of ['open', 'secret'].entries()) {
      old.prepare('INSERT INTO blobs VALUES (?, ?, 1, 1)').run(toBytes(digestOf(seed)), number);
    }
    old
      .prepare("INSERT INTO manifests (digest, media_type, size, last_use, body) VALUES (?, 'a/b', 2, 1, x'7b7d')")
      .run(toBytes(digestOf('manifest')));
    old.prepare("INSERT INTO tags VALUES (1, '1', 'oci', ?, 5)").run(toBytes(digestOf('manifest')));
    for (const seed of ['open', 'manifest', 'absent']) link(1, seed, 0);
    link(2, 'secret', 0);
    for (const seed of ['secret', 'private absent']) link(3, seed, 1);
    old.close();
    const index = new SqliteCacheIndex(openDatabase(file, cacheMigrations, { durability: 'normal' }));
    const fact = (repository: RepositoryKey | undefined, seed: string) => index.factOf(repository!, digestOf(seed));
    expect(fact(open_, 'open')).toEqual({ said: 'anyone', gave: 'anyone', mediaType: null });
    expect(fact(open_, 'manifest')).toEqual({ said: 'anyone', gave: 'anyone', mediaType: 'a/b' });
    expect(fact(open_, 'absent')).toEqual({ said: 'anyone', gave: null, mediaType: null });
    expect(fact(evil, 'secret')).toEqual({ said: 'anyone', gave: null, mediaType: null });
    expect(fact(closed, 'secret')).toEqual({ said: DEFAULT_CREDENTIAL, gave: DEFAULT_CREDENTIAL, mediaType: null });
    expect(fact(closed, 'private absent')).toEqual({ said: DEFAULT_CREDENTIAL, gave: null, mediaType: null });
    expect(index.giversOf(digestOf('open'))).toEqual({ open: true, closedTo: [] });
    expect(index.giversOf(digestOf('secret'))).toEqual({
      open: false,
      closedTo: [{ registry: 'private.example', credential: DEFAULT_CREDENTIAL }],
    });
    expect(index.totals()).toMatchObject({ facts: 6, tags: 1, manifests: 1 });
    expect(index.tag(open_!, '1', 'oci')?.digest).toBe(digestOf('manifest'));
    expect(index.denyRepository(open_!)).toBe(true);
    index.close();
  });

  it('keeps a denial across a restart, and sweeps what it voided', () => {
    const home = mkdtempSync(join(directory, 'home-'));
    const app = { registry: 'docker.io', repository: 'app' };
    const gave = (seed: number) =>
      ({ repository: app, digest: digestOf(seed), said: null, gave: 'anyone', mediaType: null }) as const;
    const first = openCacheIndex(home, silentLog());
    first.addFacts([gave(1), gave(2)], Date.now());
    first.denyRepository(app);
    first.addFacts([gave(2)], Date.now());
    first.close();
    const second = openCacheIndex(home, silentLog());
    expect([second.factOf(app, digestOf(1)), second.giversOf(digestOf(1)).open]).toEqual([null, false]);
    expect(second.factOf(app, digestOf(2))?.gave).toBe('anyone');
    while (second.dropStaleFacts(0, 1));
    expect(second.totals().facts).toBe(1);
    second.close();
  });

  it('puts a damaged file aside and starts anew', () => {
    const home = mkdtempSync(join(directory, 'home-'));
    writeFileSync(join(home, 'cache.db'), 'this is no database, however long it may be. '.repeat(200));
    const index = openCacheIndex(home, silentLog());
    expect(index.totals().blobs).toBe(0);
    index.close();
    expect(readdirSync(home)).toContain('cache.db.damaged');
  });
});
