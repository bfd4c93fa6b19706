import { describe, expect, test } from 'vitest';
import { readDocument } from '../../../src/oci/document-reader.ts';
import { OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST } from '../../../src/oci/media-types.ts';

const hex = (char: string) => `sha256:${char.repeat(64)}`;
const bytes = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const origin = { registry: 'r.test' };
const manifest = (value: unknown, mediaType = OCI_MANIFEST) =>
  readDocument('manifest', bytes(value), { mediaType }, origin);
const tags = async (
  value: unknown,
  question: { n?: number; last?: string; hasNext?: boolean; isNext?: boolean } = {},
) => {
  const { n, last, hasNext = false, isNext = false } = question;
  const reading = await readDocument('tags', bytes(value), { n, last, hasNext, isNext }, origin);
  return reading && { tags: JSON.parse(Buffer.from(reading.body).toString()), cutAfter: reading.cutAfter };
};
const referrers = async (value: unknown, artifactType?: string) => {
  const reading = await readDocument('referrers', bytes(value), { artifactType }, origin);
  return reading && JSON.parse(Buffer.from(reading.body).toString());
};

/** Of more than the size that is read at once. */
const LARGE = 80_000;

describe('a manifest', () => {
  const layer = (char: string) => ({ mediaType: 'x/y', digest: hex(char), size: 7 });

  test('names content where its media type defines it, and nowhere else', async () => {
    const everything = {
      mediaType: OCI_MANIFEST,
      config: layer('1'),
      layers: [layer('2'), layer('2')],
      blobs: [layer('3')],
      manifests: [layer('4')],
      subject: layer('5'),
      fsLayers: [{ blobSum: hex('6') }],
    };
    const named = async (type: string) =>
      (await manifest(everything, type))?.named.map(({ digest, kind }) => `${kind} ${digest[7]}`);
    expect(await named(OCI_MANIFEST)).toEqual(['blob 1', 'blob 2', 'manifest 5']);
    expect(await named(OCI_INDEX)).toEqual(['manifest 4', 'manifest 5']);
    expect(await named(OCI_ARTIFACT)).toEqual(['blob 3', 'manifest 5']);
    expect(await named('application/vnd.docker.distribution.manifest.v1+prettyjws')).toEqual(['blob 6']);
    // A general type says nothing: then the manifest's own counts.
    expect(await named('application/octet-stream')).toEqual(['blob 1', 'blob 2', 'manifest 5']);
  });

  test('names a thousand at most, and no nonsense', async () => {
    const many = Array.from({ length: 3000 }, (_, at) => ({ digest: `sha256:${at.toString(16).padStart(64, '0')}` }));
    expect((await manifest({ layers: many }))?.named).toHaveLength(1000);
    const odd = { layers: [null, 'x', { digest: 'md5:1' }, { digest: hex('1'), size: -1 }, { size: 1 }], config: [] };
    expect((await manifest(odd))?.named).toEqual([{ digest: hex('1'), size: undefined, kind: 'blob' }]);
  });

  test.each(['', '[]', '"x"', 'null', '<html>', '{', '['.repeat(100_000), `{"a":${'['.repeat(70)}${']'.repeat(70)}}`])(
    'is an object in JSON, not %.20s',
    async (text) => {
      expect(await manifest(text)).toBeNull();
    },
  );

  test('that is large is read in a thread, like a small one', async () => {
    const large = (text: string) => `${text.slice(0, -1)},"pad":"${'x'.repeat(LARGE)}"}`;
    const text = JSON.stringify({ layers: [layer('1')] });
    expect(await manifest(large(text))).toEqual(await manifest(text));
    expect(await manifest(large('{"a":}'))).toBeNull();
    expect(await manifest('['.repeat(LARGE))).toBeNull();
    expect(await manifest(`[${'[],'.repeat(1_100_000)}0]`)).toBeNull();
  });
});

describe('a list of tags', () => {
  test('is written anew: the name is the client’s, and nothing but tags is in it', async () => {
    expect(await tags({ name: 'x', tags: ['b', 'a', '<b>', '', 'x'.repeat(129)], more: 1 })).toEqual({
      tags: ['a', 'b'],
      cutAfter: null,
    });
    expect(await tags({ name: 'x', tags: null })).toEqual({ tags: [], cutAfter: null });
  });

  test.each([{}, { tags: 'a' }, { tags: [1] }, { tags: [['a']] }, [], null, '<html>', '{"tags":["a"]'])(
    'is none: %j',
    async (value) => {
      expect(await tags(value)).toBeNull();
    },
  );

  test('of a registry that pages keeps its order, whatever it is', async () => {
    const page = { tags: ['v10', 'v9', 'a'] };
    expect(await tags(page, { hasNext: true })).toMatchObject({ tags: ['v10', 'v9', 'a'], cutAfter: null });
    expect(await tags(page, { hasNext: true, last: 'v9' })).toMatchObject({ tags: ['v10', 'v9', 'a'] });
    expect(await tags(page, { hasNext: true, n: 2 })).toMatchObject({ tags: ['v10', 'v9'], cutAfter: 'v9' });
    expect(await tags(page, { last: 'b' })).toMatchObject({ tags: ['v10', 'v9', 'a'] });
  });

  test('that is large is read in a thread, in the same way', async () => {
    const many = Array.from({ length: 20_000 }, (_, at) => `v${String(at).padStart(6, '0')}`);
    const read = await tags({ tags: [...many].reverse() }, { n: 15_000 });
    expect([read?.tags, read?.cutAfter]).toEqual([many.slice(0, 15_000), 'v014999']);
  });
});

describe('an index of referrers', () => {
  const row = { mediaType: 'a/b', digest: hex('1'), size: 3, artifactType: 'x/sbom', annotations: { a: 'b' } };

  test('is written anew, filtered where that is asked for', async () => {
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [row, { ...row, artifactType: 'x/sig' }] };
    expect(await referrers({ ...index, extra: '<script>' })).toEqual(index);
    expect(await referrers({ schemaVersion: 2, manifests: [{ ...row, extra: 1 }] }, 'x/sbom')).toEqual({
      ...index,
      manifests: [row],
    });
  });

  test.each([
    { manifests: [] },
    { schemaVersion: 1, manifests: [] },
    { schemaVersion: 2, mediaType: OCI_MANIFEST, manifests: [] },
    { schemaVersion: 2, manifests: {} },
    { schemaVersion: 2, manifests: [null] },
    { schemaVersion: 2, manifests: [{ ...row, digest: 'x' }] },
    { schemaVersion: 2, manifests: [{ ...row, size: '3' }] },
    { schemaVersion: 2, manifests: [{ ...row, mediaType: '<b>' }] },
    '<html>',
  ])('is none: %j', async (value) => {
    expect(await referrers(value)).toBeNull();
  });
});
