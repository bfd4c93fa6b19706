import { connect } from 'node:http2';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type FakeBed, startFakeBed } from '../support/fake-bed.ts';
import { type Content, generated, MEDIA } from '../support/fake-registry/index.ts';
import { caOf, type Received } from '../support/http-client.ts';

const TAG_TTL = '300ms';
const SIZE = 200_000;
let bed: FakeBed;
let layer: Content;
let empty: Content;
let image: { digest: string; body: Buffer };
beforeAll(async () => {
  bed = await startFakeBed({ tagTtl: TAG_TTL });
  const repository = bed.upstream.repository('library/app');
  layer = generated(SIZE);
  image = repository.addImage('1', [layer]);
  empty = repository.addBlob('');
});
afterAll(() => bed.close());

const get = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
  bed.client.get(`/v2/docker.io/${path}`, { headers, method, keep: true });
const origin = ({ headers }: Received) => [headers['x-cache'], headers.age];

describe('an answer says where it came from, and how old it is', () => {
  it('a blob', async () => {
    const path = `library/app/blobs/${layer.digest}`;
    expect(origin(await get(path))).toEqual(['MISS', undefined]);
    for (const [headers, method, status] of [
      [{}, 'GET', 200],
      [{}, 'HEAD', 200],
      [{ range: 'bytes=1-2' }, 'GET', 206],
      [{ range: 'bytes=1-2,5-6' }, 'GET', 206],
      [{ 'if-none-match': `"${layer.digest}"` }, 'GET', 304],
    ] as const) {
      const reply = await get(path, headers, method);
      expect([reply.status, reply.headers['docker-content-digest'], ...origin(reply)]).toEqual([
        status,
        layer.digest,
        'HIT',
        expect.stringMatching(/^\d{1,3}$/),
      ]);
    }
  });

  it('a manifest, by tag and by digest, GET and HEAD', async () => {
    expect(origin(await get('library/app/manifests/1'))).toEqual(['MISS', undefined]);
    for (const reference of ['1', image.digest]) {
      for (const method of ['GET', 'HEAD']) {
        const reply = await get(`library/app/manifests/${reference}`, {}, method);
        expect([reply.headers['docker-content-digest'], ...origin(reply)]).toEqual([
          image.digest,
          'HIT',
          expect.stringMatching(/^\d{1,3}$/),
        ]);
      }
    }
  });

  it('tags, and what is stale', async () => {
    expect(origin(await get('library/app/tags/list'))).toEqual(['MISS', undefined]);
    const repository = bed.upstream.repository('library/old');
    repository.addImage('1', ['x']);
    await get('library/old/manifests/1');
    bed.upstream.faults = ({ repository: name }) => (name === 'library/old' ? { status: 503 } : undefined);
    const reply = await eventually('what is kept is too old', async () => {
      const answer = await get('library/old/manifests/1');
      expect(answer.headers['x-cache']).not.toBe('HIT');
      return answer;
    });
    bed.upstream.faults = () => undefined;
    expect([...origin(reply), reply.headers.warning]).toEqual([
      'STALE',
      expect.stringMatching(/^\d+$/),
      expect.stringMatching(/^299 - "/),
    ]);
  });

  it('an error nothing of either', async () => {
    expect(origin(await get('library/app/manifests/none'))).toEqual([undefined, undefined]);
  });
});

it('ollama is told where a whole blob is, which it asks before it fetches the parts; others are not', async () => {
  const path = `library/app/blobs/${layer.digest}`;
  const userAgent = 'ollama/0.17.4 (amd64 linux) Go/go1.26.8';
  const place = async (headers: Record<string, string>) => {
    const reply = await get(path, headers);
    const { location } = reply.headers;
    const base = `https://localhost/v2/docker.io/${path}`;
    return [reply.status, location === undefined ? null : new URL(location, base).href === base];
  };
  expect(await place({ 'user-agent': userAgent })).toEqual([200, true]);
  expect(await place({ 'user-agent': userAgent, range: 'bytes=0-9' })).toEqual([206, null]);
  expect(await place({ 'user-agent': 'containerd/2.4.0' })).toEqual([200, null]);
  expect((await get('library/app/manifests/1', { 'user-agent': userAgent })).headers.location).toBeUndefined();
});

it('`ns` is answered with the namespace that was used, GET and HEAD, and errors with what they are about', async () => {
  for (const method of ['GET', 'HEAD']) {
    const reply = await bed.client.get('/v2/library/app/manifests/1?ns=docker.io', { method });
    expect([reply.status, reply.headers['oci-namespace']]).toEqual([200, 'docker.io']);
  }
  expect((await get('library/app/manifests/1')).headers['oci-namespace']).toBeUndefined();
  const refusals: [string, number, string][] = [
    ['library/app/manifests/none', 404, 'docker.io'],
    ['library/app/manifests/.none', 404, 'docker.io'],
    ['library/app/manifests/sha256:1', 400, 'docker.io'],
    ['library/app/blobs/sha256:1', 400, 'docker.io'],
    ['library/App/manifests/1', 400, 'docker.io'],
    [`library/app/blobs/${layer.digest}`, 416, 'docker.io'],
    ['library/none/tags/list', 404, 'docker.io'],
  ];
  for (const [path, status, namespace] of refusals) {
    const headers = { range: 'bytes=99999999-' };
    for (const [base, ns] of [
      ['', 'docker.io'],
      ['docker.io/', 'quay.io'],
      ['', 'registry-1.docker.io'],
    ]) {
      const reply = await bed.client.get(`/v2/${base}${path}?ns=${ns}`, { headers });
      expect([path, reply.status, reply.headers['oci-namespace']]).toEqual([path, status, namespace]);
    }
  }
  const unsatisfied = await get(`library/app/blobs/${layer.digest}`, { range: 'bytes=99999999-' });
  expect([unsatisfied.status, unsatisfied.headers['docker-content-digest']]).toEqual([416, layer.digest]);
  expect(unsatisfied.headers['content-range']).toBe(`bytes */${SIZE}`);
  const { errors } = JSON.parse((await get('library/app/manifests/none')).text);
  expect(errors[0].detail).toEqual({
    registry: 'docker.io',
    repository: 'library/app',
    reference: 'none',
    upstream: 'MANIFEST_UNKNOWN',
  });
});

describe('ranges', () => {
  /** 1,024 of them, as zstd:chunked asks, in 20 KiB. */
  const MANY = `bytes=${Array.from({ length: 1024 }, (_, at) => `${1_000_000_000 + 2 * at}-${1_000_000_000 + 2 * at}`).join(',')}`;
  const FEW = `bytes=${Array.from({ length: 1024 }, (_, at) => `${String(150 * at).padStart(9, '0')}-${String(150 * at).padStart(9, '0')}`).join(',')}`;

  it.each([
    ['that lie behind the end', MANY, 416],
    ['that are there', FEW, 206],
  ])('by the thousand, %s, over HTTP/1.1 and HTTP/2', async (_, range, status) => {
    expect(range.length).toBeGreaterThan(20 * 1024);
    const path = `/v2/docker.io/library/app/blobs/${layer.digest}`;
    expect((await bed.client.get(path, { headers: { range } })).status).toBe(status);
    const session = connect(`https://localhost:${bed.gateway.httpsPort}`, { ca: caOf(bed.gateway) });
    const stream = session.request({ ':path': path, range });
    const headers = await new Promise<Record<string, unknown>>((resolve, reject) => {
      stream.once('response', resolve).once('error', reject);
    });
    expect(headers[':status']).toBe(status);
    session.destroy();
  });

  it.each([
    ['bytes=500-0', 416],
    ['bytes=200000-', 416],
    ['bytes=99999999999999999999-', 416],
    ['bytes=-0', 416],
    ['bytes=500-0,1-2', 206],
    ['bytes=1-99999999999999999999', 206],
    ['bytes=-99999999999999999999', 206],
    ['bytes=a-b', 200],
    ['bytes=', 200],
    ['lines=1-2', 200],
  ])('%s: %i, kept or not', async (range, status) => {
    const cold = bed.upstream.repository('library/app').addBlob(generated(SIZE + 1 + Math.floor(Math.random() * 1e6)));
    for (const { digest, size } of [layer, cold]) {
      const past = range === 'bytes=200000-' ? `bytes=${size}-` : range;
      const reply = await get(`library/app/blobs/${digest}`, { range: past });
      expect([reply.status, reply.headers['content-range']]).toEqual([
        status,
        status === 416 ? `bytes */${size}` : status === 206 ? expect.stringMatching(`/${size}$`) : undefined,
      ]);
    }
  });

  it('of a blob of nothing: all of it', async () => {
    for (const range of ['bytes=0-', 'bytes=0-0', 'bytes=-5', 'bytes=5-9', 'bytes=500-0']) {
      for (let turn = 0; turn < 2; turn++) {
        const reply = await get(`library/app/blobs/${empty.digest}`, { range });
        expect([range, reply.status, reply.headers['content-length'], reply.bytes]).toEqual([range, 200, '0', 0]);
      }
    }
  });

  it('of a manifest: all of it', async () => {
    const reply = await get(`library/app/manifests/${image.digest}`, { range: 'bytes=5-' });
    expect([reply.status, reply.body]).toEqual([200, image.body]);
  });
});

describe('conditions', () => {
  const other = `"sha256:${'0'.repeat(64)}"`;

  it.each(['GET', 'HEAD'])('of a %s: lists, weak tags, and any', async (method) => {
    for (const path of [
      `library/app/manifests/1`,
      `library/app/blobs/${layer.digest}`,
      `library/app/blobs/${empty.digest}`,
    ]) {
      const digest = (await get(path, {}, 'HEAD')).headers['docker-content-digest'];
      const tag = `"${digest}"`;
      for (const [condition, status] of [
        [tag, 304],
        [`W/${tag}`, 304],
        [`${other}, W/${tag}`, 304],
        [`"a,b" ,,${tag}`, 304],
        ['*', 304],
        [other, 200],
        ['"', 200],
      ] as const) {
        const reply = await get(path, { 'if-none-match': condition }, method);
        expect([path, condition, reply.status, reply.headers.etag]).toEqual([path, condition, status, tag]);
        if (status === 304) expect([reply.bytes, reply.headers['docker-content-digest']]).toEqual([0, digest]);
      }
    }
  });

  it('of what is not here are asked of its registry', async () => {
    const cold = bed.upstream.repository('library/app').addBlob(generated(SIZE - 1));
    const reply = await get(`library/app/blobs/${cold.digest}`, { 'if-none-match': '*' });
    expect(reply.status).toBe(304);
    const absent = `sha256:${'1'.repeat(64)}`;
    expect((await get(`library/app/blobs/${absent}`, { 'if-none-match': '*' })).status).toBe(404);
  });
});

it.each([
  ['sha384:00', /sha384.*sha256/],
  ['blake3:abc', /blake3/],
  ['md5:d41d8cd98f00b204e9800998ecf8427e', /md5/],
  ['multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8', /multihash\+base58/],
  ['SHA256:00', /not valid/],
  ['sha256:00', /not valid/],
  ['sha256:', /not valid/],
])('a digest that cannot be verified is refused in words: %s', async (digest, words) => {
  for (const what of ['blobs', 'manifests', 'referrers']) {
    const reply = await get(`library/app/${what}/${digest}`);
    const { errors } = JSON.parse(reply.text);
    expect([what, reply.status, errors[0].code, errors[0].message]).toEqual([
      what,
      400,
      'DIGEST_INVALID',
      expect.stringMatching(words),
    ]);
  }
});

it('a media type is one, however long or odd what the registry sends', async () => {
  const repository = bed.upstream.repository('library/odd');
  for (const [tag, type] of [
    ['long', `application/${'x'.repeat(30_000)}`],
    ['spaced', 'application/vnd.x y'],
    ['none', ''],
    ['parameters', `${MEDIA.manifest} ; charset="utf-8"`],
  ] as const) {
    const body = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.manifest, tag });
    repository.addManifest(body, type, tag);
    const reply = await get(`library/odd/manifests/${tag}`);
    expect([tag, reply.status, reply.headers['content-type'], reply.text]).toEqual([tag, 200, MEDIA.manifest, body]);
  }
});
