import { afterEach, describe, expect, it } from 'vitest';
import { RegistryError } from '../../src/oci/errors.ts';
import { FakeRegistry, type FakeRegistryOptions, generated, QUIRKS } from '../support/fake-registry/index.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { httpProxy, socksProxy, type TestProxy, type TestProxyOptions } from '../support/proxy-servers.ts';
import { startUpstream, type TestUpstream, tagsRequest } from '../support/upstream.ts';

const signal = new AbortController().signal;
const REPOSITORY = { registry: 'r.test', repository: 'library/app' };
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A registry under a name that only a proxy resolves; its tokens and its downloads are under such names too. */
async function hiddenRegistry(options: FakeRegistryOptions = {}) {
  const fake = await FakeRegistry.start({
    ...options,
    auth: { scheme: 'bearer', realm: 'http://auth.hidden.example/token' },
    redirect: { to: (digest) => `http://cdn.hidden.example/data/${digest}` },
  });
  cleanups.push(() => fake.close());
  const names = {
    'registry.hidden.example': fake.host,
    'auth.hidden.example': fake.host,
    'cdn.hidden.example': new URL(fake.cdnUrl).host,
  };
  return { fake, names, endpoint: 'http://registry.hidden.example' };
}

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

async function pulls(upstream: TestUpstream, fake: FakeRegistry): Promise<void> {
  const layer = generated(2_000_000, 3);
  const image = fake.repository('library/app').addImage('latest', [layer]);
  const reference = { kind: 'tag', tag: 'latest' } as const;
  const manifest = await upstream.manifest(REPOSITORY, reference, { method: 'GET', accept: undefined, signal });
  expect(manifest.digest).toBe(image.digest);
  const sink = new MemorySink();
  await upstream.download({ ...REPOSITORY, digest: layer.digest }, sink, signal);
  expect(sink.digest).toBe(layer.digest);
}

const credentials = { username: 'us er', password: 'p@:ss' };
const login = 'us%20er:p%40%3Ass';

describe.each([
  ['http', httpProxy],
  ['socks5h', socksProxy],
] as const)('a proxy %s://', (scheme, make) => {
  it('takes manifests, tokens and redirects, and resolves their names', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(make, { names });
    await pulls(
      upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `${scheme}://127.0.0.1:${proxy.port}` }),
      fake,
    );
    expect(new Set(proxy.asked)).toEqual(
      new Set(['registry.hidden.example:80', 'auth.hidden.example:80', 'cdn.hidden.example:80']),
    );
  });

  it('gets its credentials', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(make, { names, credentials });
    const at = `127.0.0.1:${proxy.port}`;
    await pulls(upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `${scheme}://${login}@${at}` }), fake);
    const wrong = upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `${scheme}://a:secret@${at}` });
    const error = await wrong.tags(REPOSITORY, tagsRequest(), signal).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(RegistryError);
    expect((error as RegistryError).status).toBe(502);
    expect((error as RegistryError).message).toContain('proxy');
    expect((error as RegistryError).message).not.toContain('secret');
  });

  it('of the registry wins over the configured one', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(make, { names });
    const own = `${scheme}://127.0.0.1:${proxy.port}`;
    await pulls(upstreamOf({ 'r.test': { endpoints: [endpoint], proxy: own } }, { proxy: 'http://127.0.0.1:1' }), fake);
  });

  it('is never led into our own network by a registry that is not there', async () => {
    const { names, endpoint, fake } = await hiddenRegistry();
    const inside = await FakeRegistry.start();
    cleanups.push(() => inside.close());
    const proxy = await startProxy(make, { names });
    const upstream = upstreamOf(
      { 'r.test': { endpoints: [endpoint] } },
      { proxy: `${scheme}://127.0.0.1:${proxy.port}` },
    );
    for (const location of [inside.url, 'http://localhost/', 'http://[::1]/', 'http://vault/']) {
      fake.faults = () => ({ status: 302, headers: { location } });
      const error = await upstream.tags(REPOSITORY, tagsRequest(), signal).catch((thrown: unknown) => thrown);
      expect((error as RegistryError).kind).toBe('upstreamWrong');
    }
    expect(inside.log.count()).toBe(0);
    expect(proxy.asked.every((target) => target.includes('hidden'))).toBe(true);
  });
});

describe('a proxy http:// that opens tunnels for TLS only', () => {
  it('forwards what goes to an endpoint without TLS', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(httpProxy, { names, credentials, tunnels: /:443$/ });
    await pulls(
      upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `http://${login}@127.0.0.1:${proxy.port}` }),
      fake,
    );
    // Its credentials are for it alone.
    expect(fake.log.all.some(({ headers }) => headers['proxy-authorization'] !== undefined)).toBe(false);
  });
});

describe('a proxy socks5://', () => {
  it('is given addresses, names being resolved here', async () => {
    const fake = await FakeRegistry.start(QUIRKS.docker);
    cleanups.push(() => fake.close());
    const proxy = await startProxy(socksProxy, {});
    const endpoint = `http://localhost:${fake.port}`;
    await pulls(
      upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { proxy: `socks5://127.0.0.1:${proxy.port}` }),
      fake,
    );
    expect(proxy.asked.length).toBeGreaterThan(0);
    expect(proxy.asked.every((target) => /^(127\.0\.0\.1|\[.*\]):\d+$/.test(target))).toBe(true);
  });
});

describe('the environment', () => {
  it('names the proxy where nothing is configured, and whom it is not for', async () => {
    const { fake, names, endpoint } = await hiddenRegistry();
    const proxy = await startProxy(httpProxy, { names });
    const environment = { HTTP_PROXY: `127.0.0.1:${proxy.port}` };
    await pulls(upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { environment }), fake);
    const exempt = { ...environment, NO_PROXY: 'hidden.example' };
    const upstream = upstreamOf({ 'r.test': { endpoints: [endpoint] } }, { environment: exempt });
    const before = proxy.asked.length;
    await expect(upstream.tags(REPOSITORY, tagsRequest(), signal)).rejects.toBeInstanceOf(RegistryError);
    expect(proxy.asked.length).toBe(before);
  });
});

describe('a proxy that is off', () => {
  it('is never gone around', async () => {
    const fake = await FakeRegistry.start();
    cleanups.push(() => fake.close());
    fake.repository('library/app');
    const upstream = upstreamOf({ 'r.test': { endpoints: [fake.url] } }, { proxy: 'http://127.0.0.1:1' });
    const error = await upstream.tags(REPOSITORY, tagsRequest(), signal).catch((thrown: unknown) => thrown);
    expect((error as RegistryError).status).toBe(502);
    expect(fake.log.count()).toBe(0);
  });
});
