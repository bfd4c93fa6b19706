import { createHash } from 'node:crypto';
import { afterEach, describe, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import {
  type Content,
  FakeRegistry,
  type FakeRegistryOptions,
  generated,
  sha256,
} from '../support/fake-registry/index.ts';
import { type BedOptions, digestOf, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const REPOSITORY = 'library/app';
const MIB = 1 << 20;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(fakeOptions: FakeRegistryOptions = {}, options: Partial<BedOptions> = {}) {
  const fake = await FakeRegistry.start(fakeOptions);
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } }, ...options });
  closers.push(() => bed.stop());
  const repository = fake.repository(REPOSITORY);
  const get = (digest: string, ask: Parameters<RegistryBed['blob']>[3] = {}) =>
    bed.blob('docker.io', REPOSITORY, digest, ask);
  return { fake, bed, repository, get };
}

const part = (content: Content, from: number, to: number) => sha256(content.read(from, to));

describe('a blob', () => {
  test('is fetched once and then comes from here, with every header that clients need', async () => {
    const { fake, repository, get } = await start();
    const blob = repository.addBlob(generated(3 * MIB));
    const headers = {
      'docker-distribution-api-version': 'registry/2.0',
      'content-type': 'application/octet-stream',
      'content-length': String(blob.size),
      'docker-content-digest': blob.digest,
      etag: `"${blob.digest}"`,
      'accept-ranges': 'bytes',
      'cache-control': 'max-age=31536000, immutable',
    };
    const cold = await get(blob.digest);
    expect([cold.status, cold.from, cold.headers, sha256(cold.body)]).toEqual([200, 'fill', headers, blob.digest]);
    const warm = await get(blob.digest);
    expect([warm.status, warm.from, warm.headers, sha256(warm.body)]).toEqual([200, 'cache', headers, blob.digest]);
    const head = await get(blob.digest, { method: 'HEAD' });
    expect([head.status, head.headers, head.body.length]).toEqual([200, headers, 0]);
    expect(fake.log.bytes({ kind: 'blob' })).toBe(blob.size);
    expect((await get(blob.digest, { ifNoneMatch: '*' })).status).toBe(304);
  });

  test('wanted by many at once is fetched once', async () => {
    const { fake, repository, get } = await start({ latency: 20 });
    const blob = repository.addBlob(generated(6 * MIB));
    const replies = await Promise.all(Array.from({ length: 20 }, () => get(blob.digest)));
    for (const reply of replies) expect(sha256(reply.body)).toBe(blob.digest);
    expect(fake.log.bytes({ kind: 'blob' })).toBe(blob.size);
  });

  test('goes on filling when the client that started it has left', async () => {
    const { bed, fake, repository } = await start({ bytesPerSecond: 8 * MIB });
    const blob = repository.addBlob(generated(4 * MIB));
    const leaving = new AbortController();
    const reply = await bed.open(
      'docker.io',
      REPOSITORY,
      { kind: 'blob', digest: blob.digest },
      { signal: leaving.signal },
    );
    leaving.abort(new Error('left'));
    if (reply.body !== null && 'close' in reply.body) await reply.body.close();
    await eventually('bed.rig.index.blob(blob.digest) !== null', () => bed.rig.index.blob(blob.digest) !== null);
    const asked = fake.log.count();
    const again = await bed.blob('docker.io', REPOSITORY, blob.digest);
    expect([again.from, sha256(again.body), fake.log.count()]).toEqual(['cache', blob.digest, asked]);
  });

  test('is asked for by HEAD without being fetched; the size comes from the manifest where it is known', async () => {
    const { bed, fake, repository, get } = await start({ refuseHead: { blob: 401 } });
    const image = repository.addImage('1', [generated(2 * MIB)]);
    const [layer] = image.layers as [Content];
    const before = await get(layer.digest, { method: 'HEAD' });
    expect(before.headers['content-length']).toBe(String(layer.size));
    expect(fake.log.bytes({ kind: 'blob' })).toBeLessThan(2);
    await bed.manifest('docker.io', REPOSITORY, '1');
    fake.log.clear();
    const head = await get(image.config.digest, { method: 'HEAD' });
    expect([head.headers['content-length'], fake.log.count()]).toEqual([String(image.config.size), 0]);
  });

  test('that the upstream has not is the client’s 404; that it refuses or fails on is said so', async () => {
    const { fake, get } = await start();
    const { digest } = generated(10, 'absent');
    expect(await refusalOf(get(digest))).toBe('blobUnknown');
    expect(await refusalOf(get(digest, { method: 'HEAD' }))).toBe('blobUnknown');
    expect(fake.log.count({ kind: 'blob' })).toBe(1);
    const other = generated(10, 'other').digest;
    fake.faults = () => ({ status: 403 });
    expect(await refusalOf(get(other))).toBe('upstreamDenied');
    fake.faults = () => ({ status: 500 });
    expect(await refusalOf(get(other))).toBe('upstreamFailed');
    fake.faults = () => ({ status: 429, headers: { 'retry-after': '7' } });
    await expect(get(other)).rejects.toMatchObject({ kind: 'upstreamRateLimited', options: { retryAfter: 7 } });
  });

  test('may be empty, or named by sha512', async () => {
    const { repository, get } = await start();
    const empty = repository.addBlob('');
    const bytes = Buffer.from('some text');
    const digest = `sha512:${createHash('sha512').update(bytes).digest('hex')}`;
    repository.blobs.set(digest, { ...repository.addBlob(bytes), digest: digestOf(digest) });
    for (const _ of ['cold', 'warm']) {
      const none = await get(empty.digest);
      expect([none.status, none.headers['content-length'], none.body.length]).toEqual([200, '0', 0]);
      const some = await get(digest);
      expect([some.status, some.headers['docker-content-digest'], some.body]).toEqual([200, digest, bytes]);
    }
  });

  test('with a wrong byte never comes whole and is not kept', async () => {
    const { bed, fake, repository, get } = await start();
    const blob = repository.addBlob(generated(2 * MIB));
    fake.faults = () => ({ wrongByteAt: MIB });
    const wrong = await get(blob.digest);
    expect([wrong.truncated, wrong.body.length < blob.size]).toEqual([true, true]);
    await eventually('bed.rig.cache.kept(blob.digest) === null', () => bed.rig.cache.kept(blob.digest) === null);
    fake.faults = () => undefined;
    expect(sha256((await get(blob.digest)).body)).toBe(blob.digest);
  });
});

describe('a length that cannot be', () => {
  test('is refused before the first byte: none for what has some, or another than the manifest’s', async () => {
    const { bed, fake, repository, get } = await start();
    const image = repository.addImage('1', [generated(2 * MIB)]);
    const [layer] = image.layers as [Content];
    const bare = repository.addBlob(generated(MIB, 'bare'));
    fake.faults = ({ kind }) =>
      kind === 'blob' ? { status: 200, headers: { 'content-length': '0' }, body: '' } : undefined;
    expect(await refusalOf(get(bare.digest))).toBe('upstreamWrong');
    await bed.manifest('docker.io', REPOSITORY, '1');
    fake.faults = ({ kind }) =>
      kind === 'blob' ? { status: 200, headers: { 'content-length': '9' }, body: 'a portal.' } : undefined;
    expect(await refusalOf(get(layer.digest))).toBe('upstreamWrong');
    fake.faults = () => undefined;
    expect(sha256((await get(layer.digest)).body)).toBe(layer.digest);
    expect(sha256((await get(bare.digest)).body)).toBe(bare.digest);
  });

  test.each([false, true])(
    'is not announced where the upstream says none: the manifest says it (nothing kept: %s)',
    async (keepNothing) => {
      const { bed, repository, get } = await start(
        { faults: ({ kind }) => (kind === 'blob' ? { chunked: true } : undefined) },
        { keepNothing },
      );
      const image = repository.addImage('1', [generated(2 * MIB)]);
      const [layer] = image.layers as [Content];
      await bed.manifest('docker.io', REPOSITORY, '1');
      const reply = await get(layer.digest);
      expect([reply.headers['content-length'], sha256(reply.body)]).toEqual([String(layer.size), layer.digest]);
    },
  );
});

describe('ranges of a blob that is here', () => {
  test.each([
    ['bytes=0-0', 0, 1],
    ['bytes=100-', 100, 300_000],
    ['bytes=-5', 299_995, 300_000],
    ['bytes=1000-999999999', 1000, 300_000],
    ['bytes=900000-,7-9', 7, 10],
  ])('%s', async (range, from, to) => {
    const { repository, get } = await start();
    const blob = repository.addBlob(generated(300_000));
    await get(blob.digest);
    const reply = await get(blob.digest, { range });
    expect([reply.status, reply.headers['content-range'], reply.headers['content-length'], reply.from]).toEqual([
      206,
      `bytes ${from}-${to - 1}/300000`,
      String(to - from),
      'cache',
    ]);
    expect(sha256(reply.body)).toBe(part(blob, from, to));
  });

  test('several are one multipart body of exact length', async () => {
    const { repository, get } = await start();
    const blob = repository.addBlob(generated(300_000));
    await get(blob.digest);
    const reply = await get(blob.digest, { range: 'bytes=5-9,100000-199999,-1' });
    expect([reply.status, reply.headers['content-length']]).toEqual([206, String(reply.body.length)]);
    const boundary = /^multipart\/byteranges; boundary=(\S+)$/.exec(reply.headers['content-type'] ?? '')?.[1];
    const parts = reply.body.toString('latin1').split(`\r\n--${boundary}`);
    expect([parts.length, parts[0], parts[4]]).toEqual([5, '', '--\r\n']);
    const expected: [number, number][] = [
      [5, 10],
      [100_000, 200_000],
      [299_999, 300_000],
    ];
    expected.forEach(([from, to], at) => {
      const [head = '', ...body] = (parts[at + 1] ?? '').split('\r\n\r\n');
      expect(head).toContain(`content-range: bytes ${from}-${to - 1}/300000`);
      expect(sha256(Buffer.from(body.join('\r\n\r\n'), 'latin1'))).toBe(part(blob, from, to));
    });
  });

  test('that ask for more than all of it, are malformed, or whose If-Range does not match, are answered with the whole', async () => {
    const { repository, get } = await start();
    const blob = repository.addBlob(generated(300_000));
    await get(blob.digest);
    for (const ask of [
      { range: 'bytes=0-,0-,5-' },
      { range: 'bytes=5-x' },
      { range: 'lines=1-2' },
      { range: 'bytes=0-9', ifRange: '"other"' },
      { range: 'bytes=0-9', ifRange: `W/"${blob.digest}"` },
      { range: 'bytes=0-9', ifRange: 'Wed, 21 Oct 2026 07:28:00 GMT' },
    ]) {
      const reply = await get(blob.digest, ask);
      expect([reply.status, reply.body.length]).toEqual([200, blob.size]);
    }
    expect((await get(blob.digest, { range: 'bytes=0-9', ifRange: `"${blob.digest}"` })).status).toBe(206);
    const head = await get(blob.digest, { range: 'bytes=0-9', method: 'HEAD' });
    expect([head.status, head.headers['content-length']]).toEqual([200, String(blob.size)]);
  });

  test('that lie outside are refused with the size', async () => {
    const { repository, get } = await start();
    const blob = repository.addBlob(generated(300_000));
    for (const _ of ['cold', 'warm']) {
      await expect(get(blob.digest, { range: 'bytes=300000-' })).rejects.toMatchObject({
        kind: 'rangeNotSatisfiable',
        options: { headers: { 'content-range': 'bytes */300000' } },
      });
      await get(blob.digest);
    }
  });
});

describe('ranges of a blob that is not here yet', () => {
  test('cost what is asked for, and come from the file the next time; once they add up to half, the rest is fetched', async () => {
    const { bed, fake, repository, get } = await start();
    const image = repository.addImage('1', [generated(24 * MIB)]);
    const [layer] = image.layers as [Content];
    await bed.manifest('docker.io', REPOSITORY, '1');
    for (let round = 0; round < 2; round++) {
      const footer = await get(layer.digest, { range: 'bytes=-51' });
      expect([footer.status, footer.from, sha256(footer.body)]).toEqual([
        206,
        'fill',
        part(layer, layer.size - 51, layer.size),
      ]);
      for (let at = 0; at < 3; at++) {
        const from = (2 + 6 * at) * MIB;
        const range = `bytes=${from}-${from + 3 * MIB - 1}`;
        const reply = await get(layer.digest, { range });
        expect([reply.from, sha256(reply.body)]).toEqual(['fill', part(layer, from, from + 3 * MIB)]);
      }
      expect(fake.log.bytes({ kind: 'blob' })).toBe(9 * MIB + 51);
    }
    const last = await get(layer.digest, { range: `bytes=${18 * MIB}-${22 * MIB - 1}` });
    expect([last.from, sha256(last.body)]).toEqual(['fill', part(layer, 18 * MIB, 22 * MIB)]);
    await eventually('it is kept', () => bed.rig.index.blob(layer.digest) !== null);
    expect(fake.log.bytes({ kind: 'blob' })).toBe(24 * MIB);
  });

  test('a byte of it costs a byte, by whatever kind of range', async () => {
    const { fake, repository, get } = await start();
    for (const [range, from] of [
      ['bytes=0-0', 0],
      ['bytes=5000000-5000000', 5_000_000],
      ['bytes=-1', 8 * MIB - 1],
    ] as const) {
      const blob = repository.addBlob(generated(8 * MIB, range));
      const reply = await get(blob.digest, { range });
      expect([reply.status, reply.headers['content-range'], sha256(reply.body)]).toEqual([
        206,
        `bytes ${from}-${from}/${8 * MIB}`,
        part(blob, from, from + 1),
      ]);
    }
    expect(fake.log.of({ kind: 'blob' }).reduce((sum, { sent }) => sum + sent, 0)).toBeLessThan(16);
  });

  test('one far ahead of a running fill is fetched first, and once', async () => {
    const { bed, fake, repository, get } = await start({ bytesPerSecond: 16 * MIB });
    const blob = repository.addBlob(generated(16 * MIB));
    const whole = get(blob.digest);
    await eventually('it has begun', () => fake.log.count({ kind: 'blob' }) > 0);
    const reply = await get(blob.digest, { range: `bytes=${12 * MIB}-${13 * MIB - 1}` });
    expect([reply.status, reply.from, sha256(reply.body)]).toEqual([206, 'fill', part(blob, 12 * MIB, 13 * MIB)]);
    // Before anything else that the fill divides among its connections.
    expect(fake.log.of({ kind: 'blob' })[1]?.range?.from).toBe(12 * MIB);
    expect(sha256((await whole).body)).toBe(blob.digest);
    expect(await bed.counter('registry_blobs_passed_total')).toBe(0);
  });

  test('comes with the whole where the upstream knows no ranges', async () => {
    const { repository, get } = await start({ refuseRange: 'ignore' });
    const blob = repository.addBlob(generated(9 * MIB));
    const near = await get(blob.digest, { range: `bytes=${MIB}-` });
    expect([near.from, sha256(near.body)]).toEqual(['fill', part(blob, MIB, 9 * MIB)]);
    const other = repository.addBlob(generated(9 * MIB, 'other'));
    const small = await get(other.digest, { range: `bytes=${8 * MIB}-${8 * MIB + 9}` });
    expect([small.status, sha256(small.body)]).toEqual([206, part(other, 8 * MIB, 8 * MIB + 10)]);
  });

  test('several are one multipart body, and cost what they ask for', async () => {
    const { fake, repository, get } = await start();
    const blob = repository.addBlob(generated(8 * MIB));
    const range = Array.from({ length: 40 }, (_, at) => `${at * 100_000}-${at * 100_000 + 999}`).join(',');
    const reply = await get(blob.digest, { range: `bytes=${range}` });
    expect([reply.status, reply.headers['content-length']]).toEqual([206, String(reply.body.length)]);
    for (let at = 0; at < 40; at++) {
      const bytes = Buffer.from(blob.read(at * 100_000, at * 100_000 + 1000));
      expect(reply.body.includes(bytes)).toBe(true);
    }
    expect(fake.log.bytes({ kind: 'blob' })).toBeLessThan(80_000);
  });

  test('a thousand tiny ones that lie close are sent as one', async () => {
    const { repository, get } = await start();
    const blob = repository.addBlob(generated(300_000));
    const range = Array.from({ length: 1024 }, (_, at) => `${at * 10}-${at * 10}`).join(',');
    const reply = await get(blob.digest, { range: `bytes=${range}` });
    expect([reply.status, reply.headers['content-range'], sha256(reply.body)]).toEqual([
      206,
      'bytes 0-10230/300000',
      part(blob, 0, 10_231),
    ]);
  });
});

describe('with nothing kept', () => {
  test('blobs and parts of them pass through, and a wrong one never comes whole', async () => {
    const { fake, repository, get } = await start({}, { keepNothing: true });
    const blob = repository.addBlob(generated(2 * MIB));
    for (let at = 0; at < 2; at++) {
      const reply = await get(blob.digest);
      expect([reply.status, reply.from, sha256(reply.body)]).toEqual([200, 'upstream', blob.digest]);
    }
    expect(fake.log.bytes({ kind: 'blob' })).toBe(2 * blob.size);
    const middle = await get(blob.digest, { range: 'bytes=5-9' });
    expect([middle.status, middle.headers['content-range'], sha256(middle.body)]).toEqual([
      206,
      `bytes 5-9/${blob.size}`,
      part(blob, 5, 10),
    ]);
    expect(sha256((await get(blob.digest, { range: 'bytes=-3' })).body)).toBe(part(blob, blob.size - 3, blob.size));
    expect((await get(blob.digest, { method: 'HEAD' })).headers['content-length']).toBe(String(blob.size));
    expect(await refusalOf(get(blob.digest, { range: `bytes=${blob.size}-` }))).toBe('rangeNotSatisfiable');
    fake.faults = () => ({ wrongByteAt: 0 });
    const wrong = await get(blob.digest);
    expect([wrong.truncated, wrong.body.length < blob.size]).toEqual([true, true]);
  });
});

test('a blob larger than the whole cache passes through', async () => {
  const { bed, repository, get } = await start({}, { cache: { maxSize: MIB } });
  const blob = repository.addBlob(generated(3 * MIB));
  for (let at = 0; at < 2; at++) {
    const reply = await get(blob.digest);
    expect([reply.status, reply.truncated, sha256(reply.body)]).toEqual([200, false, blob.digest]);
  }
  expect(bed.rig.index.blob(blob.digest)).toBeNull();
});
