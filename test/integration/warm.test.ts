import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseImageName } from '../../src/images/image-name.ts';
import { parsePlatform } from '../../src/images/platform.ts';
import { CoreSource } from '../../src/proxy/core-source.ts';
import { errorOf, WarmService } from '../../src/warm/service.ts';
import { Warmer, type WarmOutcome, type WarmRequest } from '../../src/warm/warmer.ts';
import { MIB } from '../support/cache-rig.ts';
import { generatedLayer } from '../support/content.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import type { FaultPlan } from '../support/fake-registry/options.ts';
import { MemoryWarmStore } from '../support/memory-warm-store.ts';
import { type Answered, type BedOptions, RegistryBed } from '../support/registry-bed.ts';

// Images that are fetched before anybody asks for them, through the real core, cache and upstream room.

const HOST = 'registry.example';
const REPORT = { need: () => {}, progress: () => {}, ended: () => {} };
const DAY = 86_400_000;

let fake: FakeRegistry;
let bed: RegistryBed;
let store: MemoryWarmStore;

beforeEach(async () => {
  faults = () => undefined;
  fake = await FakeRegistry.start({ faults: (request) => faults(request) });
  store = new MemoryWarmStore();
});
afterEach(async () => {
  await bed.stop();
  await fake.close();
});

async function start(maxSize = 64 * MIB, rules?: BedOptions['rules']): Promise<WarmService> {
  const rest = rules === undefined ? {} : { rules };
  bed = await RegistryBed.start({ registries: { [HOST]: { fake } }, cache: { maxSize }, ...rest });
  return service();
}

function service(): WarmService {
  const images = new CoreSource(bed.core);
  const cache = () => bed.rig.cache.admin;
  return new WarmService({ store, warmer: new Warmer({ images: () => images, cache }), cache, node: 'node' });
}

function request(name: string, more: Partial<WarmRequest> & { platforms?: string[] | null } = {}): WarmRequest {
  const { platforms = ['linux/amd64'], ...rest } = more;
  const selection = { platforms: platforms?.map(parsePlatform) ?? null, referrers: false };
  return { image: parseImageName(`${HOST}/${name}`), selection, pin: false, ...rest };
}

function warm(on: WarmService, requests: readonly WarmRequest[], schedule: string | null = null) {
  return on.warm(requests, schedule, ['linux/amd64'], REPORT, new AbortController().signal);
}

function layer(seed: string, size = 300_000) {
  return generatedLayer(size, seed);
}

const blobGets = () => fake.log.of({ method: 'GET', kind: 'blob' }).map(({ reference }) => reference);

let faults: FaultPlan = () => undefined;

/** A whole pull by tag, as a client makes it, of the platform amd64 where there are several. */
async function pull(name: string, tag: string): Promise<Answered> {
  const top = await bed.manifest(HOST, name, tag);
  const parsed = JSON.parse(top.body.toString()) as { manifests?: { digest: string }[] };
  const own = parsed.manifests === undefined ? top : await bed.manifest(HOST, name, parsed.manifests[0]?.digest ?? '');
  const image = JSON.parse(own.body.toString()) as { config: { digest: string }; layers: { digest: string }[] };
  for (const { digest } of [image.config, ...image.layers]) {
    const blob = await bed.blob(HOST, name, digest);
    expect(blob).toMatchObject({ status: 200, truncated: false });
  }
  return top;
}

test('fetches what is not here once, of the platform that is wanted, and nothing the second time', async () => {
  const on = await start();
  const app = fake.repository('app');
  const [own, other] = [app.addImage(undefined, [layer('a'), layer('b')]), app.addImage(undefined, [layer('c')])];
  const index = app.addIndex('1', [own, other]);
  const [done] = await warm(on, [request('app:1')]);
  expect(done).toMatchObject({ ok: true, digest: index.digest, platforms: ['linux/amd64'], error: null });
  expect(done?.fetched).toBe(done?.bytes);
  expect(new Set(blobGets())).toEqual(new Set([own.config, ...own.layers].map(({ digest }) => digest)));
  const asked = fake.log.count();
  const [again] = await warm(on, [request('app:1')]);
  expect(again).toMatchObject({ ok: true, fetched: 0, bytes: done?.bytes });
  expect(fake.log.count()).toBe(asked);
  await warm(on, [request('app:1', { platforms: null })]);
  expect(blobGets()).toContain(other.layers[0]?.digest);
});

test('an image that cannot be had does not stop the others, and says why', async () => {
  const on = await start();
  fake.repository('app').addImage('1', [layer('a')]);
  const done = await warm(on, [request('gone:1'), request('app:1'), request('app:2')]);
  expect(done.map(({ ok }) => ok)).toEqual([false, true, false]);
  expect(done[2]).toMatchObject({ image: `${HOST}/app:2`, digest: null, error: expect.stringContaining('app') });
});

test('what is to be fetched counts what images share once, and what is here not at all', async () => {
  const on = await start();
  const app = fake.repository('app');
  app.addImage('1', [layer('base'), layer('a')]);
  await warm(on, [request('app:1')]);
  const images = [app.addImage('2', [layer('base'), layer('b')]), app.addImage('3', [layer('base'), layer('b')])];
  const needs: number[] = [];
  const report = { ...REPORT, need: ({ missing }: { missing: number }) => needs.push(missing) };
  const requests = [request('app:1'), request('app:2'), request('app:3')];
  const done = await on.warm(requests, null, ['linux/amd64'], report, new AbortController().signal);
  const absent = images.flatMap(({ config, layers: [, own] }) => [config, own]);
  const sizes = new Map(absent.map((blob) => [blob?.digest, blob?.size ?? 0]));
  const bytes = sizes.values().reduce((sum, size) => sum + size, 0);
  expect(needs).toEqual([bytes]);
  expect(done.map(({ ok }) => ok)).toEqual([true, true, true]);
});

test('a pull that follows needs no registry at all', async () => {
  const on = await start();
  const app = fake.repository('app');
  const index = app.addIndex('1', [app.addImage(undefined, [layer('a')]), app.addImage(undefined, [layer('b')])]);
  await warm(on, [request('app:1')]);
  await fake.close();
  bed.clock += DAY;
  expect((await pull('app', '1')).headers['docker-content-digest']).toBe(index.digest);
});

test('what is pinned stays while others need room, and its tag is given however long its registry is away', async () => {
  const on = await start(4 * MIB);
  const pinned = fake.repository('pinned').addImage('1', [layer('a', MIB), layer('b', MIB)]);
  expect((await warm(on, [request('pinned:1', { pin: true })]))[0]).toMatchObject({ ok: true });
  for (let count = 0; count < 12; count++) {
    fake.repository(`other${count}`).addImage('1', [layer(`other ${count}`, 700_000)]);
    await pull(`other${count}`, '1');
  }
  const { admin } = bed.rig.cache;
  expect(admin.stats().evictions).toBeGreaterThan(5);
  expect(admin.stats().pinnedBytes).toBe([pinned.config, ...pinned.layers].reduce((sum, { size }) => sum + size, 0));
  const dropped = await admin.prune({ all: true }, () => {}, new AbortController().signal);
  expect(dropped.pinned).toBeGreaterThanOrEqual(3);
  await fake.close();
  bed.clock += 400 * DAY;
  const answer = await pull('pinned', '1');
  expect(answer).toMatchObject({ status: 200, from: 'stale' });
  expect(answer.headers['docker-content-digest']).toBe(pinned.digest);
  await expect(bed.manifest(HOST, 'other0', '1')).rejects.toThrow();
});

test('pins that do not fit are refused before anything is fetched, and are not remembered', async () => {
  const on = await start(2 * MIB);
  fake.repository('large').addImage('1', [layer('a', MIB), layer('b', MIB)]);
  await expect(warm(on, [request('large:1', { pin: true })])).rejects.toMatchObject({ code: 'PIN_NO_ROOM' });
  expect(blobGets()).toEqual([]);
  expect((await store.load()).rows).toEqual([]);
});

test('a pin follows its tag once the new image is whole, and lets go of the old one', async () => {
  const on = await start();
  const app = fake.repository('app');
  const old = app.addImage('1', [layer('old')]);
  await warm(on, [request('app:1', { pin: true })]);
  const { pins } = bed.rig.cache.admin;
  const moved: string[] = [];
  pins.onMoved((id) => moved.push(id));
  const next = app.addImage('1', [layer('new')]);
  const [row] = (await store.load()).rows;
  bed.clock += DAY;
  faults = ({ reference }) => (reference === next.layers[0]?.digest ? { status: 404 } : undefined);
  const failed = (await on.run(row!, new AbortController().signal)) as WarmOutcome;
  expect(failed).toMatchObject({ ok: false, digest: next.digest });
  expect([...new Set(moved)]).toEqual([`${HOST}/app:1`]);
  expect(pins.of(`${HOST}/app:1`)?.root).toBe(old.digest);
  faults = () => undefined;
  bed.clock += DAY;
  expect(await on.run(row!, new AbortController().signal)).toMatchObject({ ok: true, digest: next.digest });
  expect(pins.of(`${HOST}/app:1`)?.root).toBe(next.digest);
  expect(pins.has(old.layers[0]!.digest)).toBe(false);
  expect(pins.totals.pins).toBe(1);
  expect(await on.remove(`${HOST}/app:1`)).toMatchObject({ pin: true });
  expect(pins.totals).toEqual({ pins: 0, bytes: 0, heldBytes: 0 });
  await expect(on.remove(`${HOST}/app:1`)).rejects.toMatchObject({ code: 'WARM_UNKNOWN' });
});

test('what a cooldown keeps back is no failure: the image is here as it was, and it says what waits', async () => {
  const on = await start(64 * MIB, { cooldown: 3 * DAY });
  const app = fake.repository('app');
  const old = app.addImage('1', [layer('old')]);
  const [young] = await warm(on, [request('app:1')]);
  expect(young).toMatchObject({ ok: false, error: expect.stringContaining('too young') as string });
  bed.clock += 4 * DAY;
  expect((await warm(on, [request('app:1', { pin: true })]))[0]).toMatchObject({
    ok: true,
    digest: old.digest,
    waits: null,
  });
  const next = app.addImage('1', [layer('new')]);
  bed.clock += DAY;
  const [row] = (await store.load()).rows;
  const kept = (await on.run(row!, new AbortController().signal)) as WarmOutcome;
  const waits = expect.stringContaining(`this tag moved to ${next.digest}`) as string;
  expect(kept).toMatchObject({ ok: true, digest: old.digest, stale: null, waits });
  expect(errorOf(kept)).toBeNull();
  // Its registry cannot be asked: that is one.
  await fake.close();
  bed.clock += DAY;
  const stale = (await on.run(row!, new AbortController().signal)) as WarmOutcome;
  expect(stale).toMatchObject({ ok: true, digest: old.digest, stale: waits, waits: null });
  expect(errorOf(stale)).toContain('was not asked');
});
