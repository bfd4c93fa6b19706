import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { DOCKER_SCHEMA1_SIGNED, OCI_MANIFEST } from '../../src/oci/media-types.ts';
import type { Digest } from '../../src/oci/names.ts';
import { FakeRegistry, type FakeRegistryOptions, generated, MEDIA, sha256 } from '../support/fake-registry/index.ts';
import { RegistryBed, refusalOf } from '../support/registry-bed.ts';
import { startUpstream } from '../support/upstream.ts';

const REPOSITORY = 'library/app';
const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(options: FakeRegistryOptions = {}) {
  const fake = await FakeRegistry.start(options);
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'r.test': { fake } } });
  closers.push(() => bed.stop());
  const manifest = (reference: string, method: 'GET' | 'HEAD' = 'GET') =>
    bed.manifest('r.test', REPOSITORY, reference, { method });
  const blob = (digest: string, method: 'GET' | 'HEAD' = 'GET') => bed.blob('r.test', REPOSITORY, digest, { method });
  return { fake, bed, repository: fake.repository(REPOSITORY), manifest, blob };
}

const MANIFEST = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, pad: 'x'.repeat(1000) }));

describe('a manifest that comes compressed though nobody asked for that', () => {
  it.each([
    ['gzip', gzipSync(MANIFEST)],
    ['x-gzip', gzipSync(MANIFEST)],
    ['deflate', deflateSync(MANIFEST)],
    ['deflate', deflateRawSync(MANIFEST)],
    ['br', brotliCompressSync(MANIFEST)],
    ['zstd', zstdCompressSync(MANIFEST)],
    ['gzip, br', brotliCompressSync(gzipSync(MANIFEST))],
    ['aws-chunked', MANIFEST],
    ['identity', MANIFEST],
  ])('with %s is read as it is meant', async (encoding, body) => {
    const { fake, manifest } = await start();
    const headers = { 'content-type': OCI_MANIFEST, 'content-encoding': encoding };
    fake.faults = () => ({ status: 200, headers, body });
    const reply = await manifest('latest');
    expect(reply.body).toEqual(MANIFEST);
    expect(reply.headers).toMatchObject({ 'docker-content-digest': sha256(MANIFEST) });
    expect(reply.headers['content-encoding']).toBeUndefined();
    expect((await manifest('latest', 'HEAD')).headers['content-length']).toBe(String(MANIFEST.length));
  });

  it.each([
    ['gzip', Buffer.from('no gzip at all')],
    ['gzip', gzipSync(MANIFEST).subarray(0, 40)],
    ['gzip', gzipSync(Buffer.alloc(64 * 1024 * 1024))],
    ['gzip, gzip', gzipSync(gzipSync(Buffer.alloc(64 * 1024 * 1024)))],
    ['gzip, gzip, gzip, gzip', gzipSync(gzipSync(gzipSync(gzipSync(MANIFEST))))],
    ['br', gzipSync(MANIFEST)],
  ])('with %s that is none, or a bomb, is refused, and nothing is kept', async (encoding, body) => {
    const { fake, bed, manifest } = await start();
    const headers = { 'content-type': OCI_MANIFEST, 'content-encoding': encoding };
    fake.faults = () => ({ status: 200, headers, body });
    expect(await refusalOf(manifest('latest'))).toBe('upstreamWrong');
    expect(bed.rig.cache.manifests.getManifest(sha256(body))).toBeNull();
    expect(bed.rig.cache.manifests.getManifest(sha256(MANIFEST))).toBeNull();
  });
});

describe('a HEAD of a manifest is a hint', () => {
  it.each([
    ['of no bytes', { 'content-length': '0' }],
    ['of more bytes than any', { 'content-length': '99999999999' }],
    ['without a type', { 'content-type': '' }],
    ['of a web page', { 'content-type': 'text/html' }],
    ['compressed', { 'content-encoding': 'gzip' }],
  ])('%s: GET decides', async (_, wrong: Record<string, string>) => {
    const { fake, manifest, repository } = await start();
    const image = repository.addImage('1', ['x']);
    const headers = { 'content-type': image.mediaType, 'docker-content-digest': image.digest, ...wrong };
    fake.faults = ({ method }) => (method === 'HEAD' ? { status: 200, headers } : undefined);
    const reply = await manifest('1', 'HEAD');
    expect(reply.headers).toMatchObject({
      'content-length': String(image.body.length),
      'content-type': image.mediaType,
      'docker-content-digest': image.digest,
    });
  });

  it.each([400, 401, 403, 404, 405, 501])('refused with %i: GET decides', async (status) => {
    const { fake, manifest, repository } = await start();
    const image = repository.addImage('1', ['x']);
    fake.faults = ({ method }) => (method === 'HEAD' ? { status } : undefined);
    expect((await manifest('1', 'HEAD')).headers['docker-content-digest']).toBe(image.digest);
  });
});

describe('a blob', () => {
  it.each([
    ['with the length 0', { 'content-length': '0' }],
    ['of more bytes than there are', { 'content-length': '9999999999999999' }],
    ['with another digest in its header', { 'docker-content-digest': `sha256:${'0'.repeat(64)}` }],
    ['that is a web page', { 'content-type': 'text/html; charset=utf-8' }],
  ])('%s is none', async (_, headers) => {
    const { fake, blob, repository } = await start();
    const layer = repository.addBlob(generated(1000));
    fake.faults = ({ kind }) =>
      kind === 'blob'
        ? { status: 200, headers: { 'content-type': 'application/octet-stream', ...headers }, body: '' }
        : undefined;
    expect(await refusalOf(blob(layer.digest))).toBe('upstreamWrong');
  });

  it('with an encoding that leaves its bytes as they are is served', async () => {
    const { fake, blob, repository } = await start();
    const layer = repository.addBlob(generated(1000));
    fake.faults = ({ kind }) =>
      kind === 'blob'
        ? { status: 200, headers: { 'content-encoding': 'aws-chunked' }, body: layer.read(0, 1000) }
        : undefined;
    expect(sha256((await blob(layer.digest)).body)).toBe(layer.digest);
  });

  it('of no bytes is served, as the one that it is', async () => {
    const { blob, repository } = await start();
    const empty = repository.addBlob('');
    expect(await blob(empty.digest)).toMatchObject({ status: 200, body: Buffer.alloc(0) });
  });

  it.each([
    ['of no bytes', { 'content-length': '0' }],
    ['without a length', {}],
    ['with another digest', { 'content-length': '7', 'docker-content-digest': `sha256:${'0'.repeat(64)}` }],
    ['of a web page', { 'content-length': '7', 'content-type': 'text/html' }],
  ])('is asked for by GET where its HEAD is %s', async (_, headers: Record<string, string>) => {
    const { fake, repository } = await start();
    const layer = repository.addBlob(generated(1000));
    fake.faults = ({ method }) => (method === 'HEAD' ? { status: 200, headers } : undefined);
    const upstream = startUpstream({ 'r.test': { endpoints: [fake.url] } });
    closers.push(() => upstream.close());
    const key = { registry: 'r.test', repository: REPOSITORY, digest: layer.digest };
    expect(await upstream.statBlob(key, new AbortController().signal)).toEqual({ size: 1000 });
  });
});

describe('a signed manifest of schema 1', () => {
  const payload = '{\n   "schemaVersion": 1,\n   "name": "app",\n   "tag": "1"\n}';
  const tail = '\n}';
  const protectedHeader = (length: number) =>
    Buffer.from(
      JSON.stringify({ formatLength: length, formatTail: Buffer.from(tail).toString('base64url'), time: 'x' }),
    ).toString('base64url');
  const signedAs = (between: string) => {
    const head = payload.slice(0, -tail.length);
    const signature = { header: { alg: 'ES256' }, signature: 'x', protected: protectedHeader(head.length) };
    return `${head},${between}\n   "signatures": [${JSON.stringify(signature)}]\n}`;
  };

  it('is called by the digest of its payload, and comes byte by byte', async () => {
    const { fake, manifest, bed } = await start();
    const body = signedAs('');
    const digest = sha256(Buffer.from(payload));
    const headers = { 'content-type': DOCKER_SCHEMA1_SIGNED, 'docker-content-digest': digest };
    fake.faults = () => ({ status: 200, headers, body });
    for (const reference of ['1', digest]) {
      const reply = await manifest(reference);
      expect([reply.status, reply.body.toString()]).toEqual([200, body]);
      expect(reply.headers).toMatchObject({ 'docker-content-digest': digest, 'content-type': DOCKER_SCHEMA1_SIGNED });
    }
    expect((await bed.rig.cache.admin.verify(() => {}, new AbortController().signal)).dropped).toEqual([]);
  });

  it('is called so where its registry gives no digest, however many layers it has', async () => {
    const { fake, manifest } = await start();
    const layers = `"history": ["${'x'.repeat(400_000)}"]`;
    const long = payload.replace('"tag": "1"', `"tag": "1",\n   ${layers}`);
    const head = long.slice(0, -tail.length);
    const signature = { header: { alg: 'ES256' }, signature: 'x', protected: protectedHeader(head.length) };
    const body = `${head},\n   "signatures": [${JSON.stringify(signature)}]\n}`;
    fake.faults = ({ method }) => ({
      status: 200,
      headers: { 'content-type': DOCKER_SCHEMA1_SIGNED },
      ...(method === 'GET' ? { body } : {}),
    });
    const digest = sha256(Buffer.from(long));
    for (const reference of ['1', digest]) {
      const reply = await manifest(reference);
      expect([reply.headers['docker-content-digest'], reply.body.toString() === body]).toEqual([digest, true]);
    }
    expect((await manifest('1', 'HEAD')).headers['docker-content-digest']).toBe(digest);
  });

  it('says nothing beside its payload and signatures', async () => {
    const { fake, manifest } = await start();
    const headers = {
      'content-type': DOCKER_SCHEMA1_SIGNED,
      'docker-content-digest': sha256(Buffer.from(payload)) as Digest,
    };
    fake.faults = () => ({ status: 200, headers, body: signedAs('\n   "name": "other",') });
    expect(await refusalOf(manifest('1'))).toBe('upstreamWrong');
  });
});

it('the type of a manifest is one, of a length that a header may have', async () => {
  const { fake, manifest } = await start();
  const headers = { 'content-type': `${'x'.repeat(30_000)}/y` };
  fake.faults = () => ({ status: 200, headers, body: MANIFEST });
  // What is no media type is as good as none: then the manifest's own counts.
  expect((await manifest('1')).headers['content-type']).toBe(MEDIA.manifest);
});
