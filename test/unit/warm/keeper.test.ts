import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import type { CacheAdmin } from '../../../src/cache/admin.ts';
import { Pins } from '../../../src/cache/pins.ts';
import { type ImageSource, SourceError } from '../../../src/images/image-source.ts';
import type { WarmRow } from '../../../src/images/warm-store.ts';
import { parseDigest } from '../../../src/oci/names.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { WarmKeeper } from '../../../src/warm/keeper.ts';
import { WarmService } from '../../../src/warm/service.ts';
import { Warmer } from '../../../src/warm/warmer.ts';
import { TestClock } from '../../support/clock.ts';
import { sha256 } from '../../support/content.ts';
import { eventually } from '../../support/eventually.ts';
import { LockTable, MemoryLocks } from '../../support/locks.ts';
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';
import { MemoryWarmStore } from '../../support/memory-warm-store.ts';

const HOUR = 3_600_000;
const IMAGE = 'quay.io/org/app:1';

/** Images without layers: what counts is when they are asked for. */
class Source implements ImageSource {
  asked = 0;
  failure: SourceError | null = null;
  hold: Promise<void> | null = null;

  async manifest() {
    this.asked++;
    await this.hold;
    if (this.failure !== null) throw this.failure;
    const body = Buffer.from('{"schemaVersion":2,"layers":[]}');
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    return { digest: parseDigest(sha256(body))!, mediaType, body, warning: null };
  }

  async blob(): Promise<never> {
    throw new Error('there are none');
  }

  async referrers(): Promise<never> {
    throw new Error('nobody asks');
  }

  async *tags() {}
}

const keepers: WarmKeeper[] = [];
afterEach(async () => {
  await Promise.all(keepers.splice(0).map((keeper) => keeper.close()));
});

interface Node {
  readonly source: Source;
  readonly service: WarmService;
  readonly metrics: Metrics;
}

function nodeOf(store: MemoryWarmStore, locks: LockTable, clock: TestClock, node = 'a'): Node {
  const source = new Source();
  const pins = new Pins(new MemoryCacheIndex(), () => {});
  const room = { maxBytes: 1e9, mostPinned: 8e8, used: 0, spare: 1e9 };
  const admin = { pins, room: () => room, sizeOf: () => null, fills: () => [] } as unknown as CacheAdmin;
  const cache = () => admin;
  const warmer = new Warmer({ images: () => source, cache });
  const service = new WarmService({ store, warmer, cache, node, now: clock.now });
  const metrics = new Metrics();
  const parts = { service, pins, locks: new MemoryLocks(locks), log: silentLog(), metrics, clock };
  keepers.push(WarmKeeper.start({ ...parts, startAfter: 20_000 }));
  return { source, service, metrics };
}

function rowOf(clock: TestClock, more: Partial<WarmRow> = {}): WarmRow {
  const createdAt = new Date(clock.now()).toISOString();
  const selection = { platforms: null, referrers: false };
  return { image: IMAGE, ...selection, pin: false, schedule: '0 * * * *', createdAt, ...more };
}

/** Lets what was begun come to its end: only promises are waited for. */
async function settle(): Promise<void> {
  for (let count = 0; count < 50; count++) await turn();
}

/** Time passes in small steps, as it does. */
async function pass(clock: TestClock, ms: number, step = 60_000): Promise<void> {
  for (let passed = 0; passed < ms; passed += step) {
    clock.advance(step);
    await settle();
  }
}

test('a row runs each hour once, and says how it went', async () => {
  const [clock, store] = [new TestClock(), new MemoryWarmStore()];
  await store.put(rowOf(clock));
  const { source, service, metrics } = nodeOf(store, new LockTable(), clock);
  await settle();
  await pass(clock, 4 * HOUR);
  expect(source.asked).toBeGreaterThanOrEqual(3);
  expect(source.asked).toBeLessThanOrEqual(4);
  expect(await metrics.total('warm_runs_total', { outcome: 'ok' })).toBe(source.asked);
  const [listed] = await service.list();
  expect(listed?.lastRun).toMatchObject({ error: null, node: 'a' });
  expect(Date.parse(listed?.nextRun ?? '')).toBeGreaterThan(clock.now() - 60_000);
});

test('runs that were missed while the machine was off are run once, soon after the start', async () => {
  const [clock, store] = [new TestClock(), new MemoryWarmStore()];
  await store.put(rowOf(clock, { createdAt: new Date(clock.now() - 72 * HOUR).toISOString() }));
  const { source } = nodeOf(store, new LockTable(), clock);
  await settle();
  expect(source.asked).toBe(0);
  await pass(clock, 2 * 60_000);
  expect(source.asked).toBe(1);
});

test('a failure is tried again when its registry allows, and until then counts as failing', async () => {
  const [clock, store] = [new TestClock(), new MemoryWarmStore()];
  await store.put(rowOf(clock, { schedule: '0 3 1 1 *', pin: true }));
  const { source, service, metrics } = nodeOf(store, new LockTable(), clock);
  source.failure = new SourceError(429, 'TOOMANYREQUESTS', 'quay.io allows no more pulls', 2 * 3600);
  await settle();
  await pass(clock, 2 * 60_000);
  expect(source.asked).toBe(1);
  await pass(clock, HOUR);
  expect(source.asked).toBe(1);
  expect(await metrics.total('warm_failing')).toBe(1);
  expect((await service.list())[0]).toMatchObject({
    lastRun: { error: 'quay.io allows no more pulls', succeededAt: null },
  });
  source.failure = null;
  await pass(clock, 1.1 * HOUR);
  expect(source.asked).toBe(2);
  expect(await metrics.total('warm_failing')).toBe(0);
});

test('no run overlaps another of the same row, however long it takes', async () => {
  const [clock, store] = [new TestClock(), new MemoryWarmStore()];
  await store.put(rowOf(clock));
  const { source, service } = nodeOf(store, new LockTable(), clock);
  const held = Promise.withResolvers<void>();
  source.hold = held.promise;
  await settle();
  await pass(clock, 5 * HOUR);
  expect(source.asked).toBe(1);
  source.hold = null;
  held.resolve();
  await eventually('it is noted', async () => (await service.list())[0]?.lastRun !== null);
});

test('of two gateways one runs what is only fetched; what is pinned each brings to its own disk', async () => {
  const [clock, store, locks] = [new TestClock(), new MemoryWarmStore(), new LockTable()];
  await store.put(rowOf(clock));
  const one = nodeOf(store, locks, clock, 'a');
  const two = nodeOf(store.another(), locks, clock, 'b');
  await settle();
  await pass(clock, 6 * HOUR);
  const runs = one.source.asked + two.source.asked;
  expect(runs).toBeGreaterThanOrEqual(5);
  expect(runs).toBeLessThanOrEqual(6);
  await store.another().put(rowOf(clock, { pin: true, schedule: null }));
  await settle();
  const before = [one.source.asked, two.source.asked];
  await pass(clock, 10 * 60_000);
  expect([one.source.asked, two.source.asked]).toEqual(before.map((count) => count + 1));
  expect((await store.load()).runs.map(({ node }) => node)).toEqual(['a', 'b']);
  await one.service.remove(IMAGE);
  await settle();
  expect(await two.service.list()).toEqual([]);
  await pass(clock, 2 * HOUR);
  expect([one.source.asked, two.source.asked]).toEqual(before.map((count) => count + 1));
});

test('while the store is away no registry is asked for what is due, and afterwards once', async () => {
  const [clock, store] = [new TestClock(), new MemoryWarmStore()];
  // The middle of an hour: it begins and ends far from when a run is due.
  clock.advance(HOUR + HOUR / 2 - (clock.now() % HOUR));
  await store.put(rowOf(clock, { pin: true }));
  const flaky = store.another();
  let away = false;
  const unlessAway = async () => {
    if (away) throw new Error('the database is away');
  };
  const [load, noteRun] = [flaky.load.bind(flaky), flaky.noteRun.bind(flaky)];
  Object.assign(flaky, {
    load: () => unlessAway().then(load),
    noteRun: (run: Parameters<typeof noteRun>[0]) => unlessAway().then(() => noteRun(run)),
  });
  const { source } = nodeOf(flaky, new LockTable(), clock);
  await settle();
  await pass(clock, 2 * HOUR);
  const before = source.asked;
  expect(before).toBeGreaterThan(0);
  away = true;
  await pass(clock, 5 * HOUR);
  expect(source.asked).toBe(before);
  away = false;
  await pass(clock, 10 * 60_000);
  expect(source.asked).toBe(before + 1);
});
