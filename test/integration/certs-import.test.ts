import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AcmeGateway, DOMAIN, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { eventually } from '../support/eventually.ts';
import { allServe, PROCESSES } from '../support/every-process.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { send } from '../support/http-client.ts';
import { meet } from '../support/tls-client.ts';

const HOST = `hub.${DOMAIN}`;
/** Clients at once; the kernel gives their connections to all processes. */
const CLIENTS = 12;

let ca: FakeCa;
/** Of the operator's own certificates. */
let other: FakeCa;
let gateway: AcmeGateway;
showLogOfFailures(() => gateway);

beforeAll(async () => {
  const ports = await listenerPorts();
  ca = await new FakeCa({ ports }).start();
  other = await new FakeCa({ ports }).start();
  gateway = await prepareAcmeGateway({ issuers: [ca], ports, workers: PROCESSES });
  await gateway.start();
  await gateway.valid(1);
  await allServe(gateway);
});
afterAll(async () => {
  await gateway?.close();
  await Promise.all([ca?.stop(), other?.stop()]);
});

/** The files of a certificate, with or without the chain behind it. */
function files(name: string, chain = true): [string, string] {
  const { certificate, key } = other.issue(name);
  const [crt, pem] = ['own.crt', 'own.key'].map((file) => join(gateway.dataDir, '..', file)) as [string, string];
  const leaf = /-----BEGIN[\s\S]*?-----END CERTIFICATE-----\n/.exec(certificate)?.[0] ?? '';
  writeFileSync(crt, chain ? certificate : leaf);
  writeFileSync(pem, key);
  return [crt, pem];
}

const issuerOf = async (host: string): Promise<string> =>
  (await meet({ port: gateway.httpsPort, host, ca: ca.root + other.root })).certificate.issuer;

test('an import says what it takes over before it does; what clients cannot verify is refused', async () => {
  await gateway.ok('alias', 'add', 'hub', 'hub.example.com');
  const refused = await gateway.cli(['cert', 'import', ...files(`*.${DOMAIN}`, false)]);
  expect(refused.code).toBe(1);
  expect(refused.stdout).toMatch(/^names .*\*\.gw\.test$/m);
  expect(refused.stdout).toMatch(/^trust .*clients would refuse it$/m);
  expect(refused.stderr).toContain('--force');
  const took = await gateway.ok('cert', 'import', ...files(`*.${DOMAIN}`));
  expect(took).toMatch(/^issuer .*Fake CA .*, valid from .* until /m);
  expect(took).toMatch(/^trust .*leads to an authority/m);
  expect(took).toMatch(new RegExp(`^hosts .*takes over .*${HOST} \\(now of Fake CA`, 'm'));
  expect(await issuerOf(HOST)).toContain((await gateway.certificate(HOST)).issuer);
});

test('every process answers an unknown name below the domain of a wildcard with 404', async () => {
  const host = `nothing.${DOMAIN}`;
  const answers = await Promise.all(
    Array.from({ length: CLIENTS }, () =>
      send({
        port: gateway.httpsPort,
        servername: host,
        path: '/v2/',
        headers: { host },
        ca: other.root,
        agent: false,
      }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 404));
  // Two labels below it no wildcard reaches.
  await expect(meet({ port: gateway.httpsPort, host: `a.b.${DOMAIN}` })).rejects.toThrow(/unrecognized name/i);
});

test('`cert rm` gives the hosts back to the CA, and none is without a certificate meanwhile', async () => {
  await gateway.ok('alias', 'add', 'late', 'late.example.com');
  const late = `late.${DOMAIN}`;
  expect(ca.orders.some(({ host }) => host === late)).toBe(false);
  // Not before the removal has been answered does the CA look.
  const { promise: removed, resolve } = Promise.withResolvers<void>();
  ca.options.beforeLook = () => removed;
  const said = await gateway.ok('cert', 'rm', late);
  expect(said).toContain(late);
  const during = await Promise.all(Array.from({ length: CLIENTS }, () => issuerOf(late)));
  expect(new Set(during).size).toBe(1);
  resolve();
  await eventually('the CA to have issued for it', async () => ca.orders.some(({ host }) => host === late));
  const issuer = ca.issued[0]?.issuer ?? '';
  await eventually('its own certificate to be shown', async () => (await issuerOf(late)) === issuer);
  expect(await issuerOf(HOST)).toBe(issuer);
  const again = await gateway.cli(['cert', 'rm', late]);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain('no imported certificate covers');
});

test('an unknown host is explained by exit 1, and there is nothing of it to remove', async () => {
  const unknown = await gateway.cli(['cert', 'explain', 'elsewhere.example.org']);
  expect(unknown.code).toBe(1);
  expect(unknown.stderr).toContain('elsewhere.example.org');
  const removed = await gateway.cli(['cert', 'rm', 'elsewhere.example.org']);
  expect([removed.code, removed.stderr]).toEqual([1, expect.stringContaining('gateway cert ls lists')]);
});
