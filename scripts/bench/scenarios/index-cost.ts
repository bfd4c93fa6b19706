import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { CacheIndex, UsedBlob } from '../../../src/cache/index-port.ts';
import { type Digest, parseDigest } from '../../../src/oci/names.ts';
import { openCacheIndex } from '../../../src/sqlite/open-cache-index.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { runOver } from '../process.ts';
import type { Result } from '../report.ts';
import type { Scenario } from '../scenario.ts';
import { sequence } from '../sequence.ts';

const SMALL = 1_000;
const LARGE = 1_000_000;
/** Blobs that are looked up, and then touched together, as the cache does once a second. */
const BATCH = 100;
/** Batches a sample: the mean of them holds its share of what is put off, sweeps and checkpoints. */
const BATCHES = 100;
/** Rows touched at once while the index is prepared. */
const FILL_BATCH = 10_000;
/** Prime to both numbers of rows, so that steps of it come by every row once. */
const STEP = 7_919;

/** 9: what a lookup, a batch of touches and an eviction cost of CPU, with a thousand and with a million rows. */
export const indexCost: Scenario = async (bench, { runs }) => {
  const figures: Record<string, { small: number[]; large: number[] }> = {
    'lookup of a blob': { small: [], large: [] },
    [`touch of ${BATCH} blobs anywhere, one transaction`]: { small: [], large: [] },
    [`eviction of ${BATCH} blobs: find and drop`]: { small: [], large: [] },
  };
  const sets: { size: 'small' | 'large'; rows: number; index: CacheIndex }[] = [];
  for (const [size, rows] of [
    ['small', SMALL],
    ['large', LARGE],
  ] as const) {
    const dir = join(bench.dir, size);
    mkdirSync(dir, { recursive: true });
    const index = openCacheIndex(dir, silentLog());
    await fill(index, rows);
    sets.push({ size, rows, index });
  }
  const next = sequence(1);
  let now = Date.now();
  for (let run = 0; run < runs; run++) {
    for (const { size, rows, index } of sets) {
      const picked = (count: number) => {
        const first = Math.floor(next() * rows);
        return Array.from({ length: count }, (_, turn) => digestOf((first + turn * STEP) % rows));
      };
      const spent = { lookups: 0, touches: 0 };
      for (let batch = 0; batch < BATCHES; batch++) {
        const digests = picked(BATCH);
        spent.lookups += time(() => {
          for (const digest of digests) index.blob(digest);
        });
        const uses = new Map(digests.map((digest) => [digest, now++]));
        spent.touches += time(() => index.touchBlobs(uses));
      }
      let evicted: readonly UsedBlob[] = [];
      const eviction = time(() => {
        evicted = oldest(index);
        index.removeBlobs(evicted.map(({ digest }) => digest));
      });
      for (const row of evicted) index.addBlob(row);
      const samples = [spent.lookups / BATCHES / BATCH, spent.touches / BATCHES, eviction];
      for (const [turn, name] of Object.keys(figures).entries()) figures[name]?.[size].push(samples[turn] ?? 0);
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

/** An index that has been in use: every blob was put in, and used again later, in another order. */
async function fill(index: CacheIndex, rows: number): Promise<void> {
  const now = Date.now();
  const start = now - 30 * 24 * 60 * 60 * 1000;
  for (const numbers of batches(rows)) {
    for (const number of numbers) {
      index.addBlob({ digest: digestOf(number), size: 1000, created: start, lastUse: start + number });
    }
    await pause();
  }
  for (const numbers of batches(rows)) {
    index.touchBlobs(new Map(numbers.map((number) => [digestOf((number * STEP) % rows), now - rows + number])));
    await pause();
  }
}

function* batches(rows: number): Generator<number[]> {
  for (let from = 0; from < rows; from += FILL_BATCH) {
    yield Array.from({ length: Math.min(FILL_BATCH, rows - from) }, (_, offset) => from + offset);
  }
}

/** Filling takes minutes: it can be ended. */
async function pause(): Promise<void> {
  await setImmediate();
  runOver.throwIfAborted();
}

/** The first that a walk finds, with all that it does before. */
function oldest(index: CacheIndex): readonly UsedBlob[] {
  for (const rows of index.leastRecent(BATCH)) if (rows.length > 0) return rows;
  return [];
}

/** CPU of this thread, µs. */
function time(work: () => void): number {
  const started = cpuOfThread();
  work();
  return cpuOfThread() - started;
}

/** The kernel brings a thread's account up to date at its ticks, ms apart, and whenever the whole process is asked for. */
function cpuOfThread(): number {
  process.cpuUsage();
  const { user, system } = process.threadCpuUsage();
  return user + system;
}
