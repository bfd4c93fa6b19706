import { existsSync, readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { Layout } from '../../../src/cache/files.ts';
import { elapsed } from '../../../src/kit/time.ts';
import {
  type Content,
  contentOf,
  endRig,
  fetchOf,
  MIB,
  makeContent,
  makeRig,
  type Rig,
  readAll,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';

let rig: Rig;
afterEach(() => endRig(rig));

const put = async (content: Content): Promise<void> => {
  const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
  await readAll(handle.open());
  handle.release();
  await eventually('it is kept', () => rig.index.blob(content.digest) !== null && rig.cache.admin.stats().fills === 0);
};
const fileOf = ({ digest }: Content): string => new Layout(rig.dataDir).blob(digest);

/** One bit of a kept file rots. */
function rot(content: Content, at = 0): void {
  const bytes = readFileSync(fileOf(content));
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(fileOf(content), bytes);
}

const damaged = (what: string) => rig.metrics.total('cache_damaged_total', { what });

describe('the scrub', () => {
  it('finds what rotted, was cut short or is gone, drops it, counts it, and leaves the rest', async () => {
    rig = await makeRig();
    const contents = Array.from({ length: 6 }, (_, place) => makeContent(300_000 + place));
    for (const content of contents) await put(content);
    const { dataDir, index } = rig;
    await rig.cache.close();
    const [rotten, cut, gone, ...right] = contents as [Content, Content, Content, ...Content[]];
    rot(rotten, 299_000);
    truncateSync(fileOf(cut), 100);
    unlinkSync(fileOf(gone));
    rig = await makeRig({ dataDir, index, maintain: true, scrub: 1_000 });
    await eventually('three are dropped', () => [rotten, cut, gone].every(({ digest }) => index.blob(digest) === null));
    expect(await damaged('blob')).toBe(3);
    expect(existsSync(fileOf(rotten))).toBe(false);
    for (const { digest } of right) expect(index.blob(digest)).not.toBeNull();
  });

  it('goes on where it was before a restart', async () => {
    rig = await makeRig();
    const contents = Array.from({ length: 4 }, () => makeContent(1_000));
    for (const content of contents) await put(content);
    const { dataDir, index } = rig;
    await rig.cache.close();
    const order = index.blobsAfter(null, 10).map(({ digest }) => digest);
    for (const digest of order) index.markChecked(digest, 0);
    index.putScrubPlace('blobs', order[1] ?? null);
    rig = await makeRig({ dataDir, index, maintain: true, scrub: 2_000 });
    await eventually('one was looked at', () => order.some((digest) => index.blob(digest)?.checkedAt !== 0));
    expect(order.map((digest) => index.blob(digest)?.checkedAt !== 0)).toEqual([
      false,
      false,
      true,
      expect.any(Boolean),
    ]);
    await eventually('all were looked at', () => order.every((digest) => index.blob(digest)?.checkedAt !== 0));
  });

  it('looks at manifests too', async () => {
    rig = await makeRig({ maintain: true, scrub: 500 });
    const right = contentOf(Buffer.from('{"a":1}'));
    const wrong = contentOf(Buffer.from('{"a":2}'));
    rig.index.addManifest({ digest: right.digest, body: right.bytes }, 1);
    rig.index.addManifest({ digest: wrong.digest, body: Buffer.from('{"a":3}') }, 1);
    const { generation } = rig.cache.manifests;
    await eventually('it is dropped', async () => (await damaged('manifest')) === 1);
    expect(rig.index.manifest(wrong.digest)).toBeNull();
    expect(rig.index.manifest(right.digest)).not.toBeNull();
    expect(rig.cache.manifests.generation).toBeGreaterThan(generation);
  });

  it('does not look where it is off', async () => {
    rig = await makeRig({ maintain: true, scrub: null });
    const content = makeContent(1_000);
    await put(content);
    rig.index.markChecked(content.digest, 0);
    rig.index.putScrubPlace('blobs', content.digest);
    await rig.cache.admin.verify(() => {}, new AbortController().signal);
    // Verifying is a command of its own, and says what it saw.
    expect(elapsed(rig.index.blob(content.digest)?.checkedAt ?? 0)).toBeLessThan(60_000);
    expect(rig.index.scrubPlace('blobs')).toBe(content.digest);
  });
});

describe('a manifest that rotted in the index', () => {
  it('is never given, but dropped and counted', async () => {
    rig = await makeRig();
    const { digest } = contentOf(Buffer.from('{"a":2}'));
    rig.index.addManifest({ digest, body: Buffer.from('{"a":3}') }, 1);
    expect(rig.cache.manifests.getManifest(digest)).toBeNull();
    expect(rig.index.manifest(digest)).toBeNull();
    expect(await damaged('manifest')).toBe(1);
  });
});

describe('manifests', () => {
  it('take no more than a tenth of the cache, and count in its size', async () => {
    rig = await makeRig({ maxSize: MIB });
    for (let count = 0; count < 400; count++) {
      const { digest, bytes } = contentOf(Buffer.from(JSON.stringify({ count, filler: 'x'.repeat(1_000) })));
      rig.cache.manifests.putManifest({ digest, body: bytes });
    }
    await eventually('they are within their share', () => rig.index.totals().manifestBytes <= MIB / 10);
    for (let count = 0; count < 12; count++) await put(makeContent(100_000));
    const { bytes, manifestBytes } = rig.index.totals();
    expect(manifestBytes).toBeGreaterThan(MIB / 20);
    expect(bytes + manifestBytes).toBeLessThanOrEqual(MIB);
  });
});
