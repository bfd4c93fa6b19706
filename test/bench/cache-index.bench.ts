import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, test } from 'vitest';
import type { UsedBlob } from '../../src/cache/index-port.ts';
import type { Digest } from '../../src/oci/names.ts';
import { SqliteCacheIndex } from '../../src/sqlite/cache-index.ts';
import { openDatabase } from '../../src/sqlite/database.ts';
import { cacheMigrations } from '../../src/sqlite/migrations/cache.ts';

// The same work on an index of a thousand blobs and on one of a million: `npx vitest bench --run --project 'unit (bench)' test/bench/cache-index`.
const folder = mkdtempSync(join(tmpdir(), 'gateway-bench-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function indexOf(rows: number): { index: SqliteCacheIndex; some: () => Digest } {
  const database = openDatabase(join(folder, `${rows}.db`), cacheMigrations, { durability: 'normal' });
  database
    .prepare(
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
       INSERT INTO blobs (digest, number, size, created) SELECT unhex('01' || hex(randomblob(32))), i, 1000, 0 FROM n`,
    )
    .run(rows);
  database.exec(
    'INSERT INTO uses (at, digest, blob) SELECT abs(random() % 1000000000000) AS at, digest, number FROM blobs ORDER BY at',
  );
  const index = new SqliteCacheIndex(database);
  const step = Math.max(1, Math.floor(rows / 1000));
  // A thousand from all over it: the pages of a million are not all in memory.
  const digests = index.blobsAfter(null, rows).filter((_, number) => number % step === 0);
  let at = 0;
  const some = (): Digest => {
    at = (at + 7919) % digests.length;
    return digests[at]?.digest as Digest;
  };
  return { index, some };
}

function nextOldest(index: SqliteCacheIndex, limit: number): readonly UsedBlob[] {
  for (const rows of index.leastRecent(limit)) if (rows.length > 0) return rows;
  throw new Error('it is empty');
}

let now = 10 ** 12;
const few = indexOf(1_000);
const many = indexOf(1_000_000);

type Held = typeof few;
const WORK: Readonly<Record<string, (held: Held) => void>> = {
  'look one up': ({ index, some }) => {
    if (index.blob(some()) === null) throw new Error('it is not there');
  },
  'look up a hundred and touch them, as once a second': ({ index, some }) => {
    const digests = Array.from({ length: 100 }, some);
    for (const digest of digests) index.blob(digest);
    index.touchBlobs(new Map(digests.map((digest) => [digest, now++])));
  },
  'evict the 64 used longest ago, and keep 64 new ones': ({ index }) => {
    const oldest = nextOldest(index, 64);
    index.removeBlobs(oldest.map(({ digest }) => digest));
    for (const row of oldest) index.addBlob({ ...row, lastUse: now++ });
  },
  'sum up': ({ index }) => {
    if (index.totals().bytes === 0) throw new Error('nothing is there');
  },
};

describe('the cache index', () => {
  for (const [name, work] of Object.entries(WORK)) {
    test(name, async ({ bench }) => {
      await bench.compare(
        bench('among 1,000 blobs', () => work(few)),
        bench('among 1,000,000 blobs', () => work(many)),
      );
    });
  }
});
