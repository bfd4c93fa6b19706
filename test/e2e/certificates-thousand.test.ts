import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { readMaterial } from '../../src/certs/x509.ts';
import { SqliteCertStore } from '../../src/sqlite/cert-store.ts';
import { openDatabase } from '../../src/sqlite/database.ts';
import { gatewayMigrations } from '../../src/sqlite/migrations/gateway.ts';
import { type AcmeGateway, DOMAIN, importAliases, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { meet } from '../support/tls-client.ts';

const MANY = 1_000;
const HANDSHAKES = 60;
const SWAPS = 5;

const gateways: AcmeGateway[] = [];
const cas: FakeCa[] = [];
afterEach(async () => {
  for (const gateway of gateways.splice(0)) await gateway.close();
  for (const ca of cas.splice(0)) await ca.stop();
});
showLogOfFailures(() => gateways.at(-1));

/** A gateway with a thousand aliases, each with a certificate in the store already. What they cost is shown by scripts/bench (6, 8). */
async function prepare() {
  const ports = await listenerPorts();
  const ca = await new FakeCa({ ports }).start();
  cas.push(ca);
  const gateway = await prepareAcmeGateway({ issuers: [ca], ports, workers: 1 });
  gateways.push(gateway);
  const names = Array.from({ length: MANY }, (_, n) => `a${n}`);
  await importAliases(gateway, names, 'http://127.0.0.1:1');
  const rows = JSON.parse(await gateway.ok('alias', 'ls', '--json')) as { host: string }[];
  const hosts = [DOMAIN, ...rows.map(({ host }) => host)];
  const database = openDatabase(join(gateway.dataDir, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  const store = new SqliteCertStore(database);
  for (const host of hosts) {
    const { certificate, key } = ca.issue(host);
    await store.putCertificate({
      ...readMaterial(certificate, key),
      source: 'acme',
      name: host,
      directory: ca.directory,
      obtainedAt: Date.now(),
    });
  }
  database.close();
  return { gateway, ca, hosts };
}

it('takes a thousand certificates from its store: nothing is ordered at the start, each host shows its own, and renewed ones are swapped in', async () => {
  const { gateway, ca, hosts } = await prepare();
  await gateway.start();
  for (let n = 0; n < HANDSHAKES; n++) {
    const host = hosts[(n * 7) % hosts.length] ?? '';
    const { certificate } = await meet({ port: gateway.httpsPort, host, ca: ca.root });
    expect(certificate.subjectAltName).toBe(`DNS:${host}`);
  }
  expect(ca.orders).toHaveLength(0);
  for (let n = 0; n < SWAPS; n++) {
    const host = hosts[n] ?? '';
    await gateway.ok('cert', 'renew', host);
    const { certificate } = await meet({ port: gateway.httpsPort, host, ca: ca.root });
    expect(certificate.serialNumber).toBe(ca.issued.at(-1)?.serialNumber);
  }
  expect(ca.orders).toHaveLength(SWAPS);
});
