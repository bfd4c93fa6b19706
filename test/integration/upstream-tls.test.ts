import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { RegistryError } from '../../src/oci/errors.ts';
import { FakeRegistry, type FakeRegistryOptions, generated } from '../support/fake-registry/index.ts';
import { startGateway } from '../support/gateway.ts';
import { sendWhole } from '../support/http-client.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { httpProxy, socksProxy, type TestProxy, type TestProxyOptions } from '../support/proxy-servers.ts';
import { makeTestCa, trust } from '../support/test-ca.ts';
import { startUpstream, type TestUpstream } from '../support/upstream.ts';

const signal = new AbortController().signal;
const REPOSITORY = { registry: 'r.test', repository: 'library/app' };
const LATEST = { kind: 'tag', tag: 'latest' } as const;
const LAYER = generated(2_000_000, 5);
const cleanups: (() => Promise<void>)[] = [];
const ca = makeTestCa();
/** Nobody trusts it. */
const strangeCa = makeTestCa('CA of nobody');
/** Names that only proxies know. */
const [REGISTRY, AUTH, CDN] = ['registry.hidden.example', 'auth.hidden.example', 'cdn.hidden.example'] as const;
const tls = ca.issue(['localhost', '127.0.0.1', REGISTRY, AUTH, CDN]);

beforeAll(() => trust(ca));

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start({ tls, ...options });
  cleanups.push(() => fake.close());
  return fake;
}

/** Under a name, its certificate and SNI being for one. */
const named = (fake: FakeRegistry): string => `https://localhost:${fake.port}`;

async function startProxy(make: typeof httpProxy, options: TestProxyOptions): Promise<TestProxy> {
  const proxy = await make(options);
  cleanups.push(() => proxy.close());
  return proxy;
}

function upstreamOf(...[routes, options]: Parameters<typeof startUpstream>): TestUpstream {
  const upstream = startUpstream(routes, options);
  cleanups.push(() => upstream.close());
  return upstream;
}

/** Pulls an image of one layer and checks every byte. */
async function pulls(upstream: TestUpstream, fake: FakeRegistry): Promise<void> {
  const image = fake.repository('library/app').addImage('latest', [LAYER]);
  const manifest = await upstream.manifest(REPOSITORY, LATEST, { method: 'GET', accept: undefined, signal });
  expect(manifest.digest).toBe(image.digest);
  const sink = new MemorySink();
  await upstream.download({ ...REPOSITORY, digest: LAYER.digest }, sink, signal);
  expect(sink.digest).toBe(LAYER.digest);
}

/** The failure of a manifest, which has to say `words` of the registry. */
async function refused(upstream: TestUpstream, words: string, kind = 'upstreamFailed'): Promise<void> {
  const error = await upstream
    .manifest(REPOSITORY, LATEST, { method: 'GET', accept: undefined, signal })
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(RegistryError);
  expect(error).toMatchObject({ status: 502, kind });
  expect((error as RegistryError).message).toContain('r.test');
  expect((error as RegistryError).logged).toContain(words);
}

describe('a registry that speaks https', () => {
  it('is asked by its name and verified', async () => {
    const fake = await fakeRegistry();
    await pulls(upstreamOf({ 'r.test': { endpoints: [named(fake)] } }), fake);
    expect(new Set(fake.serverNames)).toEqual(new Set(['localhost']));
  });

  it('may be an address, which is verified and is no server name', async () => {
    const fake = await fakeRegistry();
    await pulls(upstreamOf({ 'r.test': { endpoints: [fake.url] } }), fake);
    expect(new Set(fake.serverNames)).toEqual(new Set([false]));
  });

  it.each([
    ['another name', ca.issue(['localhost.other.example', '127.0.0.1']), 'its certificate is for another name'],
    ['an unknown authority', strangeCa.issue(['localhost']), 'signed by an authority that this machine does not trust'],
    ['the past', ca.issue(['localhost'], -1), 'its certificate has expired'],
  ])('is refused with a certificate of %s', async (_, certificate, words) => {
    const fake = await fakeRegistry({ tls: certificate });
    fake.repository('library/app').addImage('latest', [LAYER]);
    await refused(upstreamOf({ 'r.test': { endpoints: [named(fake)] } }), words);
    expect(fake.log.count()).toBe(0);
  });

  it('that speaks plain http is not asked in plain', async () => {
    const fake = await FakeRegistry.start();
    cleanups.push(() => fake.close());
    await refused(upstreamOf({ 'r.test': { endpoints: [named(fake)] } }), 'it does not speak TLS');
    expect(fake.log.count()).toBe(0);
  });

  it('demands tokens of another https host and redirects to a third', async () => {
    const users = { robot: 'pass word' };
    const fake = await fakeRegistry({
      // The realm is at 127.0.0.1, another origin than localhost; the download host answers 400 to any Authorization.
      auth: { scheme: 'bearer', users, private: true },
      redirect: { to: 'signed' },
    });
    const credentials = { username: 'robot', password: 'pass word' };
    await pulls(upstreamOf({ 'r.test': { endpoints: [named(fake)], credentials } }), fake);
    expect(fake.log.count({ kind: 'token' })).toBe(1);
    expect(fake.log.count({ kind: 'cdn' })).toBeGreaterThan(0);
  });

  it('is taken up again where a reset broke it off', async () => {
    const fake = await fakeRegistry({
      faults: ({ kind, nth }) => (kind === 'blob' && nth < 3 ? { resetAfter: 300_000 } : undefined),
    });
    await pulls(upstreamOf({ 'r.test': { endpoints: [named(fake)] } }, { connections: 1 }), fake);
    const blobs = fake.log.all.filter(({ kind }) => kind === 'blob');
    expect(blobs.length).toBeGreaterThanOrEqual(4);
    expect(blobs[1]?.range?.from).toBeGreaterThan(0);
  });

  it.each(['http://127.0.0.1', 'http://localhost', 'http://example.com'])('never leads down to %s', async (to) => {
    const plain = await FakeRegistry.start();
    cleanups.push(() => plain.close());
    const fake = await fakeRegistry();
    const location = `${to}:${plain.port}/v2/library/app/manifests/latest`;
    fake.faults = () => ({ status: 307, headers: { location } });
    const upstream = upstreamOf({ 'r.test': { endpoints: [named(fake)] } });
    await refused(upstream, 'that is not https', 'upstreamWrong');
    fake.faults = () => ({ status: 401, headers: { 'www-authenticate': `Bearer realm="${location}"` } });
    await refused(upstream, 'that is not https', 'upstreamWrong');
    expect(plain.log.count()).toBe(0);
  });

  it('takes nothing from a download host with a certificate of another name', async () => {
    const other = await fakeRegistry({ tls: ca.issue(['elsewhere.example']) });
    const fake = await fakeRegistry({ redirect: { to: () => `${other.url}/data/blob` } });
    fake.repository('library/app').addImage('latest', [LAYER]);
    const upstream = upstreamOf({ 'r.test': { endpoints: [named(fake)] } });
    const error = await upstream
      .openBlob({ ...REPOSITORY, digest: LAYER.digest }, null, signal)
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ status: 502, message: expect.stringContaining('for another name') });
    expect(other.log.count()).toBe(0);
  });
});

const credentials = { username: 'us er', password: 'p@:ss' };
const login = 'us%20er:p%40%3Ass';

/** A registry, its tokens and its downloads under https names that only a proxy resolves. */
async function hiddenRegistry() {
  const fake = await fakeRegistry({
    auth: { scheme: 'bearer', realm: `https://${AUTH}/token` },
    redirect: { to: (digest) => `https://${CDN}/data/${digest}` },
  });
  const names = { [REGISTRY]: fake.host, [AUTH]: fake.host, [CDN]: new URL(fake.cdnUrl).host };
  return { fake, names, endpoint: `https://${REGISTRY}` };
}

describe.each([
  ['http', httpProxy, {}],
  ['https', httpProxy, { tls }],
  ['socks5h', socksProxy, {}],
] as const)('https through a proxy %s://', (scheme, make, options) => {
  it.each(['localhost', '127.0.0.1'])('at %s, with its credentials', async (host) => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(make, { names, credentials, ...options });
    const at = `${scheme}://${login}@${host}:${proxy.port}`;
    await pulls(upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: at }), fake);
    expect(new Set(proxy.asked)).toEqual(new Set([`${REGISTRY}:443`, `${AUTH}:443`, `${CDN}:443`]));
    expect(new Set(fake.serverNames)).toEqual(new Set([REGISTRY, AUTH, CDN]));
  });

  it('is taken up again where a reset broke it off', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    fake.faults = ({ kind, nth }) => (kind === 'cdn' && nth === 0 ? { resetAfter: 500_000 } : undefined);
    const proxy = await startProxy(make, { names, ...options });
    await pulls(
      upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `${scheme}://localhost:${proxy.port}` }),
      fake,
    );
    expect(fake.log.count({ kind: 'cdn' })).toBeGreaterThan(1);
  });

  it('verifies the registry behind it', async () => {
    const fake = await fakeRegistry({ tls: ca.issue(['other.example']) });
    const proxy = await startProxy(make, { names: { [REGISTRY]: fake.host }, ...options });
    const upstream = upstreamOf(
      { 'r.test': { endpoints: [`https://${REGISTRY}`] } },
      { proxy: `${scheme}://localhost:${proxy.port}` },
    );
    await refused(upstream, 'its certificate is for another name');
    expect(fake.log.count()).toBe(0);
  });

  it('is blamed on the proxy where that refuses or is off', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(make, { names, credentials, ...options });
    const at = `127.0.0.1:${proxy.port}`;
    const route = { 'r.test': { endpoints: [endpoint] } };
    await refused(upstreamOf(route, { proxy: `${scheme}://us:wrong@${at}` }), `the proxy ${at} did not connect`);
    await proxy.close();
    await refused(
      upstreamOf(route, { proxy: `${scheme}://us:wrong@${at}` }),
      `the proxy ${at} is out of reach: it refuses connections`,
    );
    expect(fake.log.count()).toBe(0);
  });
});

it('https through a proxy socks5:// is given addresses, and TLS the name', async () => {
  const fake = await fakeRegistry();
  const proxy = await startProxy(socksProxy, { credentials });
  const at = `socks5://${login}@127.0.0.1:${proxy.port}`;
  await pulls(upstreamOf({ 'r.test': { endpoints: [named(fake)] } }, { proxy: at }), fake);
  expect(new Set(fake.serverNames)).toEqual(new Set(['localhost']));
  expect(proxy.asked.every((target) => /^(127\.0\.0\.1|\[.*\]):\d+$/.test(target))).toBe(true);
});

describe('a proxy https://', () => {
  it('takes plain http endpoints too', async () => {
    const fake = await FakeRegistry.start();
    cleanups.push(() => fake.close());
    const proxy = await startProxy(httpProxy, { names: { [REGISTRY]: fake.host }, tls });
    const upstream = upstreamOf(
      { 'r.test': { endpoints: [`http://${REGISTRY}`] } },
      { proxy: `https://localhost:${proxy.port}` },
    );
    await pulls(upstream, fake);
    expect(new Set(proxy.asked)).toEqual(new Set([`${REGISTRY}:80`]));
  });

  it.each([
    ['another name', ca.issue(['other.example']), 'its certificate is for another name'],
    ['an unknown authority', strangeCa.issue(['localhost', '127.0.0.1']), 'its certificate is signed by'],
  ])('is sent nothing where its certificate is of %s', async (_, certificate, words) => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(httpProxy, { names, tls: certificate });
    for (const host of ['localhost', '127.0.0.1']) {
      const at = `${host}:${proxy.port}`;
      const upstream = upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `https://${login}@${at}` });
      await refused(upstream, `the proxy ${at} is out of reach: ${words}`);
    }
    expect(proxy.asked).toEqual([]);
    expect(fake.log.count()).toBe(0);
  });
});

it('the gateway as a program trusts whom NODE_EXTRA_CA_CERTS names, and nobody else', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'upstream-tls-'));
  cleanups.push(async () => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'extra.pem');
  writeFileSync(file, ca.pem);
  const fake = await fakeRegistry({ auth: { scheme: 'bearer' }, redirect: { to: 'signed' } });
  const image = fake.repository('library/app').addImage('latest', [LAYER]);
  const strange = await fakeRegistry({ tls: strangeCa.issue(['localhost']) });
  const gateway = await startGateway({ config: { domain: 'localhost' }, env: { NODE_EXTRA_CA_CERTS: file } });
  cleanups.push(() => gateway.close());
  await gateway.ok('alias', 'add', 'safe', 'safe.example.org', '--endpoint', named(fake));
  await gateway.ok('alias', 'add', 'strange', 'strange.example.org', '--endpoint', named(strange));
  const root = readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8');
  const get = (path: string) => sendWhole({ port: gateway.httpsPort, path: `/v2/library/app/${path}`, ca: root });

  expect(await get('manifests/latest?ns=safe.example.org')).toMatchObject({ status: 200, digest: image.digest });
  const blob = await get(`blobs/${LAYER.digest}?ns=safe.example.org`);
  expect(blob).toMatchObject({ status: 200, digest: LAYER.digest });
  expect(new Set(fake.serverNames)).toContain('localhost');

  expect(await get('manifests/latest?ns=strange.example.org')).toMatchObject({ status: 502 });
  const shown = await gateway.ok('registry', 'show', 'strange.example.org');
  expect(shown).toContain('signed by an authority that this machine does not trust');
  expect(strange.log.count()).toBe(0);
});
