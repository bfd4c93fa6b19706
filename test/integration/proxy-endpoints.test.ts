import { afterEach, describe, expect, test, vi } from 'vitest';
import { RegistryError } from '../../src/oci/errors.ts';
import { FakeRegistry, type FakeRegistryOptions, MEDIA, sha256 } from '../support/fake-registry/index.ts';
import { type BedOptions, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const REPOSITORY = 'library/app';
/** Nobody listens on port 1. */
const REFUSES = 'http://127.0.0.1:1';
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  vi.useRealTimers();
  for (const close of closers.splice(0).reverse()) await close();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  closers.push(() => fake.close());
  return fake;
}

async function start(fakeOptions: FakeRegistryOptions = {}, options: Partial<BedOptions> = {}) {
  const fake = await fakeRegistry(fakeOptions);
  const bed = await RegistryBed.start({ registries: { 'r.test': { fake } }, ...options });
  closers.push(() => bed.stop());
  return { fake, bed, repository: fake.repository(REPOSITORY) };
}

async function errorOf(promise: Promise<unknown>): Promise<RegistryError> {
  const error = await promise.then(
    () => new Error('served'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RegistryError);
  return error as RegistryError;
}

describe('with several endpoints', () => {
  const ANSWERS = [
    ['404', { status: 404 }],
    ['403', { status: 403 }],
    ['401', { status: 401 }],
  ] as const;
  const FAILURES = ['refuses connections', 'answers 500', 'answers 429', 'answers with a web page'] as const;

  /** One endpoint that fails and one that answers that there is nothing, in either order, after a tag was kept. */
  async function fallen(failure: (typeof FAILURES)[number], answer: { status: number }, first: boolean) {
    const { fake, bed, repository } = await start({}, { tagTtl: 60_000 });
    const image = repository.addImage('1', ['layer']);
    await bed.manifest('r.test', REPOSITORY, '1');
    const layer = image.layers[0]?.digest ?? '';
    await bed.blob('r.test', REPOSITORY, layer);
    const empty = await fakeRegistry({ faults: () => answer });
    const failing = failure === 'refuses connections' ? REFUSES : fake.url;
    bed.put('r.test', { fake, endpoints: first ? [failing, empty.url] : [empty.url, failing] });
    fake.faults = () => {
      if (failure === 'answers 500') return { status: 500 };
      if (failure === 'answers 429') return { status: 429 };
      return { status: 200, headers: { 'content-type': 'text/html' }, body: '<html></html>' };
    };
    bed.clock += 61_000;
    return { fake, bed, image, layer };
  }

  test.each(
    FAILURES.flatMap((failure) =>
      ANSWERS.flatMap(([status, answer]) => [true, false].map((first) => [failure, status, first, answer] as const)),
    ),
  )(
    'one that %s and one that answers %s: the kept tag is served stale (the failing one first: %s)',
    async (failure, _, first, answer) => {
      const { fake, bed, image, layer } = await fallen(failure, answer, first);
      const stale = await bed.manifest('r.test', REPOSITORY, '1');
      expect([stale.status, stale.from, stale.body]).toEqual([200, 'stale', image.body]);
      expect(stale.headers.warning).toBeDefined();
      // A new image is no 404, no 403: nobody knows.
      const error = await errorOf(bed.manifest('r.test', REPOSITORY, '2'));
      expect([429, 502, 504]).toContain(error.status);
      expect(error.options.denied).toBeUndefined();
      // Nothing was dropped or remembered.
      expect((await bed.blob('r.test', REPOSITORY, layer)).from).toBe('cache');
      fake.faults = () => undefined;
      bed.put('r.test', { fake });
      bed.clock += 11_000;
      expect((await bed.manifest('r.test', REPOSITORY, '1')).from).toBe('cache');
      expect(await refusalOf(bed.manifest('r.test', REPOSITORY, '2'))).toBe('manifestUnknown');
    },
  );

  test('the referrers of one that has the API are not hidden by one that has none', async () => {
    const without = await fakeRegistry({ referrers: false });
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const signature = repository.addImage(undefined, ['signature'], { subject: image, artifactType: 'a/b' });
    bed.put('r.test', { fake, endpoints: [without.url, fake.url] });
    const reply = await bed.ask('r.test', REPOSITORY, { kind: 'referrers', digest: image.digest } as never);
    expect(reply.body.toString()).toContain(signature.digest);
  });
});

describe('a registry that cannot be connected to', () => {
  test('has its kept tags served at once, without waiting for the attempt to connect', async () => {
    const { bed, fake, repository } = await start(
      {},
      {
        wrapUpstream: (upstream) => ({
          ...upstream,
          countsPulls: (key) => upstream.countsPulls(key),
          manifest: (...args) => (out ? new Promise(() => {}) : upstream.manifest(...args)),
          outOfReach: () => out,
          close: () => upstream.close(),
        }),
      },
    );
    let out = false;
    const images = ['1', '2'].map((tag) => repository.addImage(tag, [tag]));
    for (const tag of ['1', '2']) await bed.manifest('r.test', REPOSITORY, tag);
    out = true;
    bed.clock += 61_000;
    // The time that is given to a revalidation otherwise never passes here.
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    for (const [i, tag] of ['1', '2'].entries()) {
      const reply = await bed.manifest('r.test', REPOSITORY, tag);
      expect([reply.from, reply.body]).toEqual(['stale', images[i]?.body]);
    }
    expect(fake.log.count()).toBe(2);
  });
});

describe('HEAD', () => {
  const digest = (request: { reference: string | undefined }, repository: ReturnType<FakeRegistry['repository']>) =>
    repository.manifest(request.reference ?? '')?.digest ?? '';

  test.each([
    ['the length of nothing', { 'content-length': '0' }],
    ['a length that no manifest has', { 'content-length': '99999999' }],
    ['a web page', { 'content-type': 'text/html', 'content-length': '100' }],
    ['no type', { 'content-type': '', 'content-length': '100' }],
    ['a digest that is none', { 'docker-content-digest': 'sha256:0', 'content-length': '100' }],
    ['the length of something compressed', { 'content-encoding': 'gzip', 'content-length': '100' }],
  ])('that says %s beside the right digest is decided by GET', async (_, headers) => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    fake.faults = (request) => {
      if (request.method !== 'HEAD') return undefined;
      const right = { 'content-type': MEDIA.manifest, 'docker-content-digest': digest(request, repository) };
      return { status: 200, headers: { ...right, ...headers } };
    };
    for (const reference of ['1', image.digest]) {
      const reply = await bed.manifest('r.test', REPOSITORY, reference, { method: 'HEAD' });
      expect([reply.status, reply.headers['content-length'], reply.headers['docker-content-digest']]).toEqual([
        200,
        String(image.body.length),
        image.digest,
      ]);
    }
    // It is remembered of the host, so that HEAD is not tried for each image.
    repository.addImage('2', ['another']);
    await bed.manifest('r.test', REPOSITORY, '2', { method: 'HEAD' });
    expect(fake.log.count({ kind: 'manifest', method: 'HEAD' })).toBe(1);
  });

  test.each([400, 401, 403, 404, 405, 410, 500, 501])('answered with %i is decided by GET', async (status) => {
    const { bed, fake, repository } = await start();
    fake.faults = ({ method }) => (method === 'HEAD' ? { status } : undefined);
    const image = repository.addImage('1', ['layer']);
    const head = await bed.manifest('r.test', REPOSITORY, '1', { method: 'HEAD' });
    expect([head.status, head.headers['content-length']]).toEqual([200, String(image.body.length)]);
    expect((await bed.manifest('r.test', REPOSITORY, '1')).body).toEqual(image.body);
    const layer = image.layers[0]?.digest ?? '';
    expect((await bed.blob('r.test', REPOSITORY, layer, { method: 'HEAD' })).status).toBe(200);
    bed.clock += 61_000;
    const later = await bed.manifest('r.test', REPOSITORY, '1');
    expect([later.from, later.headers.warning]).toEqual(['cache', undefined]);
  });

  test('that breaks the connection is decided by GET', async () => {
    const { bed, fake, repository } = await start();
    fake.faults = ({ method }) => (method === 'HEAD' ? { refuse: true } : undefined);
    repository.addImage('1', ['layer']);
    expect((await bed.manifest('r.test', REPOSITORY, '1', { method: 'HEAD' })).status).toBe(200);
  });

  test.each([401, 403, 404, 405])(
    'refused with %i by a host that the registry redirects to is no refusal',
    async (status) => {
      const { bed, fake, repository } = await start({ redirect: { to: 'absolute', status: 307, manifests: true } });
      fake.faults = ({ kind, method }) => (kind === 'cdn' && method === 'HEAD' ? { status } : undefined);
      const image = repository.addImage('1', ['layer']);
      await bed.manifest('r.test', REPOSITORY, '1');
      bed.clock += 61_000;
      const reply = await bed.manifest('r.test', REPOSITORY, '1');
      expect([reply.from, reply.headers.warning, reply.body]).toEqual(['cache', undefined, image.body]);
    },
  );

  test('of what is not there is no reason to mistrust HEAD', async () => {
    const { bed, fake, repository } = await start();
    repository.addImage('1', ['layer']);
    expect(await refusalOf(bed.manifest('r.test', REPOSITORY, 'none', { method: 'HEAD' }))).toBe('manifestUnknown');
    fake.log.clear();
    await bed.manifest('r.test', REPOSITORY, '1', { method: 'HEAD' });
    expect(fake.log.of({ kind: 'manifest' }).map(({ method }) => method)).toEqual(['HEAD']);
  });

  test('that is limited is not asked again by GET, which counts as a pull', async () => {
    const { bed, fake, repository } = await start();
    repository.addImage('1', ['layer']);
    fake.faults = () => ({ status: 429, headers: { 'retry-after': '60' } });
    expect(await refusalOf(bed.manifest('r.test', REPOSITORY, '1', { method: 'HEAD' }))).toBe('upstreamRateLimited');
    expect(fake.log.count()).toBe(1);
  });

  test.each([
    ['the length of nothing', { 'content-length': '0' }],
    ['the digest of another', { 'content-length': '5', 'docker-content-digest': sha256(Buffer.from('x')) }],
  ])('of a blob that says %s is decided by GET', async (_, headers) => {
    const { bed, fake, repository } = await start();
    const blob = repository.addBlob('12345678');
    fake.faults = ({ method }) => (method === 'HEAD' ? { status: 200, headers } : undefined);
    const reply = await bed.blob('r.test', REPOSITORY, blob.digest, { method: 'HEAD' });
    expect([reply.status, reply.headers['content-length']]).toEqual([200, '8']);
  });

  test('and GET that another registry denies to which this one redirects are no denial: nothing is dropped', async () => {
    const other = await fakeRegistry({ faults: () => ({ status: 403 }) });
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    await bed.manifest('r.test', REPOSITORY, '1');
    fake.faults = ({ path }) => ({ status: 307, headers: { location: `${other.url}${path}` } });
    bed.clock += 61_000;
    const error = await errorOf(bed.manifest('r.test', REPOSITORY, '1'));
    expect([error.kind, error.options.denied]).toEqual(['upstreamDenied', undefined]);
    expect((await bed.manifest('r.test', REPOSITORY, image.digest)).from).toBe('cache');
    fake.faults = () => ({ status: 500 });
    expect((await bed.manifest('r.test', REPOSITORY, '1')).from).toBe('stale');
  });

  test('that is denied is no denial of the repository; a denied GET is', async () => {
    const { bed, fake, repository } = await start();
    repository.addImage('1', ['layer']);
    fake.faults = ({ method }) => (method === 'HEAD' ? { status: 403 } : { status: 404 });
    const missing = await errorOf(bed.manifest('r.test', REPOSITORY, '1', { method: 'HEAD' }));
    expect([missing.kind, missing.options.denied]).toEqual(['manifestUnknown', undefined]);
    bed.clock += 6_000;
    fake.faults = () => ({ status: 403 });
    const denied = await errorOf(bed.manifest('r.test', REPOSITORY, '1', { method: 'HEAD' }));
    expect([denied.kind, denied.options.denied]).toEqual(['upstreamDenied', true]);
  });

  test('and GET that deny what is kept for another repository are asked once each', async () => {
    const { bed, fake, repository } = await start();
    const layer = repository.addBlob('layer');
    await bed.blob('r.test', REPOSITORY, layer.digest);
    fake.log.clear();
    expect((await errorOf(bed.blob('r.test', 'library/other', layer.digest))).kind).toBe('blobUnknown');
    expect(fake.log.all.map(({ method }) => method)).toEqual(['HEAD', 'GET']);
  });
});
