import { afterEach, describe, expect, it } from 'vitest';
import { RegistryError, renderError } from '../../src/oci/errors.ts';
import type { Route } from '../../src/upstream/upstream.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry/index.ts';
import { startUpstream, tagsRequest } from '../support/upstream.ts';

/** Addresses of what lies behind the registry, none of which a client may be told. */
const INSIDE = '127.66.6.6';
const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start({ host: INSIDE, ...options });
  closers.push(() => fake.close());
  return fake;
}

/** The error of a pull: what a client gets to see of it, and what the log has. */
async function failing(endpoint: string, route: Partial<Route> = {}): Promise<{ told: string; logged: string }> {
  const upstream = startUpstream({ 'r.test': { endpoints: [endpoint], ...route } }, { stallTimeout: 300 });
  closers.push(() => upstream.close());
  const key = { registry: 'r.test', repository: 'library/app' };
  const options = { method: 'GET', accept: undefined, signal: new AbortController().signal } as const;
  const error = await upstream.manifest(key, { kind: 'tag', tag: 'x' }, options).then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RegistryError);
  return { told: renderError(error as RegistryError).body, logged: (error as RegistryError).logged };
}

describe('a client is told what happened, and no name, address or port of what lies behind a registry', () => {
  const pointing =
    (to: (inner: FakeRegistry) => string, inner: FakeRegistryOptions = {}) =>
    async () => {
      const target = await fakeRegistry(inner);
      const fake = await fakeRegistry();
      fake.faults = () => ({ status: 307, headers: { location: to(target) } });
      return await failing(fake.url);
    };
  const realm = (at: string) => async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', realm: at } });
    return await failing(fake.url);
  };

  it.each<[string, () => Promise<{ told: string; logged: string }>, RegExp]>([
    ['an endpoint that refuses connections', () => failing(`http://${INSIDE}:1`), /refuses connections/],
    ['an endpoint whose name does not resolve', () => failing('http://box.corp.invalid:5000'), /name/],
    [
      'an endpoint that fails',
      async () => failing((await fakeRegistry({ faults: () => ({ status: 500 }) })).url),
      /answered 500/,
    ],
    [
      'an endpoint that does not answer',
      async () => failing((await fakeRegistry({ faults: () => ({ hang: true }) })).url),
      /no answer/,
    ],
    ['a redirect to what refuses connections', pointing(() => `http://${INSIDE}:1/v2/x`), /redirects to/],
    [
      'a redirect to what fails',
      pointing((to) => `${to.url}/v2/x`, { faults: () => ({ status: 500 }) }),
      /answered 500/,
    ],
    ['a redirect to the metadata service', pointing(() => 'http://169.254.169.254/latest'), /may not point to/],
    ['a redirect with a password', pointing(() => `http://u:p@${INSIDE}/x`), /password/],
    [
      'redirects without end',
      pointing((to) => `${to.url}/v2/x`, { faults: ({ path }) => ({ status: 302, headers: { location: path } }) }),
      /redirects/,
    ],
    ['a realm that refuses connections', realm(`http://${INSIDE}:1/token`), /token endpoint/],
    ['a realm that is no realm', realm(`ftp://${INSIDE}/token`), /https/],
    [
      'a proxy that refuses connections',
      () => failing('https://registry.example', { proxy: `http://${INSIDE}:1` }),
      /proxy/,
    ],
    ['a proxy for SOCKS', () => failing('https://registry.example', { proxy: `socks5h://${INSIDE}:1` }), /proxy/],
  ])('%s', async (_, fail, words) => {
    const { told, logged } = await fail();
    expect(told).toMatch(words);
    expect(told).not.toMatch(/127\.66|169\.254|box\.corp|registry\.example|:\d{2,5}\b/);
    expect(logged).not.toBe('');
  });

  it('the log has all of it', async () => {
    const { logged } = await failing('https://registry.example', { proxy: `http://${INSIDE}:1` });
    expect(logged).toContain(`${INSIDE}:1`);
  });
});

describe('what a hostile upstream says is bounded', () => {
  it('a wait of years is one of hours', async () => {
    const fake = await fakeRegistry({ faults: () => ({ status: 429, headers: { 'retry-after': '999999999' } }) });
    const upstream = startUpstream({ 'r.test': { endpoints: [fake.url] } });
    closers.push(() => upstream.close());
    const key = { registry: 'r.test', repository: 'library/app' };
    const error = (await upstream
      .tags(key, tagsRequest(), new AbortController().signal)
      .catch((thrown: unknown) => thrown)) as RegistryError;
    expect([error.kind, error.options.retryAfter]).toEqual(['upstreamRateLimited', 6 * 3600]);
  });

  it.each([
    ['deep', '['.repeat(30_000)],
    ['long', `{"errors":[{"code":"${'X'.repeat(60_000)}"}]}`],
    ['longer than is read', 'x'.repeat(200_000)],
    ['of another shape', '{"errors":{"0":{"code":"NAME_UNKNOWN"}}}'],
  ])('an error body that is %s says no more than its status', async (_, body) => {
    const fake = await fakeRegistry({ faults: () => ({ status: 404, body }) });
    const { told } = await failing(fake.url);
    expect(JSON.parse(told).errors).toMatchObject([{ code: 'MANIFEST_UNKNOWN' }]);
    expect(told.length).toBeLessThan(500);
  });

  it('a challenge of more than a few hundred characters is none', async () => {
    const challenge = () => `Bearer realm="http://${INSIDE}/token?${'x'.repeat(8_000)}",service="s"`;
    const fake = await fakeRegistry({ auth: { scheme: 'bearer', challenge } });
    expect(JSON.parse((await failing(fake.url)).told).errors).toMatchObject([{ code: 'UNAUTHORIZED' }]);
  });
});
