import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { CacheIndex } from '../../../src/cache/index-port.ts';
import { type Digest, parseDigest } from '../../../src/oci/digest.ts';
import { openCacheIndex } from '../../../src/sqlite/cache-index.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenarios.ts';

const SMALL = 1_000;
const LARGE = 1_000_000;
/** Operations a sample. */
const LOOKUPS = 2_000;
const BATCH = 100;
/** Commits of the filling: one transaction for all would hold a gigabyte of log. */
const FILL_BATCH = 10_000;

/** 9: what a lookup, a batch of touches and an eviction cost, with a thousand and with a million rows. */
export const indexCost: Scenario = async (bench, { runs }) => {
  const figures: Record<string, { small: number[]; large: number[] }> = {
    'lookup of a blob': { small: [], large: [] },
    [`touch of ${BATCH} blobs, one transaction`]: { small: [], large: [] },
    [`eviction of ${BATCH} blobs: find and drop`]: { small: [], large: [] },
  };
  const sets = (['small', 'large'] as const).map((size) => {
    const rows = size === 'small' ? SMALL : LARGE;
    const dir = join(bench.dir, size);
    mkdirSync(dir, { recursive: true });
    const index = openCacheIndex(dir, silentLog());
    fill(index, rows);
    return { size, rows, index };
  });
  for (let run = 0; run < runs; run++) {
    for (const { size, rows, index } of sets) {
      const picked = (count: number) =>
        Array.from({ length: count }, (_, turn) => digestOf((turn * 7919 + run * 104_729) % rows));
      const samples = [
        time(picked(LOOKUPS), (digests) => {
          for (const digest of digests) index.blob(digest);
        }) / LOOKUPS,
        time(picked(BATCH), (digests) => index.touchBlobs(new Map(digests.map((digest) => [digest, Date.now()])))),
        time(
          null,
          () => {
            const rows = index.leastRecent(BATCH, null);
            index.removeBlobs(rows.map(({ digest }) => digest));
            return rows;
          },
          (evicted) => {
            for (const row of evicted) index.addBlob(row);
          },
        ),
      ];
      for (const [turn, name] of Object.keys(figures).entries())
        figures[name]?.[size].push((samples[turn] ?? 0) * 1000);
    }
  }
  for (const { index } of sets) index.close();
  return Object.entries(figures).map(
    ([figure, { small, large }]): Result => ({
      scenario: '9  cache index of 10^6 blobs against 10^3',
      figure,
      unit: 'µs',
      better: 'less',
      ours: { peer: `${LARGE} rows`, values: large },
      // "Flat within 2 ×": the large one may cost twice as much.
      peers: [{ series: { peer: `${SMALL} rows`, values: small }, goal: 0.5 }],
    }),
  );
};

function digestOf(number: number): Digest {
  const digest = parseDigest(`sha256:${createHash('sha256').update(String(number)).digest('hex')}`);
  if (digest === null) throw new Error('no digest');
  return digest;
}

function fill(index: CacheIndex, rows: number): void {
  const now = Date.now();
  for (let from = 0; from < rows; from += FILL_BATCH) {
    const to = Math.min(rows, from + FILL_BATCH);
    for (let number = from; number < to; number++) {
      index.addBlob({ digest: digestOf(number), size: 1000, created: now, lastUse: now - number });
    }
  }
}

/** Milliseconds of `work`; `undo` is not counted. */
function time<I, R>(input: I, work: (input: I) => R, undo?: (result: R) => void): number {
  const started = performance.now();
  const result = work(input);
  const elapsed = performance.now() - started;
  undo?.(result);
  return elapsed;
}
