import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Fetch } from '../../../src/cache/blob-cache.ts';
import type { SharedContent } from '../../../src/cache/shared-store.ts';
import { TruncatedError } from '../../../src/kit/byte-source.ts';
import {
  type Content,
  contentOf,
  DrivenFetch,
  endRig,
  fetchOf,
  makeRig,
  type Rig,
  readAll,
  readUntilEnd,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';
import { MemoryTier } from '../../support/memory-tier.ts';

const SIZE = 200_000;

let tier: MemoryTier;
let rig: Rig;
let warnings: string[];
beforeEach(async () => {
  tier = new MemoryTier();
  warnings = [];
  const log = pino(
    { level: 'warn' },
    { write: (line: string) => void warnings.push((JSON.parse(line) as { msg: string }).msg) },
  );
  rig = await makeRig({ shared: tier.parts, log });
});
afterEach(() => endRig(rig));

const someContent = (): Content => contentOf(randomBytes(SIZE));
const isKept = ({ digest }: Content) =>
  eventually('the blob is kept', () => rig.index.blob(digest) !== null && rig.cache.admin.stats().fills === 0);

/** As the core does it when a registry gave a blob. */
const gaveOf =
  ({ key, digest }: Content) =>
  () =>
    rig.cache.facts.add([{ repository: key, digest, said: null, gave: 'anyone', mediaType: null }]);

/** Fills from the upstream, or from the tier. Returns how often the upstream was asked. */
async function pull(content: Content): Promise<number> {
  let asked = 0;
  const fetch: Fetch = (sink) => {
    asked++;
    return fetchOf(content.bytes)(sink);
  };
  const handle =
    rig.cache.kept(content.digest) ?? rig.cache.fill(content.key, fetch, { tier: true, gave: gaveOf(content) });
  expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
  handle.release();
  await isKept(content);
  return asked;
}

/** Removes the blob from this machine's cache, not from the tier. */
async function evict(): Promise<void> {
  await rig.cache.admin.prune({ all: true }, () => {}, new AbortController().signal);
}

describe('the second level of the cache', () => {
  it('is asked before the upstream, and given what the upstream brought', async () => {
    const content = someContent();
    expect(await pull(content)).toBe(1);
    await eventually('it is stored', async () => (await tier.objects.find(content.digest)) !== null);
    expect(tier.blobs.get(content.digest)?.equals(content.bytes)).toBe(true);
    expect(tier.calls).toEqual([`store ${SIZE}`]);
    expect((await tier.objects.find(content.digest))?.givers).toEqual([
      { repository: { registry: content.key.registry, repository: content.key.repository }, shown: 'anyone' },
    ]);
    expect(rig.cache.admin.stats()).toMatchObject({ bytesFetched: SIZE, bytesServed: SIZE });

    await evict();
    tier.calls.length = 0;
    expect(await pull(content)).toBe(0);
    expect(tier.calls).toEqual([`open 0-${SIZE}`]);
    expect(rig.cache.admin.stats()).toMatchObject({ bytesFetched: SIZE });
    expect(await pull(content)).toBe(0);
    expect(tier.calls).toHaveLength(1);
    expect(warnings).toEqual([]);
  });

  it('is not asked for a repository that may not be given kept content: only its registry can show that it holds the blob', async () => {
    const content = someContent();
    await tier.holds(content.digest, content.bytes);
    let gave = 0;
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes), { gave: () => gave++ });
    expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
    handle.release();
    await isKept(content);
    expect([tier.calls, rig.cache.admin.stats().bytesFetched, gave]).toEqual([[], SIZE, 1]);
  });

  it.each([
    ['here', 'of the repository', (shared: SharedContent, { key }: Content) => shared.denied(key)],
    ['here', 'of the digest', (shared: SharedContent, { key, digest }: Content) => shared.denied(key, digest)],
    ['elsewhere', 'of the repository', (shared: SharedContent, { key }: Content) => shared.deniedElsewhere(key)],
    [
      'elsewhere',
      'of the digest',
      (shared: SharedContent, { key, digest }: Content) => shared.deniedElsewhere(key, digest),
    ],
  ])(
    'a denial %s, %s, counts at once: what the index says, or has said, of that giver is not believed',
    async (_, __, deny) => {
      const content = someContent();
      await tier.holds(content.digest, content.bytes, 'other.example');
      await tier.objects.put({ digest: content.digest, kind: 'blob', size: SIZE }, [
        { repository: content.key, shown: 'anyone' },
      ]);
      const { shared } = rig.cache;
      if (shared === null) throw new Error('no shared store');
      expect(await shared.givers(content.digest)).toHaveLength(2);
      // The index is away: nobody can tell it.
      tier.objects.deny = () => Promise.reject(new Error('the index is away'));
      deny(shared, content);
      const left = [{ repository: { registry: 'other.example', repository: 'another/one' }, shown: 'anyone' }];
      expect(await shared.givers(content.digest)).toEqual(left);
      expect((await tier.objects.find(content.digest))?.givers).toHaveLength(2);
    },
  );

  it('brings only what an earlier fill did not', async () => {
    const content = someContent();
    const driven = new DrivenFetch();
    const first = rig.cache.fill(content.key, driven.fetch, { tier: true });
    const sink = await driven.sink();
    sink.begin(SIZE);
    await sink.write(0, Buffer.from(content.bytes.subarray(0, 50_000)));
    await eventually('the bytes are written', () => first.available === 50_000);
    driven.fail(new Error('broke off'));
    first.release();
    await eventually('the fill has ended', () => rig.cache.admin.stats().partials === 1);
    await tier.holds(content.digest, content.bytes);
    tier.calls.length = 0;
    expect(await pull(content)).toBe(0);
    expect(tier.calls).toEqual([`open 50000-${SIZE}`]);
  });

  it.each(['the store', 'its index'])('is the same as a miss where %s fails', async (what) => {
    const content = someContent();
    await tier.holds(content.digest, content.bytes);
    const away = () => Promise.reject(new Error('it is away'));
    if (what === 'the store') tier.open = away;
    else tier.objects.find = away;
    expect(await pull(content)).toBe(1);
    expect(warnings).toContainEqual(expect.stringContaining('in the shared store failed'));
  });

  it('is not asked again for a while once it has failed several times', async () => {
    let asked = 0;
    tier.open = () => {
      asked++;
      return Promise.reject(new Error('it is away'));
    };
    for (let pulls = 0; pulls < 6; pulls++) {
      const content = someContent();
      await tier.holds(content.digest, content.bytes);
      expect(await pull(content)).toBe(1);
    }
    expect(asked).toBeLessThanOrEqual(3);
    expect(warnings.filter((line) => line.includes('tries it every few seconds'))).toHaveLength(1);
  });

  it('that breaks off leaves the rest to the upstream, in the same fill', async () => {
    const content = someContent();
    await tier.holds(content.digest, content.bytes.subarray(0, 120_000), 'example.com', true, SIZE);
    const held: unknown[] = [];
    const handle = rig.cache.fill(
      content.key,
      (sink) => {
        held.push(...sink.held);
        return fetchOf(content.bytes)(sink);
      },
      { tier: true },
    );
    expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
    expect(held).toEqual([{ from: 0, to: 120_000 }]);
    handle.release();
    await isKept(content);
    expect(rig.cache.admin.stats().bytesFetched).toBe(SIZE - 120_000);
    // It cannot be what was stored there.
    await eventually('it is removed there', () => !tier.blobs.has(content.digest));
    expect(await tier.objects.find(content.digest)).toBeNull();
  });

  it('that fails to store costs nothing but that', async () => {
    const content = someContent();
    tier.fault = (call) => {
      if (call === 'store') throw new Error('the tier is full');
    };
    expect(await pull(content)).toBe(1);
    await eventually('it is logged', () => warnings.length === 1);
    expect(warnings[0]).toContain('putting content into the shared store failed');
    expect(rig.index.uploads.count()).toBe(1);
    expect(rig.cache.kept(content.digest)?.complete).toBe(true);
  });

  it('is checked by the digest: wrong bytes never come whole, are not kept, and are not asked for again', async () => {
    const content = someContent();
    const wrong = Buffer.from(content.bytes);
    wrong[SIZE / 2] = (wrong[SIZE / 2] ?? 0) ^ 1;
    await tier.holds(content.digest, wrong);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes), { tier: true });
    const { bytes, error } = await readUntilEnd(handle.open());
    expect(bytes.length).toBeLessThan(SIZE);
    expect(error).toBeInstanceOf(TruncatedError);
    expect(warnings).toContainEqual(expect.stringContaining('what came from the shared store is wrong'));
    handle.release();
    expect(await pull(content)).toBe(1);
    await eventually(
      'the right bytes are stored',
      () => tier.blobs.get(content.digest)?.equals(content.bytes) === true,
    );
  });

  it('is not given what could not be kept', async () => {
    const content = someContent();
    await rm(join(rig.dataDir, 'blobs'), { recursive: true });
    await rm(join(rig.dataDir, 'partial'), { recursive: true });
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes), { tier: true });
    await readUntilEnd(handle.open());
    handle.release();
    await eventually('the fill has ended', () => rig.cache.admin.stats().fills === 0);
    expect(tier.calls).toEqual([]);
  });

  it('is left when the cache closes', async () => {
    const content = someContent();
    tier.store = (_digest, _source, signal?: AbortSignal) =>
      new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error)));
    await pull(content);
    await rig.cache.close();
    expect(warnings).toEqual([]);
  });
});
