import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AcmeGateway, DOMAIN, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { dnsServer } from '../support/dns-server.ts';
import { eventually } from '../support/eventually.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { liveKeys } from '../support/live-keys.ts';

let ca: FakeCa;
let gateway: AcmeGateway;
let ports: { http: number; tls: number };
beforeAll(async () => {
  ports = await listenerPorts();
  ca = await new FakeCa({ ports }).start();
  gateway = await prepareAcmeGateway({ issuers: [{ directory: ca.directory }], ports, workers: 1 });
  await gateway.start();
  await gateway.valid(1);
});
afterAll(async () => {
  await gateway.close();
  await ca.stop();
});
showLogOfFailures(() => gateway);

async function reload(acme: object = {}): Promise<void> {
  gateway.configure({ acme: { issuers: [{ directory: ca.directory }], selfCheck: false, ...acme } });
  await gateway.ok('reload');
}

let names = 0;
/** A new alias; what the command said, whether the CA gave a certificate or not. */
async function add(): Promise<string> {
  const { stdout, stderr } = await gateway.cli(['alias', 'add', `n${++names}`, 'quay.io']);
  return stdout + stderr;
}

const CASES: Readonly<Record<string, () => Promise<void>>> = {
  'acme.email': async () => {
    await reload({ email: 'ops@corp.example' });
    await eventually('the account is told', () => ca.contacts.at(-1) === 'mailto:ops@corp.example');
    expect(ca.registrations).toBe(1);
    await reload();
    await eventually('and that there is none', () => ca.contacts.at(-1) === '');
  },
  'acme.challenges': async () => {
    for (const type of ['http-01', 'tls-alpn-01']) {
      await reload({ challenges: [type] });
      expect(await add()).toMatch(new RegExp(`^challenge .*${type}`, 'm'));
    }
  },
  'acme.selfCheck': async () => {
    await reload({ selfCheck: true });
    // No DNS server knows the name, which this CA does not mind.
    expect(await add()).toMatch(/^resolve .*no A or AAAA record/m);
    await reload();
    expect(await add()).toContain('acme.selfCheck is off');
  },
  'acme.resolvers': async () => {
    const address = '192.0.2.77';
    const resolver = await dnsServer({ [`n${names + 1}.${DOMAIN}`]: { A: address } });
    await reload({ selfCheck: true, resolvers: [resolver] });
    expect(await add()).toContain(address);
  },
};

test('every key of ACME that takes effect at once has its case', () => {
  expect(Object.keys(CASES).sort()).toEqual(
    liveKeys()
      .filter((key) => key.startsWith('acme.'))
      .sort(),
  );
});

test.each(Object.entries(CASES))('%s takes effect', (_, seen) => seen());
