import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
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
  ca = await new FakeCa({ ports, challenges: ['http-01', 'tls-alpn-01', 'dns-01'] }).start();
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

/** What reaches a port of this machine, whose server answers nothing that makes sense. */
async function listenTo(): Promise<{ port: number; said: () => string }> {
  let said = '';
  const server = createServer((socket) => {
    socket.setEncoding('latin1').on('data', (text: string) => {
      said += text;
      socket.destroy();
    });
    socket.on('error', () => {});
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { port: (server.address() as AddressInfo).port, said: () => said };
}

/** A reload with a provider, and what it is then told for a new alias; what the command said, too. */
async function addByDns(dns: object): Promise<string> {
  const resolver = await dnsServer({ [DOMAIN]: { SOA: `ns.${DOMAIN}` } });
  await reload({ challenges: ['dns-01'], resolvers: [resolver], dns });
  return await add();
}

const byTsig = async () => {
  const { port, said } = await listenTo();
  const server = `127.0.0.1:${port}`;
  const dns = { provider: 'rfc2136', server, keyId: 'Key-7', secret: 'c2VjcmV0', algorithm: 'hmac-sha384' };
  expect(await addByDns(dns)).toContain(server);
  expect(said()).toContain('\x05key-7\x00');
  expect(said()).toContain('\x0bhmac-sha384\x00');
};
const byToken = async () => {
  const { port, said } = await listenTo();
  const dns = { provider: 'cloudflare', endpoint: `http://127.0.0.1:${port}/v4` };
  expect(await addByDns({ ...dns, secret: 'token-1' })).not.toContain('token-1');
  const secretFile = join(gateway.dataDir, 'token');
  writeFileSync(secretFile, 'token-2\n');
  await addByDns({ ...dns, secretFile });
  for (const token of ['token-1', 'token-2'])
    expect(said()).toMatch(new RegExp(`^authorization: Bearer ${token}\r$`, 'mi'));
};

const CASES: Readonly<Record<string, () => Promise<void>>> = {
  'acme.dns.provider': async () => {
    expect(await addByDns({ provider: 'exec', program: '/nowhere/hook' })).toContain('the program /nowhere/hook');
  },
  'acme.dns.program': async () => {
    expect(await addByDns({ provider: 'exec', program: '/nowhere/other' })).toContain('the program /nowhere/other');
  },
  'acme.dns.server': byTsig,
  'acme.dns.algorithm': byTsig,
  'acme.dns.keyId': byTsig,
  'acme.dns.endpoint': byToken,
  'acme.dns.secret': byToken,
  'acme.dns.secretFile': byToken,
  'acme.dns.propagationTimeout': async () => {
    const dns = { provider: 'exec', program: '/bin/true', propagationTimeout: '1m' };
    // A zone that names no servers of its own.
    expect(await addByDns(dns)).toContain(`the zone ${DOMAIN} has no NS records`);
    expect(gateway.log()).toContain('acme.dns.propagationTimeout: 2m → 1m');
  },
  'acme.wildcard': async () => {
    await reload({ wildcard: true, dns: { provider: 'exec', program: '/bin/true' } });
    expect((await gateway.certificates()).map(({ host }) => host)).toContain(`*.${DOMAIN}`);
    await reload();
    expect((await gateway.certificates()).map(({ host }) => host)).not.toContain(`*.${DOMAIN}`);
  },
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
