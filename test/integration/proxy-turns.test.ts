import { afterEach, expect, test } from 'vitest';
import { POOLS } from '../../src/upstream/registry-upstream.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { RegistryBed } from '../support/registry-bed.ts';

const MIB = 1024 * 1024;
/** More than two clients together can get at a time, and fewer than wait too long. */
const MANY = 400;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start() {
  const fake = await FakeRegistry.start();
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'r.test': { fake } } });
  closers.push(() => bed.stop());
  return { fake, bed, repository: fake.repository('app') };
}

test('a cold blob that a greedy client has in its line comes in the turn of another one that asks for it too', async () => {
  const { fake, bed, repository } = await start();
  const blobs = Array.from({ length: MANY }, (_, i) => repository.addBlob(generated(MIB, i)));
  const wanted = blobs.at(-1)!;
  fake.faults = ({ reference, nth }) => (reference === wanted.digest ? undefined : { stallAfter: 1000 + nth });
  for (const { digest } of blobs) bed.blob('r.test', 'app', digest, { client: 'greedy' }).catch(() => {});
  const most = Math.min(POOLS.fill.perAsker, POOLS.fill.perItem);
  await eventually('it has all that it can get', () => fake.log.count() >= most);
  expect(fake.log.count({ reference: wanted.digest })).toBe(0);
  const reply = await bed.blob('r.test', 'app', wanted.digest, { client: 'modest' });
  expect(Buffer.compare(reply.body, wanted.read(0, wanted.size))).toBe(0);
});

test('so does a manifest', async () => {
  const { fake, bed, repository } = await start();
  const image = repository.addImage('wanted', ['layer']);
  fake.faults = ({ reference }) => (reference === 'wanted' ? undefined : { hang: true });
  const tags = [...Array.from({ length: MANY }, (_, i) => `hangs${i}`), 'wanted'];
  for (const tag of tags) bed.manifest('r.test', 'app', tag, { client: 'greedy' }).catch(() => {});
  const most = Math.min(POOLS.document.perAsker, POOLS.document.perItem);
  await eventually('it has all that it can get', () => fake.log.count() >= most);
  expect(fake.log.count({ reference: 'wanted' })).toBe(0);
  expect((await bed.manifest('r.test', 'app', 'wanted', { client: 'modest' })).body).toEqual(image.body);
});
