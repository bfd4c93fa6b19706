import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { readMaterial } from '../../src/certs/certificate.ts';
import { SqliteCertStore } from '../../src/sqlite/cert-store.ts';
import { openDatabase } from '../../src/sqlite/database.ts';
import { gatewayMigrations } from '../../src/sqlite/migrations/gateway.ts';
import { type AcmeGateway, aliasYaml, DOMAIN, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { meet } from '../support/tls-client.ts';

const FEW = 10;
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

/** A gateway with so many aliases, each with a certificate in the store already. */
async function prepare(count: number) {
  const ports = await listenerPorts();
  const ca = await new FakeCa({ ports }).start();
  cas.push(ca);
  const gateway = await prepareAcmeGateway({ issuers: [ca], ports, workers: 1 });
  gateways.push(gateway);
  const names = Array.from({ length: count }, (_, n) => `a${n}`);
  const file = join(gateway.dataDir, '..', 'aliases.yaml');
  writeFileSync(file, aliasYaml(names, 'http://127.0.0.1:1'));
  await gateway.ok('alias', 'import', file);
  const rows = JSON.parse(await gateway.ok('alias', 'ls', '--json')) as { host: string }[];
  const hosts = [DOMAIN, ...rows.map(({ host }) => host)];
  const database = openDatabase(join(gateway.dataDir, 'gateway.db'), gatewayMigrations, { durability: 'normal' });
  const store = new SqliteCertStore(database);
  database.transaction(() => {
    for (const host of hosts) {
      const { certificate, key } = ca.issue(host);
      const material = readMaterial(certificate, key);
      store.putCertificate({
        ...material,
        source: 'acme',
        name: host,
        directory: ca.directory,
        obtainedAt: Date.now(),
      });
    }
  })();
  database.close();
  return { gateway, ca, hosts };
}

type Prepared = Awaited<ReturnType<typeof prepare>>;

/** Milliseconds until it is ready. */
async function start({ gateway }: Prepared): Promise<number> {
  const begun = performance.now();
  await gateway.start();
  return performance.now() - begun;
}

/** Milliseconds of a handshake, new host each time, and of the same host again. */
async function handshakes({ gateway, ca, hosts }: Prepared): Promise<{ first: number; again: number }> {
  const times = { first: [] as number[], again: [] as number[] };
  for (let n = 0; n < HANDSHAKES; n++) {
    const host = hosts[(n * 7) % hosts.length] ?? '';
    for (const kind of ['first', 'again'] as const) {
      const begun = performance.now();
      const { certificate } = await meet({ port: gateway.httpsPort, host, ca: ca.root });
      times[kind].push(performance.now() - begun);
      expect(certificate.subjectAltName).toBe(`DNS:${host}`);
    }
  }
  return { first: median(times.first), again: median(times.again) };
}

/** Milliseconds until a renewed certificate is in use, command and CA included. */
async function swaps({ gateway, ca, hosts }: Prepared): Promise<number> {
  const times: number[] = [];
  for (let n = 0; n < SWAPS; n++) {
    const host = hosts[n] ?? '';
    const begun = performance.now();
    await gateway.ok('cert', 'renew', host);
    times.push(performance.now() - begun);
    const { certificate } = await meet({ port: gateway.httpsPort, host, ca: ca.root });
    expect(certificate.serialNumber).toBe(ca.issued.at(-1)?.serialNumber);
  }
  return median(times);
}

function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >> 1] ?? 0;
}

it('starts, swaps and shakes hands with a thousand aliases as with ten', async () => {
  const few = await prepare(FEW);
  const many = await prepare(MANY);
  const figures = {
    startMs: { few: await start(few), many: await start(many) },
    handshakeMs: { few: await handshakes(few), many: await handshakes(many) },
    swapMs: { few: await swaps(few), many: await swaps(many) },
  };
  console.log(
    JSON.stringify({ aliases: { few: FEW, many: MANY }, ...figures }, (_, value) =>
      typeof value === 'number' ? Math.round(value * 10) / 10 : value,
    ),
  );
  // Nothing was ordered at start: the store had it all.
  expect(many.ca.orders).toHaveLength(SWAPS);
  // Flat, with room for a busy machine: a cost per alias would show as a factor of a hundred.
  expect(figures.handshakeMs.many.again).toBeLessThan(3 * figures.handshakeMs.few.again + 5);
  expect(figures.handshakeMs.many.first).toBeLessThan(3 * figures.handshakeMs.few.first + 5);
  expect(figures.swapMs.many).toBeLessThan(3 * figures.swapMs.few);
  expect(figures.startMs.many).toBeLessThan(3 * figures.startMs.few);
});
