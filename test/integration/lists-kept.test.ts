import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

// Lists of a registry that has gone, from the running program, after a start of its own.

let gateway: TestGateway;
let registry: FakeRegistry;
beforeAll(async () => {
  registry = await FakeRegistry.start({ pageSize: 2 });
  const config = { domain: 'cr.test', tls: { mode: 'off' }, listen: { https: 'off' } };
  gateway = await startGateway({ config });
  await gateway.ok('alias', 'add', 'r', 'r.test', '--endpoint', registry.url, '--no-cert');
}, 60_000);
afterAll(async () => {
  await gateway.close();
  await registry.close();
});

async function ask(host: string, path: string) {
  const [answer] = (await once(
    get({ port: gateway.httpPort, host: '127.0.0.1', path, headers: { host } }),
    'response',
  )) as [IncomingMessage];
  return { status: answer.statusCode, headers: answer.headers, body: (await json(answer)) as Record<string, unknown> };
}

test('are served after a start to all three ways, though only one of them had asked', async () => {
  const repository = registry.repository('org/app');
  const image = repository.addImage('1', ['one']);
  for (const tag of ['2', '3']) repository.addImage(tag, [tag]);
  const sbom = repository.addImage(undefined, ['sbom'], { subject: image, artifactType: 'x/sbom' });
  const lists = [
    'tags/list',
    'tags/list?n=1',
    `referrers/${image.digest}`,
    `referrers/${image.digest}?artifactType=x%2Fsbom`,
  ];
  for (const list of lists) expect((await ask('cr.test', `/v2/r.test/org/app/${list}`)).status).toBe(200);
  await gateway.kill();
  await registry.close();
  await gateway.start();
  const ways = [
    { host: 'cr.test', base: '/v2/r.test/', ns: '', name: 'r.test/org/app' },
    { host: 'cr.test', base: '/r.test/v2/', ns: '', name: 'org/app' },
    { host: 'cr.test', base: '/v2/', ns: 'ns=r.test', name: 'org/app' },
    { host: 'r.cr.test', base: '/v2/', ns: '', name: 'org/app' },
  ];
  for (const { host, base, ns, name } of ways) {
    for (const list of lists) {
      const { status, headers, body } = await ask(
        host,
        `${base}org/app/${list}${ns && (list.includes('?') ? `&${ns}` : `?${ns}`)}`,
      );
      expect([host, base, list, status]).toEqual([host, base, list, 200]);
      expect([headers['x-cache'], headers.warning]).toEqual(['STALE', expect.stringMatching(/^299 - "r\.test /)]);
      if (list.startsWith('tags')) {
        expect(body).toEqual({ name, tags: list.includes('n=1') ? ['1'] : ['1', '2'] });
        expect(headers.link).toContain(`<${base}org/app/tags/list?`);
        expect(headers.link?.includes('ns=r.test')).toBe(ns !== '');
      } else expect(body).toMatchObject({ manifests: [{ digest: sbom.digest }] });
    }
  }
  expect((await ask('r.cr.test', '/v2/org/app/tags/list?n=7')).status).toBe(502);
}, 60_000);
