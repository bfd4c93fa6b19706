import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCacheIndex, SqliteCacheIndex } from '../../../src/sqlite/cache-index.ts';
import { CACHE_SQL } from '../../../src/sqlite/cache-statements.ts';
import { openDatabase } from '../../../src/sqlite/database.ts';
import { cacheMigrations } from '../../../src/sqlite/migrations/cache.ts';
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
    for (const [name, sql] of Object.entries(CACHE_SQL)) {
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
    expect(second.blob(digestOf(1))).toEqual({ digest: digestOf(1), size: 5, created: 1, lastUse: 2 });
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
