import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { RegistryError } from '../../src/oci/errors.ts';
import { answersBed, closeAfterEach, REGISTRY, REPOSITORY, toldOf } from '../support/answers-bed.ts';
import { generated, MEDIA, sha256 } from '../support/fake-registry/index.ts';
import type { Fault } from '../support/fake-registry/options.ts';
import { refusalOf } from '../support/registry-bed.ts';

closeAfterEach();

const SIZE = 300_000;
const OTHER = `sha256:${'0'.repeat(64)}`;

/** A blob that no manifest has named, and whatever its registry sends for it. */
async function oneBlob(options: { keepNothing?: boolean } = {}) {
  const bed = await answersBed({}, options);
  const layer = bed.repository.addBlob(generated(SIZE));
  const bytes = layer.read(0, SIZE);
  const send = (fault: (bytes: Buffer) => Fault) => {
    bed.fake.faults = ({ kind }) => (kind === 'blob' ? fault(bytes) : undefined);
  };
  return { ...bed, layer, bytes, send, get: () => bed.blob(layer.digest) };
}

describe.each([false, true])('a blob (nothing is kept: %s)', (keepNothing) => {
  describe.each([true, false])('(chunked: %s)', (chunked) => {
    const called = (encoding: string, body: Buffer): Fault => ({
      status: 200,
      headers: { 'content-encoding': encoding, ...(chunked ? { 'transfer-encoding': 'chunked' } : {}) },
      body,
    });

    it.each(['aws-chunked', 'utf-8', 'identity', '', 'gzip', 'aws-chunked, gzip', 'zstd'])(
      'whose bytes are right is served, though its encoding is called %s',
      async (encoding) => {
        const { send, get, layer } = await oneBlob({ keepNothing });
        send((body) => called(encoding, body));
        const reply = await get();
        expect([reply.status, sha256(reply.body), reply.truncated]).toEqual([200, layer.digest, false]);
      },
    );

    it('that was compressed on its way is never whole, nor kept, nor a part of it promised', async () => {
      const { send, get, blob, fake, layer } = await oneBlob({ keepNothing });
      send((body) => called('gzip', gzipSync(body)));
      for (const answer of [get(), blob(layer.digest, { range: 'bytes=5-9' })]) {
        const { status, truncated, headers } = await answer.catch((error: RegistryError) => {
          return { status: error.status, truncated: true, headers: {} as Record<string, string> };
        });
        expect([200, 502]).toContain(status);
        expect([truncated, headers['content-range']]).toEqual([true, undefined]);
      }
      fake.faults = () => undefined;
      expect(sha256((await get()).body)).toBe(layer.digest);
    });
  });

  it.each<[string, (bytes: Buffer) => Fault]>([
    ['with the length 0', () => ({ status: 200, headers: { 'content-length': '0' } })],
    ['with an impossible length', () => ({ status: 200, headers: { 'content-length': '9'.repeat(20) } })],
    [
      'with another digest in its header',
      (body) => ({ status: 200, headers: { 'docker-content-digest': OTHER }, body }),
    ],
    ['that is a web page', () => ({ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' })],
    ['with status 204', () => ({ status: 204 })],
    ['with status 304', () => ({ status: 304 })],
    ['as a part without a range', (body) => ({ status: 206, body: body.subarray(0, 100) })],
    ['as a part of it', (body) => part(body, 0, 100)],
    ['as another part of it', (body) => part(body, 100, SIZE)],
    [
      'as several parts',
      (body) => ({ status: 206, headers: { 'content-type': 'multipart/byteranges; boundary=x' }, body }),
    ],
  ])('%s is none', async (_, fault) => {
    const { send, get } = await oneBlob({ keepNothing });
    send(fault);
    const told = await toldOf(get());
    expect([told.status, told.message]).toEqual([502, expect.stringMatching(/^r\.test (sent something|failed)/)]);
  });

  it('that comes as a part which is all of it is served', async () => {
    const { send, get, layer } = await oneBlob({ keepNothing });
    send((body) => part(body, 0, SIZE));
    const reply = await get();
    expect([reply.status, reply.headers['content-length'], sha256(reply.body)]).toEqual([
      200,
      String(SIZE),
      layer.digest,
    ]);
  });
});

function part(body: Buffer, from: number, to: number): Fault {
  return {
    status: 206,
    headers: { 'content-range': `bytes ${from}-${to - 1}/${SIZE}` },
    body: body.subarray(from, to),
  };
}

describe('a range of a blob that is not kept', () => {
  it.each<[string, (bytes: Buffer) => Fault]>([
    ['another range', (body) => part(body, 0, 100)],
    ['a longer one than was asked for', (body) => part(body, 10, 200)],
    [
      'a range of another length than its body',
      (body) => ({
        ...part(body, 10, 20),
        headers: { 'content-range': `bytes 10-19/${SIZE}`, 'content-length': '5' },
        body: body.subarray(10, 15),
      }),
    ],
    ['a range that no blob has', (body) => ({ ...part(body, 10, 20), headers: { 'content-range': 'bytes 10-19/15' } })],
  ])('is not %s', async (_, fault) => {
    const { send, blob, layer } = await oneBlob({ keepNothing: true });
    send(fault);
    expect(await refusalOf(blob(layer.digest, { range: 'bytes=10-19' }))).toBe('upstreamWrong');
  });
});

describe('the size that a manifest gives', () => {
  /** An image whose manifest a client has. */
  async function image(keepNothing = false) {
    const bed = await answersBed({}, { keepNothing });
    const layer = generated(SIZE);
    const made = bed.repository.addImage('1', [layer]);
    await bed.manifest('1');
    return { ...bed, image: made, layer };
  }

  it.each([
    ['a layer', false],
    ['a layer', true],
    ['a config', false],
    ['a config', true],
  ])('is announced for %s that comes without one (nothing is kept: %s)', async (what, keepNothing) => {
    const { fake, blob, image: made, layer } = await image(keepNothing);
    fake.faults = ({ kind }) => (kind === 'blob' ? { chunked: true } : undefined);
    const wanted = what === 'a layer' ? layer : made.config;
    const reply = await blob(wanted.digest);
    expect([reply.headers['content-length'], sha256(reply.body)]).toEqual([String(wanted.size), wanted.digest]);
  });

  it('is announced after a start, too, by the manifest that is kept', async () => {
    const { fake, bed, image: made, layer } = await image();
    fake.faults = ({ kind }) => (kind === 'blob' ? { chunked: true } : undefined);
    // What was in memory only is gone.
    bed.restartCore();
    await bed.manifest(REGISTRY, REPOSITORY, made.digest);
    expect((await bed.blob(REGISTRY, REPOSITORY, layer.digest)).headers['content-length']).toBe(String(SIZE));
  });

  it('of an index is announced for what it names, asked for as a blob', async () => {
    const { fake, repository, manifest, blob } = await answersBed();
    const inner = repository.addImage(undefined, ['x']);
    repository.addIndex('1', [inner]);
    await manifest('1');
    repository.addBlob(inner.body);
    fake.faults = ({ kind }) => (kind === 'blob' ? { chunked: true } : undefined);
    expect((await blob(inner.digest)).headers['content-length']).toBe(String(inner.body.length));
  });

  it.each([
    ['one byte more', 1, false],
    ['one byte less', -1, false],
    ['one byte more', 1, true],
  ])(
    'is not that of a blob of %s: refused before its first byte (nothing is kept: %s)',
    async (_, sizeOff, keepNothing) => {
      const { fake, blob, layer } = await image(keepNothing as boolean);
      fake.faults = ({ kind }) => (kind === 'blob' ? { sizeOff: sizeOff as number } : undefined);
      expect(await refusalOf(blob(layer.digest))).toBe('upstreamWrong');
      expect(await refusalOf(blob(layer.digest, { range: 'bytes=5-9' }))).toBe('upstreamWrong');
      fake.faults = () => undefined;
      expect(sha256((await blob(layer.digest)).body)).toBe(layer.digest);
    },
  );

  it.each([false, true])(
    'decides whether what is called compressed is it (nothing is kept: %s)',
    async (keepNothing) => {
      const { fake, blob, layer } = await image(keepNothing);
      const packed = gzipSync(layer.read(0, SIZE));
      const headers = { 'content-encoding': 'gzip', 'content-length': String(packed.length) };
      fake.faults = ({ kind }) => (kind === 'blob' ? { status: 200, headers, body: packed } : undefined);
      expect(await refusalOf(blob(layer.digest))).toBe('upstreamWrong');
      fake.faults = ({ kind }) => (kind === 'blob' ? { contentEncoding: 'gzip' } : undefined);
      expect(sha256((await blob(layer.digest)).body)).toBe(layer.digest);
    },
  );
});

describe('what is kept by digest', () => {
  it.each(['application/octet-stream', 'application/vnd.unknown.thing.v1+json', MEDIA.manifest, MEDIA.dockerList])(
    'is good for every Accept, and without its registry: %s',
    async (type) => {
      const { fake, bed, repository, manifest } = await answersBed();
      const stored = repository.addManifest(JSON.stringify({ schemaVersion: 2, a: type }), type);
      const accept = `${MEDIA.manifest}, ${MEDIA.index}`;
      expect((await manifest(stored.digest, { accept })).body).toEqual(stored.body);
      await fake.close();
      bed.clock += 10 * 86_400_000;
      for (const other of [accept, 'text/plain', '*/*', undefined]) {
        for (const method of ['GET', 'HEAD'] as const) {
          const reply = await manifest(stored.digest, { accept: other, method });
          expect([reply.status, reply.headers['content-type'], reply.headers['docker-content-digest']]).toEqual([
            200,
            type,
            stored.digest,
          ]);
        }
      }
    },
  );

  it('by sha512 as well', async () => {
    const { fake, manifest } = await answersBed();
    const body = '{"schemaVersion":2}';
    const digest = `sha512:${createHash('sha512').update(body).digest('hex')}`;
    fake.faults = () => ({ status: 200, headers: { 'content-type': MEDIA.manifest }, body });
    expect((await manifest(digest)).headers['docker-content-digest']).toBe(digest);
    fake.faults = () => ({ status: 500 });
    expect((await manifest(digest)).body.toString()).toBe(body);
  });
});
