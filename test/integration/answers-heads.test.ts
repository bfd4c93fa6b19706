import { describe, expect, it } from 'vitest';
import { answersBed, closeAfterEach, fakeRegistry } from '../support/answers-bed.ts';
import { generated } from '../support/fake-registry/index.ts';
import { refusalOf } from '../support/registry-bed.ts';
import { startUpstream } from '../support/upstream.ts';

closeAfterEach();

const OTHER = `sha256:${'0'.repeat(64)}`;

describe('a HEAD of a manifest is a hint', () => {
  it.each<[string, Record<string, string>]>([
    ['the length of nothing', { 'content-length': '0' }],
    ['a length that no manifest has', { 'content-length': '99999999999' }],
    ['no length', { 'content-length': '' }],
    ['no digest', { 'docker-content-digest': '' }],
    ['another digest', { 'docker-content-digest': OTHER }],
    ['a digest of an algorithm that nobody knows', { 'docker-content-digest': 'md5:abc' }],
    ['no type', { 'content-type': '' }],
    ['a web page', { 'content-type': 'text/html; charset=utf-8' }],
    ['an encoding', { 'content-encoding': 'GZIP' }],
  ])('with %s it is decided by GET', async (_, wrong) => {
    const { fake, manifest, repository } = await answersBed();
    const image = repository.addImage('1', ['x']);
    const right = { 'content-type': image.mediaType, 'docker-content-digest': image.digest };
    const headers = Object.fromEntries(
      Object.entries({ ...right, 'content-length': String(image.body.length), ...wrong }).filter(
        ([name, text]) => text !== '' || name === 'content-type',
      ),
    );
    fake.faults = ({ method }) => (method === 'HEAD' ? { status: 200, headers } : undefined);
    // What a tag names nobody can tell from another digest.
    const reference = wrong['docker-content-digest'] === OTHER ? image.digest : '1';
    const reply = await manifest(reference, { method: 'HEAD' });
    expect(reply.headers).toMatchObject({ ...right, 'content-length': String(image.body.length) });
  });

  it.each([400, 401, 403, 404, 405, 406, 410, 500, 501, 502, 503])(
    'refused with %i it is decided by GET, and nothing of the refusal is remembered',
    async (status) => {
      const { fake, manifest, repository } = await answersBed();
      const image = repository.addImage('1', ['x']);
      fake.faults = ({ method }) => (method === 'HEAD' ? { status } : undefined);
      expect((await manifest('1', { method: 'HEAD' })).headers['docker-content-digest']).toBe(image.digest);
      expect((await manifest('1')).body).toEqual(image.body);
    },
  );

  it('that a host refuses is not sent to it again for a while', async () => {
    const { fake, bed, manifest, repository } = await answersBed({ refuseHead: { manifest: 403 } });
    for (const tag of ['1', '2']) repository.addImage(tag, [tag]);
    for (const tag of ['1', '2', '1']) {
      expect((await manifest(tag, { method: 'HEAD' })).status).toBe(200);
      bed.clock += 61_000;
    }
    expect(fake.log.count({ method: 'HEAD' })).toBe(1);
  });

  it('and what does not exist is no reason to mistrust the next', async () => {
    const { fake, manifest, repository } = await answersBed();
    expect(await refusalOf(manifest('1', { method: 'HEAD' }))).toBe('manifestUnknown');
    repository.addImage('2', ['2']);
    await manifest('2', { method: 'HEAD' });
    expect(fake.log.of({ reference: '2' }).map(({ method }) => method)).toEqual(['HEAD']);
  });

  it('that is limited is no GET, which would count', async () => {
    const { fake, manifest } = await answersBed();
    fake.faults = () => ({ status: 429 });
    expect(await refusalOf(manifest('1', { method: 'HEAD' }))).toBe('upstreamRateLimited');
    expect(fake.log.count({ method: 'GET' })).toBe(0);
  });

  it('that a redirect leads to a host which was signed for GET only leaves no tag stale', async () => {
    const { fake, bed, manifest, repository } = await answersBed({ redirect: { to: 'absolute', manifests: true } });
    const image = repository.addImage('1', ['x']);
    fake.faults = ({ kind, method }) => (kind === 'cdn' && method === 'HEAD' ? { status: 403 } : undefined);
    await manifest('1');
    for (let turn = 0; turn < 3; turn++) {
      bed.clock += 61_000;
      const reply = await manifest('1');
      expect([reply.status, reply.from, reply.headers.warning, reply.body]).toEqual([
        200,
        'cache',
        undefined,
        image.body,
      ]);
    }
  });
});

describe('a HEAD that is not answered', () => {
  async function silent(kind: 'manifest' | 'blob') {
    const fake = await fakeRegistry({
      faults: (request) => (request.kind === kind && request.method === 'HEAD' ? { hang: true } : undefined),
    });
    const upstream = startUpstream({ 'r.test': { endpoints: [fake.url] } }, { stallTimeout: 1_000 });
    return { fake, upstream, repository: fake.repository('library/app') };
  }
  const key = { registry: 'r.test', repository: 'library/app' };
  const { signal } = new AbortController();

  it('of a manifest is decided by GET, and is not sent again', async () => {
    const { fake, upstream, repository } = await silent('manifest');
    const image = repository.addImage('1', ['x']);
    const ask = () => upstream.manifest(key, { kind: 'tag', tag: '1' }, { method: 'HEAD', accept: undefined, signal });
    expect((await ask()).digest).toBe(image.digest);
    const heads = fake.log.count({ method: 'HEAD' });
    expect((await ask()).digest).toBe(image.digest);
    expect(fake.log.count({ method: 'HEAD' })).toBe(heads);
    await upstream.close();
  });

  it('of a blob is decided by GET', async () => {
    const { upstream, repository } = await silent('blob');
    const { digest } = repository.addBlob(generated(1000));
    expect(await upstream.statBlob({ ...key, digest }, signal)).toEqual({ size: 1000 });
    await upstream.close();
  });
});

it.each<[string, Record<string, string>, number | undefined]>([
  ['the length of nothing', { 'content-length': '0' }, undefined],
  ['no length', {}, undefined],
  ['another digest', { 'content-length': '7', 'docker-content-digest': OTHER }, undefined],
  ['a web page', { 'content-length': '7', 'content-type': 'text/html' }, undefined],
  ['an encoding', { 'content-length': '7', 'content-encoding': 'gzip' }, undefined],
  ['403', {}, 403],
  ['404', {}, 404],
  ['501', {}, 501],
])('a HEAD of a blob with %s is decided by GET', async (_, headers, status = 200) => {
  const { fake, blob, repository } = await answersBed();
  const layer = repository.addBlob(generated(1000));
  fake.faults = ({ method }) => (method === 'HEAD' ? { status, headers } : undefined);
  const reply = await blob(layer.digest, { method: 'HEAD' });
  expect([reply.status, reply.headers['content-length']]).toEqual([200, '1000']);
});
