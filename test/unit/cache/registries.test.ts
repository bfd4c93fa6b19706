import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { partialName } from '../../../src/cache/files.ts';
import { TruncatedError } from '../../../src/kit/byte-source.ts';
import type { BlobKey } from '../../../src/oci/names.ts';
import {
  type Content,
  DrivenFetch,
  endRig,
  fetchOf,
  makeContent,
  makeRig,
  type Rig,
  readAll,
  readUntilEnd,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';

let rig: Rig;
beforeEach(async () => {
  rig = await makeRig();
});
afterEach(() => endRig(rig));

const SIZE = 50_000;
const of = ({ key }: Content, registry: string): BlobKey => ({ ...key, registry });
const settled = ({ digest }: Content) =>
  eventually('it is kept', () => rig.index.blob(digest) !== null && rig.cache.admin.stats().fills === 0);

/** Leaves the first 30,000 bytes that a registry gives in a partial file. */
async function leaveHalf(content: Content, registry: string, bytes: Buffer): Promise<void> {
  const driven = new DrivenFetch();
  const handle = rig.cache.fill(of(content, registry), driven.fetch);
  const sink = await driven.sink();
  sink.begin(SIZE);
  await sink.write(0, bytes.subarray(0, 30_000));
  await eventually('the bytes are there', () => handle.available > 0);
  driven.fail(new Error('left'));
  handle.release();
  await eventually('it is a partial file', () => rig.cache.admin.stats().partials > 0);
}

describe('two registries that bring the same digest', () => {
  it('each fill a file of their own: neither bytes nor size nor pace of one reach the readers of the other', async () => {
    const content = makeContent(SIZE);
    const evil = new DrivenFetch();
    const bad = rig.cache.fill(of(content, 'evil.example'), evil.fetch);
    const sink = await evil.sink();
    sink.begin(70_000);
    await sink.write(0, Buffer.alloc(40_000, 'evil'));
    expect(rig.cache.growing(of(content, 'good.example'))).toBeNull();
    const good = rig.cache.fill(of(content, 'good.example'), fetchOf(content.bytes));
    expect([await bad.size(), await good.size()]).toEqual([70_000, SIZE]);
    expect((await readAll(good.open())).equals(content.bytes)).toBe(true);
    good.release();
    await eventually('it is kept', () => rig.index.blob(content.digest) !== null);

    // The evil one goes on, and never takes the place of what is kept.
    const read = readUntilEnd(bad.open());
    await sink.write(40_000, Buffer.alloc(30_000, 'evil'));
    evil.finish();
    expect((await read).error).toBeInstanceOf(TruncatedError);
    bad.release();
    await settled(content);
    const kept = rig.cache.kept(content.digest);
    expect((await readAll(kept!.open())).equals(content.bytes)).toBe(true);
    kept?.release();
  });

  it('count both among what is reserved, and leave one file: the second copy is dropped, and its registry gave it', async () => {
    const content = makeContent(SIZE);
    const gave: string[] = [];
    const driven = ['one.example', 'two.example'].map((registry) => {
      const fetch = new DrivenFetch();
      const handle = rig.cache.fill(of(content, registry), fetch.fetch, { gave: () => gave.push(registry) });
      return { fetch, handle };
    });
    for (const { fetch } of driven) {
      const sink = await fetch.sink();
      sink.begin(SIZE);
      await sink.write(0, content.bytes);
    }
    expect((await readdir(join(rig.dataDir, 'partial'))).filter((name) => !name.includes('.held'))).toHaveLength(2);
    for (const { fetch, handle } of driven) {
      fetch.finish();
      expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
      handle.release();
    }
    await settled(content);
    expect(gave).toEqual(['one.example', 'two.example']);
    expect(await readdir(join(rig.dataDir, 'partial'))).toEqual([]);
    expect(rig.cache.admin.stats()).toMatchObject({ blobs: 1, bytes: SIZE, partials: 0 });
  });

  it('never take up what the other left half-fetched', async () => {
    const content = makeContent(SIZE);
    await leaveHalf(content, 'evil.example', Buffer.alloc(SIZE, 'evil'));
    const good = new DrivenFetch();
    const handle = rig.cache.fill(of(content, 'good.example'), good.fetch);
    expect((await good.sink()).held).toEqual([]);
    good.fail(new Error('enough'));
    handle.release();
    const again = new DrivenFetch();
    const same = rig.cache.fill(of(content, 'evil.example'), again.fetch);
    expect((await again.sink()).held).toEqual([{ from: 0, to: 30_000 }]);
    again.fail(new Error('enough'));
    same.release();
    const record = join(rig.dataDir, 'partial', `${partialName(of(content, 'evil.example'))}.held`);
    await eventually('the record is written', () => rig.cache.admin.stats().fills === 0);
    expect(JSON.parse(await readFile(record, 'utf8'))).toMatchObject({ registry: 'evil.example' });
  });

  it('are each told their own: a size beyond the cache is one registry’s claim', async () => {
    const content = makeContent(SIZE);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(of(content, 'evil.example'), driven.fetch);
    (await driven.sink()).begin(10 ** 12);
    await readUntilEnd(handle.open());
    handle.release();
    await eventually('it is remembered', () => !rig.cache.accepts(of(content, 'evil.example')));
    expect(rig.cache.accepts(of(content, 'good.example'))).toBe(true);
  });
});

describe('a registry that announces what cannot be', () => {
  it.each([
    ['no bytes of what has some', makeContent(SIZE), 0],
    ['some bytes of what has none', makeContent(0), 5],
  ])('%s is refused before the first byte', async (_, content, size) => {
    const handle = rig.cache.fill(content.key, async (sink) => sink.begin(size));
    await expect(handle.size()).rejects.toMatchObject({ kind: 'upstreamWrong' });
    handle.release();
  });
});
