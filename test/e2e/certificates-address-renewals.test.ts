import { connect } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { listenerPorts } from '../support/acme-gateway.ts';
import { eventually } from '../support/eventually.ts';
import { allServe, PROCESSES } from '../support/every-process.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';

/** A long run asks for 500: GATEWAY_TEST_ADDRESS_RENEWALS=500. */
const RENEWALS = Number(process.env.GATEWAY_TEST_ADDRESS_RENEWALS ?? 30);
/** One command renews so many, one after the other. */
const AT_A_TIME = 30;
const ADDRESS = '9.9.9.9';
const CLIENTS = 6;

let ca: FakeCa;
let gateway: TestGateway;
showLogOfFailures(() => gateway);

beforeAll(async () => {
  const ports = await listenerPorts();
  // Let's Encrypt's for addresses: 160 hours.
  ca = await new FakeCa({ ports, lifetime: 160 * 3_600_000, profiles: ['classic', 'shortlived'] }).start();
  gateway = await prepareGateway({
    config: {
      domain: ADDRESS,
      listen: { https: `127.0.0.1:${ports.tls}`, http: `127.0.0.1:${ports.http}`, workers: PROCESSES },
      acme: { issuers: [{ directory: ca.directory }], selfCheck: false },
    },
  });
  await gateway.start();
  await allServe(gateway);
});
afterAll(async () => {
  await gateway?.close();
  await ca?.stop();
});

/** One handshake as a client of an address makes it: no server name, and the address must be in the certificate. */
function shake(): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: '127.0.0.1',
      port: gateway.httpsPort,
      ca: ca.root,
      checkServerIdentity: () => undefined,
    });
    socket.setTimeout(20_000, () => socket.destroy(new Error('no handshake in 20 s')));
    socket.on('error', reject);
    socket.once('secureConnect', () => {
      const certificate = socket.getPeerX509Certificate();
      socket.destroy();
      if (certificate?.checkIP(ADDRESS) === ADDRESS) resolve(certificate.serialNumber);
      else reject(new Error(`the certificate is for ${certificate?.subjectAltName}`));
    });
  });
}

it(
  `${RENEWALS} renewals of an address's certificate under load: no failed handshake`,
  async () => {
    await eventually('the first certificate', () => shake().then(() => true), 60_000);
    expect(ca.orders[0]).toMatchObject({ host: ADDRESS, type: 'ip', profile: 'shortlived' });
    const before = ca.issued.length;
    const failures: string[] = [];
    const seen = new Set<string>();
    let handshakes = 0;
    let ended = false;
    const client = async (): Promise<void> => {
      while (!ended) {
        try {
          seen.add(await shake());
          handshakes++;
        } catch (error) {
          failures.push(String(error));
        }
        await new Promise((done) => setTimeout(done, 10));
      }
    };
    const clients = Promise.all(Array.from({ length: CLIENTS }, client));
    for (let done = 0; done < RENEWALS; done += AT_A_TIME) {
      const hosts = Array.from({ length: Math.min(AT_A_TIME, RENEWALS - done) }, () => ADDRESS);
      const renewed = await gateway.cli(['cert', 'renew', ...hosts], { ms: 300_000 });
      expect(renewed.code, renewed.stderr).toBe(0);
    }
    ended = true;
    await clients;
    console.log(`${RENEWALS} renewals, ${handshakes} handshakes, ${seen.size} certificates seen`);
    expect(failures).toEqual([]);
    expect(ca.issued).toHaveLength(before + RENEWALS);
    expect(new Set(ca.orders.map(({ profile }) => profile))).toEqual(new Set(['shortlived']));
    expect(seen.size).toBeGreaterThan(RENEWALS / 3);
    expect(handshakes).toBeGreaterThan(RENEWALS);
  },
  120_000 + RENEWALS * 4_000,
);
