import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { type AcmeGateway, DOMAIN, importAliases, listenerPorts, prepareAcmeGateway } from '../support/acme-gateway.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { showLogOfFailures } from '../support/gateway.ts';
import { openNamespace } from '../support/namespace.ts';
import { startPebble } from '../support/pebble.ts';
import { describeWith } from '../support/programs.ts';
import { meet } from '../support/tls-client.ts';

/** What a new table orders: for the bare domain; its aliases are on demand. */
const FIRST_HOSTS = 1;
const ENDPOINT = 'http://127.0.0.1:1';
const HOST = `hub.${DOMAIN}`;
const MANY = Array.from({ length: 12 }, (_, n) => `many-${n}`);

let gateway: AcmeGateway | undefined;
const endings: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  await gateway?.close();
  gateway = undefined;
  for (const end of endings.splice(0).reverse()) await end();
});
// The last to be named is the first to run.
showLogOfFailures(() => gateway);

/** A gateway of the real program, and a CA of the test's own that validates on its listeners. */
async function open(options: { http?: 'off'; acme?: object; ca?: Partial<FakeCa['options']> } = {}) {
  const ports = await listenerPorts();
  const ca = await new FakeCa({ ports, ...options.ca }).start();
  endings.push(() => ca.stop());
  gateway = await prepareAcmeGateway({
    issuers: [ca],
    ports: { http: options.http ?? ports.http, tls: ports.tls },
    ...(options.acme === undefined ? {} : { acme: options.acme }),
  });
  return { ca, gateway };
}

describe('a gateway whose certificates come from a CA', () => {
  it('makes one order of two `alias add` at once, and both see it in use', async () => {
    const { ca, gateway } = await open();
    await gateway.start();
    await gateway.valid(FIRST_HOSTS);
    // The CA looks once both wait for it.
    const { promise: bothWait, resolve: letLook } = Promise.withResolvers<void>();
    ca.options.beforeLook = () => bothWait;
    const both = [1, 2].map(() => gateway.begin('alias', 'add', 'hub', 'hub.example.com'));
    await Promise.all(both.map((add) => add.waitFor(/^challenge/m)));
    letLook();
    for (const add of both) {
      const { code } = await add.exited;
      expect(code, add.output()).toBe(0);
      for (const step of ['resolve', 'order', 'challenge', 'validate', 'finalise', 'in use'])
        expect(add.output()).toContain(step);
    }
    expect(ca.orders.filter(({ host }) => host === HOST)).toHaveLength(1);
    const met = await meet({ port: gateway.httpsPort, host: HOST, ca: ca.root });
    expect(met.certificate.subjectAltName).toBe(`DNS:${HOST}`);
    expect((await gateway.certificate(HOST)).serial).toBe(met.certificate.serialNumber);
  });

  it("prints the CA's words where it refuses, keeps the alias pending, and tells the story", async () => {
    const { ca, gateway } = await open();
    ca.faults.push({
      at: 'newOrder',
      host: HOST,
      how: { status: 403, type: 'caa', detail: 'CAA record for gw.test prevents issuance' },
    });
    await gateway.start();
    const added = await gateway.cli(['alias', 'add', 'hub', 'hub.example.com']);
    expect(added.code).toBe(1);
    const said = added.stdout + added.stderr;
    expect(said).toContain('urn:ietf:params:acme:error:caa: CAA record for gw.test prevents issuance');
    expect(said).toContain('add one that allows it');
    const row = await gateway.certificate(HOST);
    expect(row).toMatchObject({
      state: 'pending',
      serial: null,
      lastError: { type: 'urn:ietf:params:acme:error:caa' },
    });
    expect(said).toContain(row.nextAttempt);
    const story = await gateway.ok('cert', 'explain', HOST);
    expect(story).toContain('CAA record for gw.test prevents issuance');
    await gateway.stop();
    await gateway.start();
    expect(await gateway.certificate(HOST)).toEqual(row);
    ca.faults.length = 0;
    expect((await gateway.cli(['cert', 'renew', HOST])).code).toBe(0);
    expect(await gateway.certificate(HOST)).toMatchObject({ state: 'valid', lastError: null });
  });

  it('is ready while the CA is down, serves what it has, and obtains the rest when the CA returns', async () => {
    const { ca, gateway } = await open();
    await gateway.start();
    await gateway.valid(FIRST_HOSTS);
    await gateway.stop();
    const before = ca.orders.length;
    ca.faults.push({ at: 'directory', how: 'drop' });
    await importAliases(gateway, ['late'], ENDPOINT);
    await gateway.start();
    const met = await meet({ port: gateway.httpsPort, host: DOMAIN, ca: ca.root });
    expect(met.certificate.subjectAltName).toBe(`DNS:${DOMAIN}`);
    await expect(meet({ port: gateway.httpsPort, host: `late.${DOMAIN}` })).rejects.toThrow(/unrecognized name/i);
    expect((await gateway.cli(['cert', 'renew', `late.${DOMAIN}`])).code).toBe(1);
    ca.faults.length = 0;
    // Its second wait is two minutes at most, jitter included.
    await gateway.valid(FIRST_HOSTS + 1, 180_000);
    expect(ca.orders.slice(before).map(({ host }) => host)).toEqual([`late.${DOMAIN}`]);
  });

  it('loses nothing by kill -9 at any moment, and orders nothing again', async () => {
    const { ca, gateway } = await open({ ca: { slowPolls: 2 } });
    await importAliases(gateway, MANY, ENDPOINT);
    for (let kill = 0; kill < 8; kill++) {
      gateway.launch();
      // From before its listeners are open to the middle of its orders.
      await new Promise((done) => setTimeout(done, 500 + kill * 150));
      await gateway.kill();
    }
    await gateway.start();
    const rows = await gateway.valid(FIRST_HOSTS + MANY.length);
    expect(rows).toHaveLength(FIRST_HOSTS + MANY.length);
    expect(ca.registrations).toBe(1);
    // Each certificate that the CA signed is the one in use: none was lost on the way.
    expect(ca.issued.map(({ subjectAltName }) => subjectAltName).sort()).toEqual(
      rows.map(({ host }) => `DNS:${host}`).sort(),
    );
    const serials = rows.map(({ serial }) => serial);
    const orders = ca.orders.length;
    for (let again = 0; again < 3; again++) {
      await gateway.kill();
      await gateway.start();
      expect((await gateway.valid(rows.length)).map(({ serial }) => serial)).toEqual(serials);
    }
    expect(ca.orders).toHaveLength(orders);
  });

  it('proves names by TLS-ALPN-01 with port 80 closed, and shows real clients only ordinary certificates', async () => {
    const { ca, gateway } = await open({ http: 'off' });
    await gateway.start();
    await gateway.valid(FIRST_HOSTS);
    const seen: string[] = [];
    const visit = async (options: { alpn?: string[]; version?: 'TLSv1.2' | 'TLSv1.3'; byteByByte?: boolean }) => {
      try {
        const { certificate } = await meet({ port: gateway.httpsPort, host: HOST, ca: ca.root, ...options });
        seen.push(certificate.serialNumber);
      } catch (error) {
        seen.push((error as Error).message);
      }
    };
    let looks = 0;
    ca.options.beforeLook = async () => {
      looks++;
      // The challenge is up, and the CA has not looked yet.
      await Promise.all([
        visit({}),
        visit({ version: 'TLSv1.2' }),
        visit({ version: 'TLSv1.3', byteByByte: true }),
        visit({ version: 'TLSv1.2', byteByByte: true }),
        visit({ alpn: ['http/1.1'] }),
        // One that asks for more than a CA does is no CA (RFC 8737 §3).
        visit({ alpn: ['acme-tls/1', 'h2'] }),
      ]);
    };
    const added = await gateway.cli(['alias', 'add', 'hub', 'hub.example.com']);
    expect(added.code, added.stderr).toBe(0);
    expect(added.stdout).toContain('tls-alpn-01');
    expect(looks).toBe(1);
    // There was no certificate yet: an alert, and nothing else.
    expect(seen.filter((one) => !/unrecognized name/i.test(one))).toEqual([]);
    expect(seen).toHaveLength(6);
    const { serial } = await gateway.certificate(HOST);
    seen.length = 0;
    expect((await gateway.cli(['cert', 'renew', HOST])).code).toBe(0);
    expect(looks).toBe(2);
    expect(seen).toEqual(Array.from({ length: 6 }, () => serial));
    expect(
      (await meet({ port: gateway.httpsPort, host: HOST, ca: ca.root, byteByByte: true })).certificate.serialNumber,
    ).toBe((await gateway.certificate(HOST)).serial);
  });

  it('serves an imported wildcard for every host it covers, without an order', async () => {
    const { ca, gateway } = await open();
    await gateway.start();
    await gateway.valid(FIRST_HOSTS);
    const orders = ca.orders.length;
    const { certificate, key } = ca.issue('*.corp.example');
    const files = ['wild.crt', 'wild.key'].map((name) => join(gateway.dataDir, '..', name)) as [string, string];
    writeFileSync(files[0], certificate);
    writeFileSync(files[1], key);
    await gateway.ok('cert', 'import', ...files);
    await gateway.ok('alias', 'add', 'hub.corp.example', 'hub.example.com');
    const { serialNumber } = new X509Certificate(certificate);
    const met = await meet({ port: gateway.httpsPort, host: 'hub.corp.example', ca: ca.root });
    expect(met.certificate.serialNumber).toBe(serialNumber);
    expect(await gateway.ok('cert', 'export', 'hub.corp.example')).toContain('BEGIN CERTIFICATE');
    expect(ca.orders).toHaveLength(orders);
  });
});

describeWith(
  ['linux', 'root', 'pebble', 'pebble-challtestsrv', 'unshare', 'nsenter'],
  'behind real DNS and port 80',
  () => {
    it('gets its certificates although one name does not resolve, and says which record is missing', async () => {
      const space = await openNamespace({ hosts: {} });
      endings.push(() => space.close());
      const extra = ['one', 'two', 'three', 'four', 'five', 'six', 'seven'];
      const names = [DOMAIN, ...extra.map((name) => `${name}.${DOMAIN}`)];
      const pebble = await startPebble({ httpPort: 80, tlsPort: 443, names, within: space });
      endings.push(() => pebble.stop());
      gateway = await prepareAcmeGateway({
        issuers: [pebble],
        ports: { http: 80, tls: 443 },
        acme: { selfCheck: true, resolvers: [pebble.dns] },
        within: space,
      });
      await importAliases(gateway, [...extra, 'lost'], ENDPOINT);
      await gateway.start();
      const rows = await gateway.valid(names.length);
      expect(
        rows
          .filter(({ state }) => state === 'valid')
          .map(({ host }) => host)
          .sort(),
      ).toEqual([...names].sort());
      const lost = `lost.${DOMAIN}`;
      expect(await gateway.certificate(lost)).toMatchObject({ state: 'pending' });
      expect(await gateway.ok('cert', 'explain', lost)).toContain(`there is no A or AAAA record for ${lost}`);
      await pebble.point(lost, '127.0.0.1');
      const renewed = await gateway.cli(['cert', 'renew', lost]);
      expect(renewed.code, renewed.stderr).toBe(0);
      expect(renewed.stdout).toContain(`${lost} A 127.0.0.1, and this gateway answers there`);
    });
  },
);
