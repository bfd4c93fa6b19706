import { describe, expect, onTestFinished, test } from 'vitest';
import { createApp } from '../../../src/edge/app.ts';
import type { RequestContext } from '../../../src/edge/request-context.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { Metrics } from '../../../src/telemetry/metrics.ts';
import { openAccess, snapshotOf } from '../../support/edge-bed.ts';

const table = snapshotOf('cr.example.com', ['docker.io', 'quay.io'], { hub: 'docker.io', '<b>x': 'quay.io' });
let state: true | string = true;
let access = openAccess;
const app = createApp({
  table: () => table,
  access: { check: (request) => access.check(request), quota: null },
  certificates: null,
  rootFile: null,
  ready: () => state,
  metrics: new Metrics(),
  version: '1.2.3',
  port: () => 443,
  log: silentLog(),
});

/** Asks with what the dispatcher knows of a request before Hono sees it. */
async function ask(path: string, host = 'cr.example.com'): Promise<{ response: Response; context: RequestContext }> {
  const facts = { id: 'id-1', service: 'registry', method: 'GET', host, path, query: '', kind: 'other' };
  const context = facts as unknown as RequestContext;
  return { response: await app.request(path, {}, { context }), context };
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

  test('its style is the one that its policy lets through', async () => {
    const { response } = await ask('/', 'hub.cr.example.com');
    const html = await response.text();
    const style = /<style>([\s\S]*?)<\/style>/.exec(html)?.[1] ?? '';
    const digest = Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(style))).toString('base64');
    expect(response.headers.get('content-security-policy')).toContain(`'sha256-${digest}'`);
    expect(html).toContain('docker pull <b>hub.cr.example.com</b>/alpine');
  });
});

test('what nothing is at is told in the form of the API', async () => {
  const { response } = await ask('/nothing');
  expect(response.status).toBe(404);
  expect(response.headers.get('content-type')).toBe('application/json');
  expect(await response.json()).toMatchObject({ errors: [{ code: 'NAME_UNKNOWN' }] });
});
