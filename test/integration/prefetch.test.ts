import { afterEach, expect, test } from 'vitest';
import type { Upstream } from '../../src/upstream/upstream.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, type FakeRegistryOptions, generated } from '../support/fake-registry/index.ts';
import { type BedOptions, digestOf, RegistryBed } from '../support/registry-bed.ts';

const APP = 'library/app';
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(
  rules: { on?: boolean; contended?: boolean } = {},
  fakeOptions: FakeRegistryOptions = {},
  more: Partial<BedOptions> = {},
) {
  const fake = await FakeRegistry.start(fakeOptions);
  closers.push(() => fake.close());
  const state = { on: true, contended: false, ...rules };
  const prefetch = { isOn: () => state.on, isContended: () => state.contended };
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } }, prefetch, ...more });
  closers.push(() => bed.stop());
  return { fake, bed, state, repository: fake.repository(APP) };
}

const layers = (count: number) => Array.from({ length: count }, (_, at) => generated(20_000 + at, `layer ${at}`));

test('the layers of a manifest that is asked for are kept before anybody asks for them', async () => {
  const { fake, bed, repository } = await start();
  const image = repository.addImage('1', layers(2));
  await bed.manifest('docker.io', APP, '1');
  const blobs = [image.config, ...image.layers].map(({ digest }) => digestOf(digest));
  await eventually('the blobs to be kept', () => blobs.every((digest) => bed.rig.index.blob(digest) !== null));
  expect(await bed.counter('registry_prefetched_total')).toBe(3);
  const asked = fake.log.count();
  for (const digest of blobs) expect((await bed.blob('docker.io', APP, digest)).from).toBe('cache');
  expect(fake.log.count()).toBe(asked);
  expect(await bed.counter('registry_prefetched_used_total')).toBe(3);
  // Once more from memory, and from the index: nothing begins.
  await bed.manifest('docker.io', APP, '1');
  bed.restartCore();
  await bed.manifest('docker.io', APP, image.digest);
  expect(fake.log.count({ kind: 'blob' })).toBe(3);
});

test('a client that asks joins what is on its way, and a few are begun at a time', async () => {
  const { promise: opened, resolve: open } = Promise.withResolvers<void>();
  let begun = 0;
  const wrapUpstream = (upstream: Upstream): Upstream =>
    new Proxy(upstream, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (name !== 'download') return typeof value === 'function' ? value.bind(target) : value;
        return async (...given: Parameters<Upstream['download']>): Promise<void> => {
          begun++;
          // None of those that begin ends before it was seen how many they are.
          await opened;
          await target.download(...given);
        };
      },
    });
  const { fake, bed, repository } = await start({}, {}, { wrapUpstream });
  const image = repository.addImage('1', layers(6));
  await bed.manifest('docker.io', APP, '1');
  await eventually('three to begin', () => begun >= 3);
  expect(begun).toBe(3);
  open();
  for (const { digest } of [image.config, ...image.layers]) {
    const { truncated } = await bed.blob('docker.io', APP, digest);
    expect(truncated).toBe(false);
  }
  expect(fake.log.count({ kind: 'blob' })).toBe(7);
});

test('nothing begins where that is off, for a HEAD, for an index, where others wait, or for what does not say how large it is', async () => {
  const { fake, bed, state, repository } = await start({ on: false });
  const image = repository.addImage('1', layers(1));
  repository.addIndex('index', [image]);
  const quiet = async (reference: string, method: 'GET' | 'HEAD' = 'GET') => {
    bed.restartCore();
    await bed.manifest('docker.io', APP, reference, { method });
    await new Promise((resolve) => setImmediate(resolve));
    // A blob that would have begun is asked for before this one.
    await bed.blob('docker.io', APP, repository.addBlob(`after ${reference} ${method} ${fake.log.count()}`).digest);
    const begun = fake.log.of({ kind: 'blob' }).map((request) => request.reference);
    for (const { digest } of [image.config, ...image.layers]) expect(begun).not.toContain(digest);
  };
  await quiet('1');
  state.on = true;
  await quiet('1', 'HEAD');
  await quiet('index');
  state.contended = true;
  await quiet('1');
  state.contended = false;
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: image.config.digest };
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  repository.addManifest({ schemaVersion: 2, mediaType, config, layers: [] }, mediaType, 'sizeless');
  await quiet('sizeless');
});

test('nothing begins for a client that is over its quota, nor where nothing is kept', async () => {
  const refuse = () => ({
    promise: () => {
      throw new Error('over its quota');
    },
    fetched: () => false,
    close: () => {},
  });
  for (const more of [{ budget: refuse }, { keepNothing: true }]) {
    const { fake, bed, repository } = await start({}, {}, more);
    repository.addImage('1', layers(2));
    await bed.manifest('docker.io', APP, '1');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(fake.log.count({ kind: 'blob' })).toBe(0);
  }
});
