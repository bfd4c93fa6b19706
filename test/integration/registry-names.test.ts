import { request } from 'node:http';
import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

// One registry, by whichever name a client or an operator calls it, on the running program.

let gateway: TestGateway;
let hub: FakeRegistry;
let quay: FakeRegistry;

beforeAll(async () => {
  [hub, quay] = await Promise.all([FakeRegistry.start(), FakeRegistry.start()]);
  gateway = await startGateway({
    config: { domain: 'cr.test', publicUrl: 'https://pull.test:9443', tls: { mode: 'off' }, listen: { https: 'off' } },
  });
  await gateway.ok('registry', 'set', 'registry-1.docker.io', '--endpoint', hub.url);
  await gateway.ok('registry', 'set', 'quay.io', '--endpoint', quay.url);
}, 60_000);
afterAll(() => Promise.all([gateway.close(), hub.close(), quay.close()]));

async function digestAt(path: string): Promise<string | null> {
  const answer = await fetch(`http://127.0.0.1:${gateway.httpPort}${path}`);
  await answer.arrayBuffer();
  return answer.status === 200 ? answer.headers.get('docker-content-digest') : String(answer.status);
}

test('Docker Hub by its names: in a path before and behind /v2/, in ns, and in commands', async () => {
  const { digest } = hub.repository('org/app').addImage('1', ['x']);
  for (const name of ['docker.io', 'registry-1.docker.io', 'index.docker.io', 'registry.hub.docker.com']) {
    expect(await digestAt(`/v2/${name}/org/app/manifests/1`)).toBe(digest);
    expect(await digestAt(`/${name}/v2/org/app/manifests/1`)).toBe(digest);
    expect(await digestAt(`/v2/${name}/v2/org/app/manifests/1?ns=${name}`)).toBe(digest);
    expect(await digestAt(`/v2/org/app/manifests/1?ns=${name}`)).toBe(digest);
    expect(await gateway.ok('registry', 'show', name)).toContain(hub.url);
  }
  // One registry keeps one image once.
  expect(hub.log.of({ kind: 'manifest', method: 'GET' })).toHaveLength(1);
});

test('names of the gateway itself in ns: an alias host is its registry, the domain none', async () => {
  const ofQuay = quay.repository('org/app').addImage('2', ['y']).digest;
  const ofHub = hub.repository('org/app').addImage('2', ['z']).digest;
  expect(await digestAt('/v2/org/app/manifests/2?ns=quay.cr.test')).toBe(ofQuay);
  expect(await digestAt('/v2/org/app/manifests/2?ns=quay.cr.test:8443')).toBe(ofQuay);
  expect(await digestAt('/v2/org/app/manifests/2?ns=cr.test')).toBe(ofHub);
  expect(await digestAt(`/v2/org/app/manifests/2?ns=127.0.0.1:${gateway.httpPort}`)).toBe(ofHub);
  expect(await digestAt('/v2/org/app/manifests/2?ns=localhost:5000')).toBe('403');
});

/** What is asked of a host by its name. */
function ask(
  host: string,
  path: string,
  port = gateway.httpPort,
): Promise<{ status: number | undefined; body: unknown }> {
  return new Promise((resolve, reject) => {
    request({ port, host: '127.0.0.1', path, agent: false, headers: { host } }, async (answer) => {
      resolve({ status: answer.statusCode, body: await json(answer) });
    })
      .on('error', reject)
      .end();
  });
}

test('the host of publicUrl is the gateway, too', async () => {
  const { digest } = hub.repository('org/app').addImage('3', ['public']);
  for (const host of ['pull.test', 'pull.test:9443', 'Pull.test.']) {
    expect(await ask(host, '/v2/')).toEqual({ status: 200, body: {} });
    expect((await ask(host, '/v2/docker.io/org/app/manifests/3')).status).toBe(200);
  }
  expect(await digestAt('/v2/org/app/manifests/3?ns=pull.test:9443')).toBe(digest);
  expect((await ask('other.test', '/v2/')).status).toBe(404);
  const refused = await gateway.cli(['registry', 'set', 'r.test', '--endpoint', 'https://pull.test:9443']);
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('this gateway itself')]);
});

test('a name with the dot that ends it, or with the port of HTTPS', async () => {
  const { digest } = quay.repository('org/app').addImage('4', ['dots']);
  for (const name of ['quay.io.', 'Quay.io.:443', 'quay.io:443', 'quay.cr.test.']) {
    expect(await digestAt(`/v2/${name}/org/app/manifests/4`)).toBe(digest);
    expect(await digestAt(`/${name}/v2/org/app/manifests/4`)).toBe(digest);
    expect(await digestAt(`/v2/org/app/manifests/4?ns=${name}`)).toBe(digest);
    expect(await digestAt(`/v2/${name}/v2/`)).toBe(null);
  }
  expect(await digestAt('/v2/quay.io../org/app/manifests/4')).toBe('400');
  expect(await digestAt('/v2/org/app/manifests/4?ns=https://quay.io')).toBe('400');
});

test('no advice would make a loop, or add a web site', async () => {
  for (const name of ['none.cr.test', 'cr.test', 'cr.test:8443', 'pull.test', 'hub.docker.com']) {
    const answer = await fetch(`http://127.0.0.1:${gateway.httpPort}/v2/${name}/org/app/manifests/1`);
    expect([403, 404, 508]).toContain(answer.status);
    expect(await answer.text()).not.toContain('alias add');
  }
});

test('a tag that cannot exist is not there', async () => {
  for (const tag of ['.INVALID_MANIFEST_NAME', 'x'.repeat(129), 'a%20b']) {
    expect(await digestAt(`/v2/quay.io/org/app/manifests/${tag}`)).toBe('404');
  }
  expect(await digestAt('/v2/quay.io/org/app/manifests/sha256:12')).toBe('400');
  expect(quay.log.of({ kind: 'manifest' }).every(({ reference }) => ['2', '4'].includes(String(reference)))).toBe(true);
});

test('under a domain that is an address no label is told or answered, by any process', async () => {
  const address = await startGateway({
    config: { domain: '127.0.0.1', tls: { mode: 'off' }, listen: { https: 'off', workers: 2 } },
  });
  try {
    await address.ok('alias', 'add', 'hub.corp.example', 'docker.io');
    const at = `http://127.0.0.1:${address.httpPort}`;
    const texts = [
      await address.ok('client', 'buildkit'),
      await (await fetch(`${at}/client/buildkit`)).text(),
      await (await fetch(at)).text(),
    ];
    for (const text of texts) {
      expect(text).toContain('hub.corp.example');
      expect(text).not.toContain('quay.127.0.0.1');
    }
    for (let connection = 0; connection < 8; connection++) {
      expect((await ask('quay.127.0.0.1', '/v2/', address.httpPort)).status).toBe(404);
      expect((await ask('hub.corp.example', '/v2/', address.httpPort)).status).toBe(200);
    }
  } finally {
    await address.close();
  }
}, 60_000);
