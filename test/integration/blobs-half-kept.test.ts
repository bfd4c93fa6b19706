import { expect, it } from 'vitest';
import { answersBed, closeAfterEach, fakeRegistry, REGISTRY, REPOSITORY } from '../support/answers-bed.ts';
import { eventually } from '../support/eventually.ts';
import { generated } from '../support/fake-registry/index.ts';
import { refusalOf } from '../support/registry-bed.ts';

closeAfterEach();

const SIZE = 3_000_000;
const KEPT = 1_000_000;

it('of a blob that is kept in part, what is there is given while its registry is gone, and the rest is fetched when it is back', async () => {
  const { fake, bed, repository, blob, manifest } = await answersBed();
  const layer = generated(SIZE, 5);
  repository.addImage('1', [layer]);
  await manifest('1');
  let blobs = 0;
  fake.faults = ({ kind }) => {
    if (kind !== 'blob') return undefined;
    return blobs++ === 0 ? { endAfter: KEPT } : { status: 404 };
  };
  expect(await blob(layer.digest)).toMatchObject({ status: 200, truncated: true });
  await fake.close();
  const range = async (from: number, to?: number) => {
    const { status, body, truncated } = await blob(layer.digest, { range: `bytes=${from}-${to ?? ''}` });
    expect(body.equals(layer.read(from, from + body.length))).toBe(true);
    return [status, body.length, truncated];
  };
  for (let turn = 0; turn < 2; turn++) {
    // Nothing beyond what is kept can come: a client that is told so goes elsewhere, where it would not after half a body. And nothing is lost by it.
    expect(await refusalOf(blob(layer.digest))).toBe('upstreamFailed');
    expect(await refusalOf(range(KEPT))).toBe('upstreamFailed');
    expect(await range(1_000, 1_999)).toEqual([206, 1_000, false]);
    expect(await range(500_000)).toEqual([206, KEPT - 500_000, true]);
    bed.restartCore();
  }
  const back = await fakeRegistry();
  back.repository(REPOSITORY).addImage('1', [layer]);
  bed.put(REGISTRY, { fake: back });
  expect(await blob(layer.digest)).toMatchObject({ status: 200, truncated: false, body: layer.read(0, SIZE) });
  expect(back.log.of({ kind: 'blob' }).map(({ headers }) => headers.range)).toEqual([`bytes=${KEPT}-`]);
}, 60_000);

it('of a blob whose fill rests, what it lacks is refused at the start while its registry is gone, and what is there is given', async () => {
  const { fake, bed, repository, blob, manifest } = await answersBed();
  const layer = generated(10 * SIZE, 6);
  repository.addImage('1', [layer]);
  await manifest('1');
  expect(await blob(layer.digest, { range: 'bytes=1000-50000' })).toMatchObject({ status: 206, truncated: false });
  await eventually('the fill to rest', () => bed.rig.cache.admin.fills()[0]?.resting === true);
  await fake.close();
  expect(await blob(layer.digest, { range: 'bytes=2000-3000' })).toMatchObject({ status: 206, truncated: false });
  const lacking = [
    undefined,
    'bytes=600000-',
    'bytes=600000-700000',
    'bytes=-5',
    'bytes=20000000-20000001,25000000-25000001',
  ];
  const refusals = lacking.map((range) => refusalOf(blob(layer.digest, range === undefined ? {} : { range })));
  expect(await Promise.all(refusals)).toEqual(lacking.map(() => 'upstreamFailed'));
  const back = await fakeRegistry();
  back.repository(REPOSITORY).addImage('1', [layer]);
  bed.put(REGISTRY, { fake: back });
  const whole = await blob(layer.digest);
  expect([whole.status, whole.truncated, whole.body.equals(layer.read(0, layer.size))]).toEqual([200, false, true]);
}, 60_000);

it('of a blob whose fill rests, the rest comes for the next reader while its registry is well', async () => {
  const { fake, bed, repository, blob } = await answersBed();
  const layer = generated(10 * SIZE, 7);
  repository.addBlob(layer);
  for (const range of [
    'bytes=1000-50000',
    'bytes=600000-700000',
    'bytes=20000000-20000001,25000000-25000001',
    undefined,
  ]) {
    const { status, truncated } = await blob(layer.digest, range === undefined ? {} : { range });
    expect([status, truncated]).toEqual([range === undefined ? 200 : 206, false]);
    if (range !== undefined) await eventually('it to rest', () => bed.rig.cache.admin.fills()[0]?.resting === true);
  }
  expect(fake.log.bytes({ kind: 'blob' })).toBeLessThan(layer.size * 1.1);
}, 60_000);
