import { afterEach, describe, expect, it } from 'vitest';
import { type ByteSource, TruncatedError } from '../../src/kit/byte-source.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import type { Digest } from '../../src/oci/names.ts';
import type { Route } from '../../src/upstream/upstream.ts';
import {
  FakeRegistry,
  type FakeRegistryOptions,
  generated,
  MEDIA,
  QUIRKS,
  sha256,
} from '../support/fake-registry/index.ts';
import { startUpstream, type TestUpstream, tagsRequest } from '../support/upstream.ts';

const REPOSITORY = { registry: 'r.test', repository: 'library/app' };
const LATEST = { kind: 'tag', tag: 'latest' } as const;
const signal = new AbortController().signal;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  cleanups.push(() => fake.close());
  return fake;
}

function upstreamOf(endpoints: readonly string[], route: Partial<Route> = {}): TestUpstream {
  const upstream = startUpstream({ 'r.test': { endpoints, ...route } });
  cleanups.push(() => upstream.close());
  return upstream;
}

const get = (upstream: TestUpstream, reference: Parameters<TestUpstream['manifest']>[1] = LATEST, accept?: string) =>
  upstream.manifest(REPOSITORY, reference, { method: 'GET', accept, signal });
const head = (upstream: TestUpstream) =>
  upstream.manifest(REPOSITORY, LATEST, { method: 'HEAD', accept: undefined, signal });
const key = (digest: Digest) => ({ ...REPOSITORY, digest });

async function readAll(source: ByteSource): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (;;) {
    const buffer = Buffer.alloc(50_000);
    const count = await source.pull(buffer);
    if (count === 0) break;
    parts.push(buffer.subarray(0, count));
  }
  await source.close();
  return Buffer.concat(parts);
}

async function failure(promise: Promise<unknown>): Promise<RegistryError> {
  const error = await promise.then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RegistryError);
  return error as RegistryError;
}

/** Pulls an image of one layer whole and checks every byte. */
async function pulls(fake: FakeRegistry, upstream: TestUpstream): Promise<void> {
  const layer = generated(300_000, 7);
  const image = fake.repository('library/app').addImage('latest', [layer]);
  const manifest = await get(upstream);
  expect(manifest.digest).toBe(image.digest);
  expect(manifest.mediaType).toBe(MEDIA.manifest);
  expect(Buffer.from(manifest.body ?? []).equals(image.body)).toBe(true);
  expect(await upstream.statBlob(key(layer.digest), signal)).toEqual({ size: layer.size });
  const whole = await upstream.openBlob(key(layer.digest), null, signal);
  expect(whole).toMatchObject({ status: 200, size: layer.size });
  expect(sha256(await readAll(whole.source))).toBe(layer.digest);
  const part = await upstream.openBlob(key(layer.digest), { from: 1000, to: 2000 }, signal);
  expect(part).toMatchObject({ status: 206, size: layer.size, contentRange: { from: 1000, to: 2000 } });
  expect((await readAll(part.source)).equals(layer.read(1000, 2000))).toBe(true);
}

describe('each registry as it behaves', () => {
  it.each(['docker', 'gcr', 'k8s', 'quay', 'ghcr', 'mcr', 'nvcr', 'elastic', 'ecr', 'gitlab', 'redhat'] as const)(
    'pulls from one like %s',
    async (name) => {
      const fake = await fakeRegistry(QUIRKS[name]);
      await pulls(fake, upstreamOf([fake.url]));
    },
  );

  it('asks once for a token per repository, however many requests come at once', async () => {
    const fake = await fakeRegistry({ ...QUIRKS.docker, latency: 5 });
    fake.repository('library/app').addImage('latest', ['x']);
    const upstream = upstreamOf([fake.url]);
    await Promise.all(Array.from({ length: 20 }, () => get(upstream)));
    expect(fake.log.count({ kind: 'token' })).toBe(1);
    await get(upstream);
    expect(fake.log.count({ kind: 'token' })).toBe(1);
    expect(fake.log.of({ kind: 'manifest' }).at(-1)?.status).toBe(200);
  });

  it('shows no Authorization to the origin that a redirect leads to', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    await pulls(fake, upstreamOf([fake.url]));
    const cdn = fake.log.of({ kind: 'cdn' });
    expect(cdn.length).toBeGreaterThan(0);
    expect(cdn.every((request) => request.headers.authorization === undefined)).toBe(true);
    expect(fake.log.all.every((request) => request.headers['accept-encoding'] === 'identity')).toBe(true);
  });

  it('asks the registry anew for every redirect', async () => {
    const fake = await fakeRegistry(QUIRKS.quay);
    const layer = fake.repository('library/app').addBlob(generated(1000));
    const upstream = upstreamOf([fake.url]);
    for (let i = 0; i < 3; i++) await readAll((await upstream.openBlob(key(layer.digest), null, signal)).source);
    expect(fake.log.count({ kind: 'blob', status: 302 })).toBe(3);
  });

  it('drops a token that the registry no longer takes, and tries once more', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    fake.repository('library/app').addImage('latest', ['x']);
    const upstream = upstreamOf([fake.url]);
    await get(upstream);
    fake.auth.revoke();
    await get(upstream);
    expect(fake.log.count({ kind: 'token' })).toBe(2);
  });

  it('starts over without a token where nvcr.io challenges an expired one with another realm', async () => {
    const fake = await fakeRegistry(QUIRKS.nvcr);
    fake.repository('library/app').addImage('latest', ['x']);
    const upstream = upstreamOf([fake.url]);
    await get(upstream);
    fake.auth.revoke();
    fake.log.clear();
    await get(upstream);
    expect(fake.log.all.map((request) => [request.kind, request.status])).toEqual([
      ['manifest', 401],
      ['manifest', 401],
      ['token', 200],
      ['manifest', 200],
    ]);
  });

  it('never loops where a registry refuses every token', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', private: true } });
    const error = await failure(get(upstreamOf([fake.url])));
    expect(error.kind).toBe('upstreamUnauthorized');
    expect(error.status).toBe(401);
    expect(fake.log.count({ kind: 'manifest' })).toBe(2);
    expect(fake.log.count({ kind: 'token' })).toBe(1);
  });

  it('holds tokens for 60 s whatever is said', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', saysLifetime: 1 } });
    fake.repository('library/app').addImage('latest', ['x']);
    const upstream = upstreamOf([fake.url]);
    await get(upstream);
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await get(upstream);
    expect(fake.log.count({ kind: 'token' })).toBe(1);
  });

  it.each([401, 403])(
    'takes a refusal of the token endpoint with %i for the answer of the registry',
    async (status) => {
      const auth = { scheme: 'bearer', tokenRefusal: status, private: true } as const;
      const fake = await fakeRegistry({ auth });
      expect((await failure(get(upstreamOf([fake.url])))).status).toBe(status);
    },
  );

  it('passes a 401 without a challenge on', async () => {
    const fake = await fakeRegistry(QUIRKS.gcrBare);
    expect((await failure(get(upstreamOf([fake.url])))).status).toBe(401);
    expect(fake.log.count()).toBe(1);
  });

  it('names every manifest type to a registry that hides an index from who does not ask for it', async () => {
    const fake = await fakeRegistry(QUIRKS.ghcr);
    const repository = fake.repository('library/app');
    const index = repository.addIndex('latest', [repository.addImage(undefined, ['x'])]);
    expect((await get(upstreamOf([fake.url]))).digest).toBe(index.digest);
    expect((await failure(get(upstreamOf([fake.url]), LATEST, MEDIA.manifest))).code).toBe('MANIFEST_UNKNOWN');
  });

  it('is led by a redirect to another registry, and gets a token there', async () => {
    const ghcr = await fakeRegistry(QUIRKS.ghcr);
    const image = ghcr.repository('library/app').addImage('latest', ['x']);
    const l5d = await fakeRegistry();
    l5d.faults = (request) => ({ status: 307, headers: { location: `${ghcr.url}${request.path}` } });
    const upstream = upstreamOf([l5d.url], { credentials: { username: 'u', password: 'secret' } });
    expect((await get(upstream)).digest).toBe(image.digest);
    // What the operator set for one registry never reaches another.
    expect(JSON.stringify(ghcr.log.all.map((request) => request.headers))).not.toContain('Basic');
  });

  it('waits out the short 429 of public.ecr.aws', async () => {
    const fake = await fakeRegistry({ ...QUIRKS.ecr, requestsPerSecond: 3 });
    await pulls(fake, upstreamOf([fake.url]));
    expect(fake.log.count({ status: 429 })).toBeGreaterThan(0);
  });
});

describe('credentials', () => {
  const users = { robot: 'pa:ss' };
  const credentials = { username: 'robot', password: 'pa:ss' };

  it('open what is private by token', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', users, private: true } });
    const image = fake.repository('library/app').addImage('latest', ['x']);
    expect((await get(upstreamOf([fake.url], { credentials }))).digest).toBe(image.digest);
  });

  it('are sent as Basic where the registry asks for that', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'basic', users } });
    await pulls(fake, upstreamOf([fake.url], { credentials }));
    expect((await failure(get(upstreamOf([fake.url])))).status).toBe(401);
    const wrong = upstreamOf([fake.url], { credentials: { username: 'robot', password: 'x' } });
    expect((await failure(get(wrong))).status).toBe(401);
  });

  it('that are wrong are a 401', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', users, private: true } });
    const upstream = upstreamOf([fake.url], { credentials: { username: 'robot', password: 'wrong-secret' } });
    const error = await failure(get(upstream));
    expect(error.status).toBe(401);
    expect(error.message + error.next).not.toContain('wrong-secret');
  });

  /** A fake that is reached at 127.0.0.1 as the registry, and at another address as the realm that it names. */
  async function withRealmElsewhere(host = '127.66.6.6') {
    const auth = { scheme: 'bearer' as const, users, private: true as const, realm: '' };
    const fake = await fakeRegistry({ host: '0.0.0.0', auth });
    auth.realm = `http://${host}:${fake.port}/token`;
    const image = fake.repository('library/app').addImage('latest', ['x']);
    return { fake, image, endpoint: `http://127.0.0.1:${fake.port}` };
  }

  it('are not sent to a realm on another host, and the error says how its operator allows it', async () => {
    const { fake, endpoint } = await withRealmElsewhere();
    const error = await failure(get(upstreamOf([endpoint], { credentials })));
    expect(error).toMatchObject({ kind: 'credentialsWithheld', status: 502 });
    expect(error.next).toContain(`gateway registry set r.test --realm 127.66.6.6:${fake.port}`);
    expect(error.message + error.next).not.toContain('pa:ss');
    expect(fake.log.count({ kind: 'token' })).toBe(0);
  });

  it('are sent to a realm on another host that the operator named', async () => {
    const { fake, image, endpoint } = await withRealmElsewhere();
    const upstream = upstreamOf([endpoint], { credentials, realms: ['127.66.6.6'], ca: null });
    expect((await get(upstream)).digest).toBe(image.digest);
    expect(fake.log.of({ kind: 'token' })[0]?.headers).toMatchObject({
      host: `127.66.6.6:${fake.port}`,
      authorization: expect.stringMatching(/^Basic /),
    });
    // A token that is kept is not used any more once the operator has taken the realm away.
    upstream.routes.set('r.test', {
      host: 'r.test',
      endpoints: [endpoint],
      proxy: null,
      credentials,
      realms: [],
      named: [],
      ca: null,
    });
    expect((await failure(get(upstream))).kind).toBe('credentialsWithheld');
  });

  it('are not sent where a realm redirects to another host', async () => {
    const { fake, endpoint } = await withRealmElsewhere('127.0.0.1');
    const elsewhere = await fakeRegistry({ host: '127.66.6.6' });
    fake.faults = ({ kind }) =>
      kind === 'token' ? { status: 307, headers: { location: `${elsewhere.url}/token` } } : undefined;
    const error = await failure(get(upstreamOf([endpoint], { credentials })));
    expect([error.kind, error.next]).toEqual([
      'credentialsWithheld',
      expect.stringContaining(`--realm ${elsewhere.host}`),
    ]);
    expect(elsewhere.log.count()).toBe(0);
  });

  it.each(['basic', 'bearer'] as const)('are not sent to a registry elsewhere that wants %s', async (scheme) => {
    const auth = scheme === 'basic' ? { scheme, users } : { scheme, users, private: true as const, tokenRefusal: 401 };
    const elsewhere = await fakeRegistry({ host: '127.66.6.6', auth });
    const image = elsewhere.repository('library/app').addImage('latest', ['x']);
    const fake = await fakeRegistry();
    fake.faults = ({ path }) => ({ status: 307, headers: { location: `${elsewhere.url}${path}` } });
    const error = await failure(get(upstreamOf([fake.url], { credentials })));
    expect([error.kind, error.next]).toEqual([
      'credentialsWithheld',
      expect.stringContaining(`--realm ${elsewhere.host}`),
    ]);
    expect(elsewhere.log.all.filter(({ headers }) => headers.authorization?.startsWith('Basic'))).toEqual([]);
    const named = upstreamOf([fake.url], { credentials, realms: ['127.66.6.6'], ca: null });
    expect((await get(named)).digest).toBe(image.digest);
  });

  it('may be a key file of several lines', async () => {
    const key = '{\n  "type": "service_account",\n  "private_key": "-----BEGIN"\n}';
    const file = { username: '_json_key', password: key };
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', users: { _json_key: key }, private: true } });
    const image = fake.repository('library/app').addImage('latest', ['x']);
    expect((await get(upstreamOf([fake.url], { credentials: file }))).digest).toBe(image.digest);
  });

  it('change the token that is used', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', users, private: true } });
    fake.repository('library/app').addImage('latest', ['x']);
    const upstream = upstreamOf([fake.url]);
    await failure(get(upstream));
    upstream.routes.set('r.test', {
      host: 'r.test',
      endpoints: [fake.url],
      proxy: null,
      credentials,
      realms: [],
      named: [],
      ca: null,
    });
    await get(upstream);
    upstream.routes.set('r.test', {
      host: 'r.test',
      endpoints: [fake.url],
      proxy: null,
      credentials: null,
      realms: [],
      named: [],
      ca: null,
    });
    await failure(get(upstream));
  });
});

describe('HEAD', () => {
  it('asks for headers only', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const image = fake.repository('library/app').addImage('latest', ['x']);
    expect(await head(upstreamOf([fake.url]))).toEqual({
      mediaType: MEDIA.manifest,
      digest: image.digest,
      size: image.body.length,
      body: null,
      named: [],
    });
    expect(fake.log.count({ kind: 'manifest', method: 'GET' })).toBe(0);
  });

  it.each([405, 501, 400])('falls back to GET on %i', async (status) => {
    const fake = await fakeRegistry({ refuseHead: { manifest: status, blob: status } });
    const image = fake.repository('library/app').addImage('latest', ['xyz']);
    const upstream = upstreamOf([fake.url]);
    expect((await head(upstream)).digest).toBe(image.digest);
    expect(await upstream.statBlob(key(image.layers[0]?.digest as Digest), signal)).toEqual({ size: 3 });
  });

  it('knows the size of a blob where neither HEAD nor Range is served', async () => {
    const fake = await fakeRegistry({ refuseHead: { blob: 405 }, refuseRange: 'ignore' });
    const layer = fake.repository('library/app').addBlob(generated(5_000_000));
    expect(await upstreamOf([fake.url]).statBlob(key(layer.digest), signal)).toEqual({ size: 5_000_000 });
  });
});

describe('lists', () => {
  it('reads tags page by page', async () => {
    const fake = await fakeRegistry({ pageSize: 2 });
    for (const tag of ['a', 'b', 'c']) fake.repository('library/app').addImage(tag, ['x']);
    const upstream = upstreamOf([fake.url]);
    const first = await upstream.tags(REPOSITORY, tagsRequest(), signal);
    expect(JSON.parse(Buffer.from(first.body).toString())).toEqual(['a', 'b']);
    const second = await upstream.tags(REPOSITORY, tagsRequest(first.next), signal);
    expect(JSON.parse(Buffer.from(second.body).toString())).toEqual(['c']);
    expect(second.next).toBeNull();
  });

  it('says NAME_UNKNOWN for a repository that is not there', async () => {
    const fake = await fakeRegistry();
    const upstream = upstreamOf([fake.url]);
    expect((await failure(upstream.tags(REPOSITORY, tagsRequest(), signal))).code).toBe('NAME_UNKNOWN');
    expect((await failure(get(upstream))).code).toBe('NAME_UNKNOWN');
    fake.repository('library/app');
    expect((await failure(get(upstream))).code).toBe('MANIFEST_UNKNOWN');
  });

  it('reads referrers, and says null where there is no such API', async () => {
    const fake = await fakeRegistry();
    const repository = fake.repository('library/app');
    const subject = repository.addImage('latest', ['x']);
    const signature = repository.addImage(undefined, ['sig'], { subject, artifactType: 'application/x-sig' });
    const artifactType = 'application/x-sig';
    const request = { page: `${subject.digest}?${new URLSearchParams({ artifactType })}`, artifactType, isKnown: true };
    const page = await upstreamOf([fake.url]).referrers(REPOSITORY, subject.digest, request, signal);
    expect(JSON.parse(Buffer.from(page?.body ?? []).toString()).manifests[0].digest).toBe(signature.digest);
    const bare = await fakeRegistry({ referrers: false });
    expect(await upstreamOf([bare.url]).referrers(REPOSITORY, subject.digest, request, signal)).toBeNull();
  });
});

describe('a blob that is passed through', () => {
  it('is taken up where it breaks off, with a new redirect', async () => {
    const fake = await fakeRegistry({
      ...QUIRKS.docker,
      faults: ({ kind, nth }) => (kind === 'cdn' && nth < 4 ? { resetAfter: 400_000 } : undefined),
    });
    const layer = fake.repository('library/app').addBlob(generated(2_000_000, 4));
    const upstream = upstreamOf([fake.url]);
    const whole = await upstream.openBlob(key(layer.digest), null, signal);
    expect(sha256(await readAll(whole.source))).toBe(layer.digest);
    expect(fake.log.count({ kind: 'cdn' })).toBe(5);
    fake.faults = ({ kind, nth }) => (kind === 'cdn' && nth === 5 ? { endAfter: 100_000 } : undefined);
    const part = await upstream.openBlob(key(layer.digest), { from: 300_000, to: 900_000 }, signal);
    expect((await readAll(part.source)).equals(layer.read(300_000, 900_000))).toBe(true);
  });

  it('ends truncated where ranges are not known, or the rest never comes', async () => {
    const fake = await fakeRegistry({ refuseRange: 'ignore', faults: () => ({ resetAfter: 400_000 }) });
    const layer = fake.repository('library/app').addBlob(generated(2_000_000, 4));
    const whole = await upstreamOf([fake.url]).openBlob(key(layer.digest), null, signal);
    await expect(readAll(whole.source)).rejects.toBeInstanceOf(TruncatedError);
  });

  it('is left when its reader leaves', async () => {
    const fake = await fakeRegistry({ faults: () => ({ stallAfter: 100_000 }) });
    const layer = fake.repository('library/app').addBlob(generated(2_000_000, 4));
    const whole = await upstreamOf([fake.url]).openBlob(key(layer.digest), null, signal);
    const reading = readAll(whole.source);
    await whole.source.close();
    await expect(reading).rejects.toBeInstanceOf(TruncatedError);
    await expect.poll(() => fake.connections).toBe(0);
  });
});

describe('failures', () => {
  it.each([
    [401, 401],
    [403, 403],
    [404, 404],
    [429, 429],
    [500, 502],
    [502, 502],
    [503, 502],
    [408, 504],
  ])('turns the status %i into %i', async (status, told) => {
    const fake = await fakeRegistry({ faults: () => ({ status, headers: { 'retry-after': '90' } }) });
    const error = await failure(get(upstreamOf([fake.url])));
    expect(error.status).toBe(told);
    if (status === 429) expect(error.options.retryAfter).toBe(90);
  });

  it('is 502 where nothing listens, 504 where nothing answers, each in words', async () => {
    const gone = await FakeRegistry.start();
    await gone.close();
    const refused = await failure(get(upstreamOf([gone.url])));
    expect(refused.status).toBe(502);
    expect(refused.message).toContain('refuses connections');
    const fake = await fakeRegistry({ faults: () => ({ hang: true }) });
    const slow = startUpstream({ 'r.test': { endpoints: [fake.url] } }, { stallTimeout: 200 });
    cleanups.push(() => slow.close());
    expect((await failure(get(slow))).status).toBe(504);
  });

  it('tries a broken connection again', async () => {
    const fake = await fakeRegistry({ faults: (request) => (request.nth < 2 ? { refuse: true } : undefined) });
    const image = fake.repository('library/app').addImage('latest', ['x']);
    expect((await get(upstreamOf([fake.url]))).digest).toBe(image.digest);
  });

  it('never takes a manifest that is not the one asked for', async () => {
    const fake = await fakeRegistry({ faults: () => ({ wrongByteAt: 0 }) });
    const { digest } = fake.repository('library/app').addImage('latest', ['x']);
    const error = await failure(get(upstreamOf([fake.url]), { kind: 'digest', digest }));
    expect(error.kind).toBe('upstreamWrong');
    expect(error.status).toBe(502);
  });

  it('reads no manifest beyond 4 MiB', async () => {
    const fake = await fakeRegistry();
    fake.repository('library/app').addManifest(Buffer.alloc(4 * 1024 * 1024 + 1, ' '), MEDIA.manifest, 'latest');
    expect((await failure(get(upstreamOf([fake.url])))).kind).toBe('upstreamWrong');
  });

  it('leaves when the client leaves', async () => {
    const fake = await fakeRegistry({ faults: () => ({ hang: true }) });
    const controller = new AbortController();
    const asked = upstreamOf([fake.url]).manifest(REPOSITORY, LATEST, {
      method: 'GET',
      accept: undefined,
      signal: controller.signal,
    });
    const reason = new Error('the client left');
    setTimeout(() => controller.abort(reason), 50);
    await expect(asked).rejects.toBe(reason);
  });
});

describe('what an upstream points to', () => {
  it('is not followed for ever', async () => {
    const fake = await fakeRegistry({ faults: (request) => ({ status: 302, headers: { location: request.path } }) });
    expect((await failure(get(upstreamOf([fake.url])))).kind).toBe('upstreamWrong');
    expect(fake.log.count()).toBe(6);
  });

  it.each([
    'http://169.254.169.254/latest/meta-data/',
    'http://user:pw@127.0.0.1/',
    'file:///etc/passwd',
    'gopher://x/',
    'http://[fe80::1]/',
    'http://',
  ])('is not asked at %s', async (location) => {
    const fake = await fakeRegistry({ faults: () => ({ status: 302, headers: { location } }) });
    expect((await failure(get(upstreamOf([fake.url])))).kind).toBe('upstreamWrong');
  });

  it('may not lead a token request to the metadata service', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', realm: 'http://169.254.169.254/token' } });
    expect((await failure(get(upstreamOf([fake.url])))).kind).toBe('upstreamWrong');
  });
});
