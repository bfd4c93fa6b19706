import { expect, it, onTestFinished } from 'vitest';
import type { AliasRow } from '../../src/admin/contract.ts';
import { callAdmin } from '../../src/admin/socket.ts';
import { type AcmeGateway, DOMAIN, importAliases, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { send } from '../support/http-client.ts';
import { freeAddress, makeKey, startNamed } from '../support/named.ts';
import { startPebble } from '../support/pebble.ts';
import { describeWith } from '../support/programs.ts';
import { meet } from '../support/tls-client.ts';

const WILDCARD = `*.${DOMAIN}`;
const NAME = `_acme-challenge.${DOMAIN}`;
/** In a table of this many an alias is added. */
const MANY = 10_000;
/** Pulls, each by a connection of its own, while certificates are changed over. More: GATEWAY_TEST_PULLS=200. */
const PULLS = Number(process.env.GATEWAY_TEST_PULLS ?? 30);

let gateway: AcmeGateway | undefined;
showLogOfFailures(() => gateway);

/** A gateway without a port for CAs, a name server that takes its updates, and a CA that asks it. */
async function open({ silent = false } = {}) {
  const key = makeKey('gateway');
  const records = ['@ A 127.0.0.1', '* A 127.0.0.1'];
  const policy = `grant gateway name ${NAME}. TXT; grant gateway wildcard *.${DOMAIN}. TXT;`;
  const address = freeAddress();
  const servers = { ns1: address, ...(silent ? { ns2: freeAddress() } : {}) };
  const named = await startNamed({ address, zones: { [DOMAIN]: { records, policy, servers } }, keys: [key] });
  const ports = await listenerPorts();
  const ca = await startPebble({ httpPort: 1, tlsPort: 1, dnsServer: named.server });
  onTestFinished(() => ca.stop());
  const base = {
    issuers: [{ directory: ca.directory, caFile: ca.caFile }],
    resolvers: [named.server],
    challenges: ['dns-01'],
    dns: { provider: 'rfc2136', server: named.server, keyId: key.name, secret: key.secret },
  };
  const made = await prepareAcmeGateway({
    issuers: base.issuers,
    ports: { http: ports.http, tls: ports.tls },
    acme: { ...base, selfCheck: true, wildcard: true },
    workers: 2,
  });
  gateway = made;
  onTestFinished(() => made.close());
  return { named, ca, key, base, gateway: made };
}

describeWith(['named', 'pebble', 'root'], 'a gateway whose names are proved in DNS', () => {
  it('has one certificate for all labels, changes over both ways without a gap, and leaves nothing in the zone', async () => {
    const { named, ca, key, base, gateway } = await open();
    await gateway.start();
    await gateway.valid(1);
    const root = await ca.root();
    const [row] = await gateway.certificates();
    expect(row).toMatchObject({ host: WILDCARD, state: 'valid' });
    expect(row?.covers).toBeGreaterThan(10);
    const { certificate } = await meet({ port: gateway.httpsPort, host: `quay.${DOMAIN}`, ca: root });
    expect(certificate.subjectAltName?.split(', ').toSorted()).toEqual([`DNS:${WILDCARD}`, `DNS:${DOMAIN}`]);
    await meet({ port: gateway.httpsPort, host: DOMAIN, ca: root });
    const unknown = `nothing.${DOMAIN}`;
    const nowhere = await send({
      ...{ host: '127.0.0.1', port: gateway.httpsPort, servername: unknown, ca: root, agent: false },
      ...{ path: '/v2/', headers: { host: unknown } },
    });
    expect([nowhere.status, JSON.parse(nowhere.text).errors[0].code]).toEqual([404, 'NAME_UNKNOWN']);
    await eventually('the records to be gone', async () => (await named.txt(NAME)).length === 0);

    const upstream = await FakeRegistry.start();
    onTestFinished(() => upstream.close());
    const blob = upstream.repository('team/app').addBlob(generated(300_000));
    const added = await gateway.ok(
      ...['alias', 'add', 'hub2', 'hub.example.com', '--endpoint', upstream.url, '--no-check'],
    );
    expect(added).not.toMatch(/^order/m);
    expect(await gateway.ok('cert', 'explain', `hub2.${DOMAIN}`)).toContain(
      `the certificate for ${DOMAIN} and ${WILDCARD}`,
    );
    const aliases = JSON.parse(await gateway.ok('alias', 'ls', '--json')) as AliasRow[];
    expect(aliases.find(({ name }) => name === 'hub2')?.certificate).toEqual({
      state: 'valid',
      notAfter: row?.notAfter,
    });
    expect(await gateway.ok('cert', 'show', `hub2.${DOMAIN}`)).toMatch(/^covered by: +\*\.gw\.test$/m);
    expect(await gateway.ok('cert', 'show', WILDCARD)).toMatch(/^covers: +\d+ hosts of this gateway$/m);
    expect(await gateway.ok('cert', 'ls')).toMatch(/^\*\.gw\.test \(\d+ hosts\) +valid/m);
    expect(await gateway.ok('cert', 'explain', WILDCARD)).toMatch(/^\d+ hosts are served under the certificate/);
    expect(await gateway.ok('cert', 'export', WILDCARD)).toContain('PRIVATE KEY');
    expect(await gateway.ok('cert', 'renew', WILDCARD)).toContain(`${WILDCARD} has a certificate of`);
    const told = await gateway.cli(['doctor']);
    expect(told.stdout).toContain(`may put records at ${NAME} in the zone ${DOMAIN}`);
    expect(told.stdout).not.toContain(key.secret);

    const host = `hub2.${DOMAIN}`;
    const pull = async () => {
      const { status, digest } = await send({
        ...{ host: '127.0.0.1', port: gateway.httpsPort, servername: host, ca: root, agent: false },
        ...{ path: `/v2/team/app/blobs/${blob.digest}`, headers: { host } },
      });
      return status === 200 && digest === blob.digest;
    };
    let failed = 0;
    let pulled = 0;
    let going = true;
    const pulling = (async () => {
      while (going || pulled < PULLS) {
        if (!(await pull())) failed += 1;
        pulled += 1;
      }
    })();
    gateway.configure({ acme: { ...base, wildcard: false } });
    await gateway.ok('reload');
    await gateway.ok('cert', 'renew', `hub2.${DOMAIN}`);
    const own = await meet({ port: gateway.httpsPort, host: `hub2.${DOMAIN}`, ca: root });
    expect(own.certificate.subjectAltName).toBe(`DNS:hub2.${DOMAIN}`);
    gateway.configure({ acme: { ...base, wildcard: true } });
    await gateway.ok('reload');
    const again = await meet({ port: gateway.httpsPort, host: `hub2.${DOMAIN}`, ca: root });
    expect(again.certificate.subjectAltName).toContain(WILDCARD);
    going = false;
    await pulling;
    expect(failed).toBe(0);
    console.log(`${pulled} pulls while certificates were changed over, none failed`);
  });

  it('removes what a killed process left, at the next start', async () => {
    // One server of the zone does not answer: the order waits for it, with its records in the zone.
    const { named, gateway } = await open({ silent: true });
    await gateway.start();
    const left = (await eventually('both records', async () => {
      const values = await named.txt(NAME);
      return values.length === 2 && values;
    })) as string[];
    await gateway.kill();
    expect((await named.txt(NAME)).toSorted()).toEqual([...left].toSorted());
    await gateway.start();
    await eventually('those records to be gone', async () => {
      const values = await named.txt(NAME);
      return !values.some((value) => left.includes(value));
    });
  });

  it(`adds an alias to a table of ${MANY} at once`, async () => {
    const { gateway } = await open();
    await importAliases(
      gateway,
      Array.from({ length: MANY }, (_, n) => `a${n}`),
      'http://127.0.0.1:1',
    );
    await gateway.start();
    await gateway.valid(1);
    const times: number[] = [];
    for (let n = 0; n < 5; n++) {
      const began = performance.now();
      const steps: string[] = [];
      const context = { signal: AbortSignal.timeout(60_000), step: (step: string) => void steps.push(step) };
      await callAdmin(
        gateway.dataDir,
        'alias.add',
        { name: `more${n}`, registry: 'hub.example.com', check: false },
        context,
      );
      times.push(performance.now() - began);
      expect(steps).not.toContain('order');
    }
    const [, , median = 0] = times.toSorted((one, other) => one - other);
    console.log(
      `alias add in a table of ${MANY}: ${Math.round(median)} ms at the gateway, the start of the command left out`,
    );
    expect((await gateway.certificates()).filter(({ state }) => state === 'valid')).toHaveLength(1);
  });
});
