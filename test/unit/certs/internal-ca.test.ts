import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { materialOf } from '../../../src/certs/contexts.ts';
import { InternalCertificates } from '../../../src/certs/internal-certificates.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryCertStore } from '../../support/cert-store.ts';
import { makeTestCa } from '../../support/test-ca.ts';

const DAY = 24 * 3_600_000;
let dataDir: string;
let clock: number;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'internal-ca-'));
  clock = Date.now();
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

function open(domain = 'localhost') {
  return InternalCertificates.open({
    domain,
    dataDir,
    store: new MemoryCertStore(),
    log: silentLog(),
    now: () => clock,
  });
}

async function handshake(
  service: InternalCertificates,
  servername: string | undefined,
  ca: string,
  minVersion?: 'TLSv1.3',
) {
  const server = createServer({
    SNICallback: (name, done) => done(null, service.contexts().byHost.get(name)),
  });
  server.setSecureContext({
    cert: service.exportCertificate('localhost').certificate,
    key: service.exportCertificate('localhost').key,
  });
  server.on('tlsClientError', () => {});
  server.on('secureConnection', (socket: TLSSocket) => socket.end('hello'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    const socket = connect({
      host: '127.0.0.1',
      port,
      ca,
      ...(servername === undefined ? {} : { servername }),
      ...(minVersion ? { minVersion } : { maxVersion: 'TLSv1.2' }),
    });
    await once(socket, 'secureConnect');
    const certificate = socket.getPeerX509Certificate();
    socket.destroy();
    return certificate;
  } finally {
    server.close();
  }
}

it('serves every host of the table at once, verified by ca.crt under TLS 1.2 and 1.3', async () => {
  const service = await open();
  await service.start([{ host: 'k8s-gcr.localhost', order: true }]);
  const ca = readFileSync(join(dataDir, 'ca.crt'), 'utf8');
  for (const version of [undefined, 'TLSv1.3'] as const) {
    const certificate = await handshake(service, 'k8s-gcr.localhost', ca, version);
    expect(certificate?.subjectAltName).toBe('DNS:k8s-gcr.localhost');
    expect(await handshake(service, undefined, ca, version)).toBeDefined();
  }
  service.cover([{ host: 'later.localhost', order: true }]);
  expect((await handshake(service, 'later.localhost', ca))?.subjectAltName).toBe('DNS:later.localhost');
  expect(service.contexts().byHost.get('k8s-gcr.localhost')).toBeUndefined();
});

it('keeps the CA over restarts, its key closed to others', async () => {
  const first = await open();
  expect(statSync(join(dataDir, 'ca-key.pem')).mode & 0o777).toBe(0o600);
  expect(first.root().pem).toBe(readFileSync(join(dataDir, 'ca.crt'), 'utf8'));
  expect((await open()).root()).toEqual(first.root());
});

it('goes on with a key under the name that versions before gave it', async () => {
  const first = await open();
  renameSync(join(dataDir, 'ca-key.pem'), join(dataDir, 'ca.key'));
  expect((await open()).root()).toEqual(first.root());
  expect(existsSync(join(dataDir, 'ca.key'))).toBe(false);
});

it('signs the root anew with the same key where a kill left the key alone', async () => {
  const first = await open();
  rmSync(join(dataDir, 'ca.crt'));
  const second = new X509Certificate((await open()).root().pem);
  expect(second.publicKey.equals(new X509Certificate(first.root().pem).publicKey)).toBe(true);
});

it('refuses to start with a root that belongs to another key', async () => {
  await open();
  const other = mkdtempSync(join(tmpdir(), 'internal-ca-'));
  await InternalCertificates.open({
    domain: 'localhost',
    dataDir: other,
    store: new MemoryCertStore(),
    log: silentLog(),
  });
  rmSync(join(dataDir, 'ca.crt'));
  rmSync(join(dataDir, 'ca-key.pem'));
  await open();
  copyFileSync(join(other, 'ca.crt'), join(dataDir, 'ca.crt'));
  rmSync(other, { recursive: true });
  await expect(open()).rejects.toThrow(/does not belong to/);
});

it('makes leaves as every client accepts them, and another before they run out', async () => {
  const service = await open('gateway.test');
  service.cover([{ host: 'hub.gateway.test', order: true }]);
  const root = new X509Certificate(service.root().pem);
  const leaf = () => new X509Certificate(service.exportCertificate('hub.gateway.test').certificate);
  const first = leaf();
  expect(first.verify(root.publicKey)).toBe(true);
  expect(first.checkIssued(root)).toBe(true);
  expect(root.ca).toBe(true);
  expect(first.ca).toBe(false);
  expect(first.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
  const days = (first.validToDate.getTime() - first.validFromDate.getTime()) / DAY;
  expect(days).toBeLessThan(825);
  clock += 50 * DAY;
  expect(leaf().serialNumber).toBe(first.serialNumber);
  clock += 30 * DAY;
  expect(leaf().serialNumber).not.toBe(first.serialNumber);
  expect(service.info('gateway.test')?.state).toBe('valid');
  const own = new X509Certificate(service.exportCertificate('gateway.test').certificate);
  expect(own.checkHost('localhost')).toBe('localhost');
  expect(own.checkIP('127.0.0.1')).toBe('127.0.0.1');
  expect(own.checkIP('::1')).toBe('::1');
});

it('never signs a leaf that outlasts the root', async () => {
  await open();
  clock += 3649 * DAY;
  const service = await open();
  service.cover([{ host: 'a.localhost', order: true }]);
  expect(Date.parse(service.info('a.localhost')?.notAfter ?? '')).toBeLessThanOrEqual(
    new X509Certificate(service.root().pem).validToDate.getTime(),
  );
});

it('serves one ready context until its leaf is due, then another, within one snapshot', async () => {
  const service = await open('gateway.test');
  service.cover([{ host: 'hub.gateway.test', order: true }]);
  const snapshot = service.contexts();
  const ready = () => [snapshot.byHost.get('hub.gateway.test'), snapshot.fallback];
  const [leaf, own] = ready();
  expect(leaf).toBeDefined();
  expect(own).not.toBe(leaf);
  clock += 50 * DAY;
  expect(ready()[0]).toBe(leaf);
  expect(ready()[1]).toBe(own);
  clock += 30 * DAY;
  const [laterLeaf, laterOwn] = ready();
  expect(laterLeaf).not.toBe(leaf);
  expect(laterOwn).not.toBe(own);
  expect(ready()[0]).toBe(laterLeaf);
  clock -= 81 * DAY;
  expect(ready()[0]).not.toBe(laterLeaf);
  expect(service.contexts()).toBe(snapshot);
});

it('serves an imported certificate until it runs out, and then one of its own', async () => {
  const service = await open('gateway.test');
  service.cover([{ host: 'hub.gateway.test', order: true }]);
  const served = () => {
    const context = service.contexts().byHost.get('hub.gateway.test');
    return context === undefined ? undefined : materialOf(context)?.chain;
  };
  const before = served();
  expect(before).toBeDefined();
  const { cert, key } = makeTestCa().issue(['hub.gateway.test']);
  await service.importCertificate(cert, key);
  const imported = served();
  expect(imported).not.toBe(before);
  clock += 0.9 * DAY;
  expect(served()).toBe(imported);
  clock += 0.2 * DAY;
  expect(served()).toBe(before);
  clock -= 0.2 * DAY;
  expect(served()).toBe(imported);
});

it('has the imported wildcard for names below its domain that are no host, until it runs out', async () => {
  const service = await open('gateway.test');
  service.cover([{ host: 'hub.gateway.test', order: true }]);
  const wildcard = () => {
    const { wildcards, wildcard: of } = service.contexts();
    const context = of?.('gateway.test') ?? null;
    return { domains: [...(wildcards ?? [])], chain: context === null ? null : materialOf(context)?.chain };
  };
  expect(wildcard()).toEqual({ domains: [], chain: null });
  const { cert, key } = makeTestCa().issue(['*.gateway.test', 'gateway.test']);
  await service.importCertificate(cert, key);
  expect(wildcard()).toEqual({
    domains: ['gateway.test'],
    chain: service.exportCertificate('hub.gateway.test').certificate,
  });
  clock += 1.1 * DAY;
  expect(wildcard().chain).toBeNull();
});

it.each(['10.0.0.5', 'fd00::5'])(
  'lists the domain where that is an address (%s), and no other address',
  async (domain) => {
    const service = await open(domain);
    service.cover([{ host: 'hub.corp.example', order: true }]);
    expect(service.list().map(({ host }) => host)).toEqual([domain, 'localhost', 'hub.corp.example']);
  },
);

it('renews nothing that an imported certificate covers, and says so', async () => {
  const service = await open('gateway.test');
  const host = 'hub.gateway.test';
  service.cover([{ host, order: true }]);
  const { cert, key } = makeTestCa().issue([host]);
  await service.importCertificate(cert, key);
  await expect(service.renew(host, () => {})).rejects.toThrow(
    `${host} is covered by an imported certificate (${host})`,
  );
  const steps: string[] = [];
  const obtained = await service.obtain(host, { onStep: ({ step, message }) => steps.push(`${step}: ${message}`) });
  expect(steps).toEqual([expect.stringMatching(/^in use: an imported certificate from .* covers it, until /)]);
  clock += 1.1 * DAY;
  expect((await service.renew(host, () => {})).serial).not.toBe(obtained.serial);
});
