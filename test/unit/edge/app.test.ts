import { describe, expect, onTestFinished, test } from 'vitest';
import { CLIENT_KINDS, type PublicAddress } from '../../../src/clients/facts.ts';
import { createApp } from '../../../src/edge/app.ts';
import type { RequestContext } from '../../../src/edge/request-context.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { openAccess, snapshotOf } from '../../support/edge-bed.ts';

const table = snapshotOf('cr.example.com', ['docker.io', 'quay.io'], { hub: 'docker.io', '<b>x': 'quay.io' });
let state: true | string = true;
let access = openAccess;
const ADDRESS: PublicAddress = { domain: 'cr.example.com', scheme: 'https', port: null };
let address = ADDRESS;
const app = createApp({
  table: () => table,
  access: { check: (request) => access.check(request), quota: null },
  certificates: null,
  rootFile: null,
  ready: () => state,
  metrics: new Metrics(),
  version: '1.2.3',
  port: () => 443,
  address: () => address,
  clientFacts: async (credentials) => ({
    ...address,
    ca: null,
    patterns: [],
    ownNames: [],
    registries: [...table.registries.keys()],
    aliases: [],
    credentials,
  }),
  log: silentLog(),
});

/** Asks with what the dispatcher knows of a request before Hono sees it. */
async function ask(
  path: string,
  host = 'cr.example.com',
  headers: Record<string, string> = {},
): Promise<{ response: Response; context: RequestContext }> {
  const facts = { id: 'id-1', service: 'registry', method: 'GET', host, path, query: '', kind: 'other', user: null };
  const context = facts as unknown as RequestContext;
  return { response: await app.request(path, { headers }, { context }), context };
}

describe('health', () => {
  test('readiness says why not', async () => {
    state = 'starting';
    const { response } = await ask('/readyz', 'whatever.example');
    expect([response.status, await response.text()]).toEqual([503, 'not ready: starting\n']);
    expect((await ask('/healthz')).response.status).toBe(200);
    state = true;
    expect((await ask('/readyz')).response.status).toBe(200);
  });
});

test('the ping, and what the log line gets to know', async () => {
  const { response, context } = await ask('/v2/');
  expect([response.status, await response.text(), response.headers.get('content-length')]).toEqual([200, '{}', '2']);
  expect(context).toMatchObject({ kind: 'ping', status: 200, bytes: 2 });
});

describe('the page', () => {
  test('is whole in itself, and escapes names', async () => {
    const html = await (await ask('/')).response.text();
    expect(html).toContain('docker pull <b>cr.example.com</b>/docker.io/library/alpine');
    expect(html).toContain('hub.cr.example.com');
    expect(html).toContain('&#60;b&#62;x.cr.example.com');
    expect(html).not.toContain('<b>x');
    expect(html).not.toContain(':443');
  });

  test('says how clients reach the gateway, by whatever scheme and port that is', async () => {
    address = { domain: '10.0.0.1', scheme: 'http', port: 8080 };
    onTestFinished(() => {
      address = ADDRESS;
    });
    const html = (await (await ask('/')).response.text()).replaceAll('&#34;', '"');
    expect(html).toContain('[host."http://<b>10.0.0.1:8080</b>"]');
    expect(html).toContain('"registry-mirrors": ["http://<b>10.0.0.1:8080</b>"]');
    expect(html).toContain('<code>hub.cr.example.com:8080</code>');
    expect(await (await ask('/', 'hub.cr.example.com')).response.text()).toContain('href="http://10.0.0.1:8080/"');
    expect(html).not.toContain('https://');
  });

  test('names no registry to those who may not pull, and tells them why', async () => {
    const check = (): never => {
      throw new RegistryError('unauthorized', { facts: { host: 'cr.example.com' } });
    };
    access = { ...openAccess, check };
    onTestFinished(() => {
      access = openAccess;
    });
    for (const host of ['cr.example.com', 'hub.cr.example.com']) {
      const { response } = await ask('/', host);
      const html = await response.text();
      expect(response.status).toBe(200);
      expect(html).toContain('docker login cr.example.com');
      expect(html).not.toMatch(/docker\.io|quay\.io|docker pull/);
    }
    expect(await (await ask('/')).response.text()).not.toContain('hub');
  });

  test('is in the language that the browser prefers, or that was chosen', async () => {
    const shown = async (path: string, accept: string) =>
      (await (await ask(path, 'cr.example.com', { 'accept-language': accept })).response.text()).match(
        /lang="(.*?)"/,
      )?.[1];
    expect(await shown('/', 'zh-CN,zh;q=0.9,en;q=0.8')).toBe('zh-CN');
    expect(await shown('/', 'en-GB,en;q=0.9,zh;q=0.8')).toBe('en');
    expect(await shown('/', 'de')).toBe('en');
    expect(await shown('/', 'zh;q=0')).toBe('en');
    expect(await shown('/?lang=zh', 'en')).toBe('zh-CN');
    expect(await shown('/?lang=en', 'zh')).toBe('en');
    const { response } = await ask('/', 'cr.example.com', { 'accept-language': 'zh' });
    expect([response.headers.get('content-language'), response.headers.get('vary')]).toEqual([
      'zh-CN',
      'Accept-Language',
    ]);
  });

  test.each(['en', 'zh'])('says in %s which Docker mirrors what, and leads to every configuration', async (lang) => {
    const html = (await (await ask(`/?lang=${lang}`)).response.text()).replaceAll('&#34;', '"');
    expect(html).toContain('/etc/docker/certs.d/_default/hosts.toml');
    expect(html).toContain('capabilities = ["pull", "resolve", "referrers"]');
    expect(html).toContain('registry-mirrors');
    for (const kind of CLIENT_KINDS) expect(html).toContain(`href="/client/${kind}"`);
  });

  test('its style is the one that its policy lets through', async () => {
    const { response } = await ask('/', 'hub.cr.example.com');
    const html = await response.text();
    const style = /<style>([\s\S]*?)<\/style>/.exec(html)?.[1] ?? '';
    const digest = Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(style))).toString('base64');
    expect(response.headers.get('content-security-policy')).toContain(`'sha256-${digest}'`);
    expect(html).toContain('docker pull <b>hub.cr.example.com</b>/alpine');
  });
});

describe('a client’s configuration', () => {
  test.each(CLIENT_KINDS)('%s: as text, with the gateway’s own address', async (kind) => {
    const { response, context } = await ask(`/client/${kind}`);
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/plain; charset=utf-8']);
    expect(await response.text()).toContain('cr.example.com');
    expect(context).toMatchObject({ kind: 'page', status: 200 });
  });

  test('of no client that there is: 404, naming those that there are', async () => {
    const { response } = await ask('/client/docker2');
    expect([response.status, await response.text()]).toEqual([404, expect.stringContaining(CLIENT_KINDS.join(', '))]);
  });

  test('only for those who may pull, and with where to put their credentials', async () => {
    access = { ...openAccess, check: () => ({ client: 'user:ci', user: 'ci', authenticated: true }) };
    onTestFinished(() => {
      access = openAccess;
    });
    expect(await (await ask('/client/docker')).response.text()).toContain('asks for credentials');
    access = {
      ...openAccess,
      check: (): never => {
        throw new RegistryError('unauthorized', { facts: { host: 'cr.example.com' } });
      },
    };
    const { response } = await ask('/client/docker');
    expect(response.status).toBe(401);
    expect(await response.text()).not.toMatch(/quay\.io/);
  });
});

test('what nothing is at is told in the form of the API', async () => {
  const { response } = await ask('/nothing');
  expect(response.status).toBe(404);
  expect(response.headers.get('content-type')).toBe('application/json');
  expect(await response.json()).toMatchObject({ errors: [{ code: 'NAME_UNKNOWN' }] });
});
