import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCacheIndex, SqliteCacheIndex } from '../../../src/sqlite/cache-index.ts';
import { CACHE_SQL } from '../../../src/sqlite/cache-statements.ts';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { toBytes } from '../../../src/sqlite/digest-bytes.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
import { USE_SQL } from '../../../src/sqlite/use-log.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { cacheIndexConformance, digestOf } from '../../conformance/cache-index.ts';
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
    for (const [name, sql] of Object.entries({ ...CACHE_SQL, ...USE_SQL })) {
      if (name === 'onlyOf' || name === 'counters') continue;
      const blanks = Array(sql.split('?').length - 1).fill(null);
      const plan = database.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...blanks) as { detail: string }[];
      for (const { detail } of plan) {
        // A scan along an index in its order, with a limit, reads only what it returns.
        const walksInOrder = name === 'oldestManifests' && detail.includes('USING INDEX manifests_by_use');
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
    expect(second.blob(digestOf(1))).toEqual({ digest: digestOf(1), size: 5, created: 1 });
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
    const order = second.leastRecent(10_000, null).map(({ digest }) => digest);
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
    expect(index.leastRecent(200, null).map(({ digest }) => digest)).toEqual(digests);
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
    expect(index.leastRecent(3, null).map(({ digest }) => digest)).toEqual([0, 1, 2].map((seed) => digestOf(seed)));
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
    expect(index.leastRecent(10, null)).toEqual(
      [0, 2, 4, 1, 3].map((seed) => ({ digest: digestOf(seed), size: seed, created: 7, lastUse: (seed * 3) % 5 })),
    );
    index.addBlob({ digest: digestOf(9), size: 100, created: 1, lastUse: 9 });
    index.removeBlobs([digestOf(4)]);
    expect(index.totals()).toMatchObject({ blobs: 5, bytes: 106 });
    expect(index.leastRecent(10, null).map(({ digest }) => digest)).toEqual([0, 2, 1, 3, 9].map((s) => digestOf(s)));
    index.close();
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
