import { afterAll, beforeAll, expect, test } from 'vitest';
import { FakeCa } from '../support/fake-ca/index.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';

// `alias add` and what a CA may say to it, on a gateway that runs.

const DOMAIN = 'cr.example.com';
const DETAIL = 'The ACME server refuses to issue a certificate for this domain name, because it is forbidden by policy';

let gateway: TestGateway;
let ca: FakeCa;
showLogOfFailures(() => gateway);

beforeAll(async () => {
  gateway = await prepareGateway({ config: { domain: DOMAIN, tls: { mode: 'acme' } } });
  ca = await new FakeCa({ ports: { http: gateway.httpPort, tls: gateway.httpsPort } }).start();
  gateway.configure({ acme: { issuers: [{ directory: ca.directory }], selfCheck: false } });
  // Names lead nowhere here: this CA validates on loopback whatever they are.
  await gateway.start();
});

afterAll(async () => {
  await gateway.close();
  await ca.stop();
});

const fault = { status: 403, type: 'rejectedIdentifier', detail: DETAIL } as const;

test('a refusal is told word for word, with what to do and when it is tried again; the alias stays, pending', async () => {
  ca.faults.push({ at: 'newOrder', host: `refused.${DOMAIN}`, how: fault });
  const added = await gateway.cli(['alias', 'add', 'refused', 'quay.io']);
  expect(added.code).toBe(1);
  expect(added.stdout).toContain(`refused (refused.${DOMAIN}) stands for quay.io`);
  expect(added.stderr).toContain('urn:ietf:params:acme:error:rejectedIdentifier');
  expect(added.stderr).toContain(DETAIL);
  expect(added.stderr).toMatch(/tries again at 20\d\d-/);
  expect(added.stderr).toMatch(/\n {2}\S/);

  const shown = JSON.parse(await gateway.ok('alias', 'show', 'refused', '--json'));
  expect(shown.certificate).toEqual({ state: 'pending', notAfter: null });
  const certificate = JSON.parse(await gateway.ok('cert', 'show', 'refused', '--json'));
  expect(certificate).toMatchObject({
    host: `refused.${DOMAIN}`,
    state: 'pending',
    lastError: { type: 'urn:ietf:params:acme:error:rejectedIdentifier', detail: DETAIL },
  });
  expect(Date.parse(certificate.nextAttempt)).toBeGreaterThan(Date.parse(certificate.lastError.at));
  expect(await gateway.ok('cert', 'explain', 'refused')).toContain(DETAIL);
});

test('once the CA has changed its mind, cert renew obtains it at once', async () => {
  ca.faults.length = 0;
  const renewed = await gateway.cli(['cert', 'renew', 'refused']);
  expect(renewed.code, renewed.stderr).toBe(0);
  for (const step of ['order', 'challenge', 'validate', 'finalise', 'in use', 'served']) {
    expect(renewed.stdout).toMatch(new RegExp(`^${step} `, 'm'));
  }
  expect(JSON.parse(await gateway.ok('alias', 'show', 'refused', '--json')).certificate.state).toBe('valid');
});

test('of several hosts, one that is refused keeps no other from its certificate', async () => {
  await gateway.ok('alias', 'add', 'good', 'quay.io');
  const before = JSON.parse(await gateway.ok('cert', 'show', 'good', '--json')).serial;
  ca.faults.push({ at: 'newOrder', host: `refused.${DOMAIN}`, how: fault });
  const renewed = await gateway.cli(['cert', 'renew', 'refused', 'good']);
  ca.faults.length = 0;
  expect(renewed.code).toBe(1);
  expect(renewed.stderr).toContain(`1 of 2 certificates were not renewed: refused.${DOMAIN}`);
  expect(JSON.parse(await gateway.ok('cert', 'show', 'good', '--json')).serial).not.toBe(before);
});

test('whoever presses Ctrl-C while the CA hangs is let go, and the gateway goes on', async () => {
  ca.faults.push({ at: 'newOrder', host: `slow.${DOMAIN}`, how: 'hang' });
  const controller = new AbortController();
  const { run } = await import('../../src/cli/run.ts');
  const { PassThrough, Readable } = await import('node:stream');
  const stdout = new PassThrough();
  const ended = run({
    argv: ['--config', gateway.configFile, 'alias', 'add', 'slow', 'quay.io', '--no-check'],
    stdout,
    stderr: new PassThrough(),
    stdin: Readable.from([]),
    env: {},
    cwd: gateway.dataDir,
    signal: controller.signal,
  });
  let said = '';
  for await (const chunk of stdout) {
    said += String(chunk);
    if (/^resolve/m.test(said)) break;
  }
  controller.abort();
  expect(await ended).toBe(1);
  ca.faults.length = 0;
  expect(await gateway.ok('status')).toContain('runs as process');
});

test('a CA that is down is said to be so, and the alias waits', async () => {
  await ca.stop();
  const added = await gateway.cli(['alias', 'add', 'unlucky', 'quay.io']);
  expect(added.code).toBe(1);
  expect(added.stderr).toMatch(/tries again at 20\d\d-/);
  expect(JSON.parse(await gateway.ok('alias', 'show', 'unlucky', '--json')).certificate.state).toBe('pending');
});
