import { afterEach, expect, test } from 'vitest';
import { parseImagePattern } from '../../src/config/images.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { MemoryHistoryStore } from '../support/memory-history.ts';
import { type BedOptions, digestOf, RegistryBed, refusalOf } from '../support/registry-bed.ts';

// What policy.images refuses, where several gateways share what was seen, and their downloads.

const HUB = 'docker.io';
const APP = 'library/app';
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const rules = (...images: string[]) => ({ images: images.map((one) => parseImagePattern(one)) });

async function registry(): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start();
  closers.push(() => fake.close());
  return fake;
}

async function gateway(fake: FakeRegistry, options: Partial<BedOptions>): Promise<RegistryBed> {
  const bed = await RegistryBed.start({ registries: { [HUB]: { fake } }, ...options });
  closers.push(() => bed.stop());
  return bed;
}

test('what a tag stands for is known to the other gateways before its client asks them for the rest', async () => {
  const fake = await registry();
  const history = new MemoryHistoryStore();
  const options = { rules: rules('docker.io/*', '!*:latest'), history };
  const [one, other, third] = await Promise.all([1, 2, 3].map(() => gateway(fake, options)));
  if (one === undefined || other === undefined || third === undefined) throw new Error('no gateways');
  const repository = fake.repository(APP);
  const child = repository.addImage(undefined, ['layer']);
  const index = repository.addIndex('1.0', [child]);
  const layer = child.layers[0]?.digest ?? '';
  expect(await refusalOf(other.manifest(HUB, APP, index.digest))).toBe('imageRefused');

  // Each step at another gateway, at once.
  await one.manifest(HUB, APP, '1.0', { method: 'HEAD' });
  expect((await other.manifest(HUB, APP, index.digest)).status).toBe(200);
  expect((await third.manifest(HUB, APP, child.digest)).status).toBe(200);
  expect((await one.blob(HUB, APP, child.config.digest)).status).toBe(200);
  expect((await other.blob(HUB, APP, layer)).status).toBe(200);

  // Where nobody can be told, the client is given what it asked for all the same.
  const failing = new MemoryHistoryStore();
  failing.record = () => Promise.reject(new Error('the database is gone'));
  failing.tagsNaming = () => Promise.reject(new Error('the database is gone'));
  const alone = await gateway(fake, { rules: options.rules, history: failing });
  expect(await refusalOf(alone.blob(HUB, APP, layer))).toBe('unavailable');
  for (const reference of ['1.0', index.digest, child.digest])
    expect((await alone.manifest(HUB, APP, reference)).status).toBe(200);
  expect((await alone.blob(HUB, APP, layer)).status).toBe(200);
});

test('nothing is fetched or given for another gateway that nobody may have here', async () => {
  const fake = await registry();
  const bed = await gateway(fake, { rules: rules() });
  const blobs = [fake.repository(APP).addBlob('one'), fake.repository(APP).addBlob('other')];
  const [kept = '', unknown = ''] = blobs.map(({ digest }) => digest);
  await bed.blob(HUB, APP, kept);
  const give = async (digest: string) => {
    const key = { registry: HUB, repository: APP, digest: digestOf(digest), opener: null };
    const ask = { node: 'other', key, client: '192.0.2.1', known: true, whole: true, range: { from: 0 } };
    const given = await bed.core.forNodes.give(ask, { begin: true, growing: true });
    await given?.source.close();
    return given !== null;
  };
  expect(await give(kept)).toBe(true);
  bed.setRules(rules('!docker.io/library/app'));
  fake.log.clear();
  for (const digest of [kept, unknown]) expect(await give(digest)).toBe(false);
  expect(fake.log.count()).toBe(0);
  // The other gateway has judged which tag stands for it.
  bed.setRules(rules('docker.io/library/app:1.*'));
  for (const digest of [kept, unknown]) expect(await give(digest)).toBe(true);
});
