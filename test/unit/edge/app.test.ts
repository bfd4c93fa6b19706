import { describe, expect, onTestFinished, test } from 'vitest';
import { isUnlisted } from '../../../src/aliases/discretion.ts';
import { CLIENT_KINDS, type PublicAddress } from '../../../src/clients/facts.ts';
import { createApp } from '../../../src/edge/app.ts';
import type { RequestContext } from '../../../src/edge/request-context.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { openAccess, snapshotOf } from '../../support/edge-bed.ts';

const table = snapshotOf('cr.example.com', ['docker.io', 'quay.io', 'ghcr.io'], {
  hub: 'docker.io',
  '<b>x': 'quay.io',
});
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
  outlines: () =>
    [...table.registries.values()].map((entry) => ({
      host: entry.host,
      wellbeing: 'well',
      unlisted: isUnlisted(entry),
    })),
  clientFacts: async (credentials) => ({
    ...address,
    ca: null,
    patterns: [],
    ownNames: [],
    registries: [...table.registries.keys()],
    aliases: [...table.hosts.values()],
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
  const page = async (path = '/', host = 'cr.example.com', headers: Record<string, string> = {}) =>
    (await ask(path, host, headers)).response.text();
  const pasted = (text: string) => page(`/?image=${encodeURIComponent(text)}`);

  test('is whole in itself, and escapes names', async () => {
    const html = await page();
    expect(html).toContain('<code>hub.cr.example.com</code>');
    expect(html).toContain('&lt;b&gt;x.cr.example.com');
    expect(html).not.toContain('<b>x');
    expect(html).not.toContain(':443/');
  });

  test('says how clients reach the gateway, by whatever scheme and port that is', async () => {
    address = { domain: '10.0.0.1', scheme: 'http', port: 8080 };
    onTestFinished(() => {
      address = ADDRESS;
    });
    expect(await pasted('ghcr.io/org/app:1')).toContain('docker pull 10.0.0.1:8080/ghcr.io/org/app:1');
    const html = await page('/', 'hub.cr.example.com');
    expect(html).toContain('<h1>hub.cr.example.com:8080</h1>');
    expect(html).toContain('href="http://10.0.0.1:8080/"');
    expect(html).not.toContain('https://');
  });

  test('writes what was pasted for every client', async () => {
    const html = await pasted('docker pull --platform linux/arm64 ghcr.io/org/app:1');
    for (const line of [
      'docker pull cr.example.com/ghcr.io/org/app:1',
      'image: cr.example.com/ghcr.io/org/app:1',
      'FROM cr.example.com/ghcr.io/org/app:1',
      'nerdctl pull cr.example.com/ghcr.io/org/app:1',
      'ctr images pull cr.example.com/ghcr.io/org/app:1',
      'crictl pull cr.example.com/ghcr.io/org/app:1',
      'podman pull cr.example.com/ghcr.io/org/app:1',
      'k3s crictl pull cr.example.com/ghcr.io/org/app:1',
      'helm pull oci://cr.example.com/ghcr.io/org/app --version 1',
    ])
      expect(html).toContain(`<code>${line}</code>`);
    expect(await pasted('helm install x oci://ghcr.io/charts/y --version 1')).toContain(
      'helm pull oci://cr.example.com/ghcr.io/charts/y',
    );
    expect(await pasted('alpine')).toContain('ctr images pull hub.cr.example.com/library/alpine:latest');
  });

  test.each([
    ['docker push quay.io/a/b', 'only serves pulls'],
    ['quya.io/a/b', 'gateway alias add NAME quya.io'],
    ['quya.io/a/b', `href="/?image=${encodeURIComponent('quay.io/a/b')}"`],
    ['scratch', 'empty image'],
    ['Alpine Linux!', 'no image’s name'],
    ['cr.example.com/quay.io/a/b', 'already'],
    ['docker pull', 'No image’s name was found'],
    ['x'.repeat(5_000), 'more than this page reads'],
  ])('explains %.40s', async (text, said) => {
    expect(await pasted(text)).toContain(said);
  });

  test('takes nothing that could act in a browser or a shell', async () => {
    const attack = '"><script>alert(1)</script><img src=x onerror=alert(1)>';
    for (const html of [
      await pasted(attack),
      await page(`/?lang=${attack}&image=${encodeURIComponent(`nginx:${attack}`)}`),
    ]) {
      expect(html.match(/<script\b/g)).toHaveLength(1);
      expect(html).not.toContain('<img');
    }
    for (const tag of ['$(id)', '`id`', '1;id', "'", '$IFS', '1\nid']) {
      expect(await pasted(`nginx:${tag}`)).not.toMatch(/<code>docker pull [^<]*[$`;'&]/);
    }
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
      expect(html).toContain('href="/login"');
      expect(html).not.toMatch(/quay\.io|docker pull /);
    }
    expect(await page()).not.toContain('hub');
  });

  test('is in the language that the browser prefers, or that was chosen', async () => {
    const shown = async (path: string, accept: string) =>
      (await page(path, 'cr.example.com', { 'accept-language': accept })).match(/lang="(.*?)"/)?.[1];
    expect(await shown('/', 'zh-CN,zh;q=0.9,en;q=0.8')).toBe('zh-CN');
    expect(await shown('/', 'en-GB,en;q=0.9,zh;q=0.8')).toBe('en');
    expect(await shown('/', 'de')).toBe('en');
    expect(await shown('/', 'zh;q=0')).toBe('en');
    expect(await shown('/?lang=zh', 'en')).toBe('zh-CN');
    expect(await shown('/?lang=en', 'zh')).toBe('en');
    const { response } = await ask('/', 'cr.example.com', { 'accept-language': 'zh' });
    expect(response.headers.get('content-language')).toBe('zh-CN');
    expect(response.headers.get('vary')).toContain('Accept-Language');
    expect(await page('/?image=alpine&lang=zh')).toContain('href="/?lang=en&amp;image=alpine"');
  });

  test.each(['en', 'zh'])('leads in %s to every configuration, and to its script', async (lang) => {
    const html = await page(`/?lang=${lang}`);
    for (const kind of CLIENT_KINDS) {
      expect(html).toContain(`href="/client/${kind}"`);
      expect(html).toContain(`href="/client/${kind}.sh"`);
    }
  });

  test('is not sent again to a browser that has it', async () => {
    const { response } = await ask('/');
    const etag = response.headers.get('etag') ?? '';
    const again = (await ask('/', 'cr.example.com', { 'if-none-match': `"other", W/${etag}` })).response;
    expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', etag]);
    expect((await ask('/?lang=zh', 'cr.example.com', { 'if-none-match': etag })).response.status).toBe(200);
  });

  test('its style and its script are those that its policy lets through', async () => {
    const { response } = await ask('/', 'hub.cr.example.com');
    const html = await response.text();
    const style = /<style>([\s\S]*?)<\/style>/.exec(html)?.[1] ?? '';
    const digest = Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(style))).toString('base64');
    const policy = response.headers.get('content-security-policy');
    expect(policy).toContain(`default-src 'none'; style-src 'sha256-${digest}'; script-src 'self'`);
    const script = (await ask(/src="(.*?)"/.exec(html)?.[1] ?? '')).response;
    expect([script.status, script.headers.get('content-type')]).toEqual([200, 'text/javascript; charset=utf-8']);
    expect(script.headers.get('cache-control')).toContain('immutable');
    expect(html).toContain('stands for <b>docker.io</b>');
  });
});

describe('a client’s configuration', () => {
  test.each(CLIENT_KINDS)('%s: as text, with the gateway’s own address', async (kind) => {
    const { response, context } = await ask(`/client/${kind}`);
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'text/plain; charset=utf-8']);
    expect(await response.text()).toContain('cr.example.com');
    expect(context).toMatchObject({ kind: 'page', status: 200 });
  });

  test.each(CLIENT_KINDS)('%s: as a script', async (kind) => {
    for (const path of [`/client/${kind}.sh`, `/client/${kind}?script`]) {
      const { response } = await ask(path);
      expect([response.status, response.headers.get('content-type')]).toEqual([
        200,
        'text/x-shellscript; charset=utf-8',
      ]);
      expect(await response.text()).toMatch(/^#!\/bin\/sh\n[\s\S]*\nmain "\$@"\nexit\n\}\n$/);
    }
  });

  test('of no client that there is: 404, naming those that there are', async () => {
    for (const path of ['/client/docker2', '/client/docker2.sh']) {
      const { response } = await ask(path);
      const text = await response.text();
      expect([response.status, text]).toEqual([404, expect.stringContaining(CLIENT_KINDS.join(', '))]);
      expect(text).toContain('did you mean docker?');
      // A shell that is given it does nothing.
      expect(text).toMatch(/^(?:# .*\n)+$/);
    }
  });

  test('only for those who may pull, and with where to put their credentials', async () => {
    access = { ...openAccess, check: () => ({ client: 'user:ci', user: 'ci', authenticated: true, known: true }) };
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
