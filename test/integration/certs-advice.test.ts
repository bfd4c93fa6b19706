import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it, onTestFinished } from 'vitest';
import { CertificateRig, openListeners, type RigOptions } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { dnsServer } from '../support/dns-server.ts';
import { FakeCa, type Fault } from '../support/fake-ca/index.ts';

const HOST = 'hub.gw.test';
/** Nothing listens there. */
const CLOSED = 1;

interface Plan {
  readonly records?: Parameters<typeof dnsServer>[0];
  /** Where names lead, other than to this gateway. */
  readonly ports?: (own: { http: number; tls: number }, stranger: number) => { http: number; https: number };
  readonly fault?: Fault;
  readonly challenges?: RigOptions['challenges'];
  /** Ahead of this machine's clock, ms. */
  readonly dateOffset?: number;
}

/** A host whose certificate does not come, for one cause; what a person is told. */
async function plant({ records = { [HOST]: { A: '127.0.0.1' } }, ports, fault, challenges, dateOffset }: Plan) {
  const clock = new TestClock();
  const listeners = await openListeners();
  const stranger = createServer((_, response) => response.writeHead(404).end('not here')).listen(0, '127.0.0.1');
  await once(stranger, 'listening');
  const at = ports?.(listeners.ports, (stranger.address() as AddressInfo).port);
  const reached = at === undefined ? listeners.ports : { http: at.http, tls: at.https };
  const offset = dateOffset === undefined ? {} : { dateOffset };
  const ca = await new FakeCa({
    ports: records[HOST] === undefined ? { http: CLOSED, tls: CLOSED } : reached,
    now: clock.now,
    ...offset,
  }).start();
  if (fault !== undefined) ca.faults.push(fault);
  onTestFinished(async () => {
    await ca.stop();
    await new Promise((done) => stranger.close(done));
  });
  const rig = await CertificateRig.open(listeners, {
    issuers: [ca],
    clock,
    selfCheck: true,
    resolvers: [await dnsServer(records)],
    ...(at === undefined ? {} : { ports: at }),
    ...(challenges === undefined ? {} : { challenges }),
  });
  await rig.start();
  const { error } = await rig.obtain(HOST);
  const { advice, next } = await rig.service.explain(HOST);
  return { error, advice, next, ca, rig };
}

const refusal = (type: string, detail: string, status = 403): Fault => ({
  at: 'newOrder',
  how: { status, type, detail },
});

const CASES: Readonly<Record<string, Plan & { readonly says: RegExp; readonly orders?: number }>> = {
  'no record': {
    records: { 'gw.test': { A: '127.0.0.1' } },
    says: /^this gateway found: there is no A or AAAA record for hub\.gw\.test, says .*: create an A or AAAA record for hub\.gw\.test that points to this gateway, or one for \*\.gw\.test/,
    // Every kind would fail for it.
    orders: 1,
  },
  'a record of another machine': {
    ports: (_, stranger) => ({ http: stranger, https: stranger }),
    says: /^this gateway found: hub\.gw\.test leads to 127\.0\.0\.1, and port \d+ there answered 404 with something other.*: point the A record of hub\.gw\.test to this gateway, or end what answers there$/,
    orders: 1,
  },
  'an AAAA record that leads nowhere': {
    records: { [HOST]: { A: '127.0.0.1', AAAA: '::1' } },
    fault: refusal('connection', '::1: Connection refused', 400),
    says: /^this gateway found: hub\.gw\.test leads to ::1, .*: remove the AAAA record of hub\.gw\.test \(::1\), or make it lead here: CAs and many clients try IPv6 first$/,
  },
  'port 80 closed': {
    ports: ({ tls }) => ({ http: CLOSED, https: tls }),
    challenges: ['http-01'],
    says: /^this gateway found: hub\.gw\.test leads to 127\.0\.0\.1, and port 1 there refuses connections: that is this machine: have the gateway listen there \(listen\.http\)/,
  },
  'both ports closed': {
    ports: () => ({ http: CLOSED, https: CLOSED + 1 }),
    says: /^this gateway found: .*port 1 there refuses connections; .*port 2 there refuses connections: .*\(listen\.http\).*\(listen\.https\)/,
    orders: 2,
  },
  CAA: {
    fault: { at: 'finalize', how: { status: 403, type: 'caa', detail: 'CAA record for gw.test prevents issuance' } },
    says: /^a CAA record of the domain forbids this CA: add one that allows it, or remove them$/,
  },
  'a wrong clock': {
    dateOffset: 7_200_000,
    fault: refusal('malformed', 'the request is from the past', 400),
    says: /^this machine's clock is \d+ s behind that of .*: set it by NTP$/,
  },
  'paused by the CA': {
    fault: refusal(
      'rateLimited',
      'Your account is temporarily prevented from requesting certificates for hub.gw.test and possibly others. Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=eyJ.a-b_c.d',
      429,
    ),
    says: /^the CA has paused this name after many failures, and waits for a person: mend what failed, open https:\/\/portal\.letsencrypt\.org\/sfe\/v1\/unpause\?jwt=eyJ\.a-b_c\.d, then: gateway cert renew hub\.gw\.test$/,
  },
  'a limit of the CA': {
    fault: {
      at: 'newOrder',
      how: {
        status: 429,
        type: 'rateLimited',
        detail:
          'too many certificates (50) already issued for "gw.test" in the last 168h0m0s, retry after 2026-12-01 00:00:00 UTC: see https://letsencrypt.org/docs/rate-limits/',
        retryAfter: '7200',
      },
    },
    says: /^a limit of the CA is reached: nothing to do but wait/,
  },
  'an account that the CA has closed': {
    fault: refusal('unauthorized', 'Account is not valid, has status "revoked"'),
    says: /^the CA has closed our account, and this gateway does not go round that with a new one: ask the CA why, or name another CA in acme\.issuers\[\]/,
  },
};

it.each(Object.entries(CASES))('the advice fits the fault: %s', async (_, { says, orders, ...plan }) => {
  const { error, advice, ca } = await plant(plan);
  expect(error).not.toBeNull();
  expect(advice[0]).toMatch(says);
  // A person who waits is told the same at once.
  if (plan.dateOffset === undefined) expect(error?.next).toContain(advice[0]);
  if (orders !== undefined) expect(ca.orders).toHaveLength(orders);
});

it('says of the next attempt what it is: a look at the name, and the CA once an hour', async () => {
  const { error, next, rig } = await plant({ records: { 'gw.test': { A: '127.0.0.1' } } });
  const again = rig.service.info(HOST)?.nextAttempt ?? '';
  const asked = new Date(rig.clock.now() + 3_600_000).toISOString();
  for (const text of [error?.message, next]) {
    expect(text).toContain(
      `tries again at ${again} whether the name leads here by now; the CA is asked then, else at `,
    );
  }
  expect(Math.abs(Date.parse(/else at (\S+Z)/.exec(next)?.[1] ?? '') - Date.parse(asked))).toBeLessThan(60_000);
});

it('registers again, and tells it, where the CA has lost the account', async () => {
  const { ca, rig } = await plant({});
  ca.forgetAccounts();
  const { error, steps } = await rig.obtain(HOST, true);
  expect(error).toBeNull();
  expect(steps.find(({ step }) => step === 'account')?.message).toContain('registering again');
});

it('registers another account, once, where somebody has deactivated ours; one that the CA has closed stays closed', async () => {
  const { ca, rig } = await plant({});
  const registered = ca.registrations;
  ca.closeAccounts('deactivated');
  const { error, steps } = await rig.obtain(HOST, true);
  expect(error).toBeNull();
  expect(steps.find(({ step }) => step === 'account')?.message).toMatch(
    /^warning: .* was deactivated, .*a new one is registered/,
  );
  expect(ca.registrations).toBe(registered + 1);
  // The certificate that is replaced is of another account by now.
  expect(ca.orders.at(-1)?.replaces).toBeUndefined();
  const { events } = await rig.service.explain(HOST);
  expect(events.map(({ event }) => event).join()).toContain('was deactivated');
  ca.closeAccounts('deactivated');
  const again = await rig.obtain(HOST, true);
  expect(again.error?.next).toMatch(/was deactivated, and so was the one/);
  ca.closeAccounts('revoked');
  expect((await rig.obtain(HOST, true)).error?.next).toMatch(/^the CA has closed our account/);
  expect(ca.registrations).toBe(registered + 1);
});

it('tells of a first CA that refuses although the second issues', async () => {
  const listeners = await openListeners();
  const clock = new TestClock();
  const [one, other] = await Promise.all(
    [1, 2].map(() => new FakeCa({ ports: listeners.ports, now: clock.now }).start()),
  );
  if (one === undefined || other === undefined) throw new Error('no CA');
  onTestFinished(async () => void (await Promise.all([one.stop(), other.stop()])));
  one.faults.push(refusal('rejectedIdentifier', 'not by our policy'));
  const rig = await CertificateRig.open(listeners, { issuers: [one, other], clock });
  await rig.start();
  const { error, steps } = await rig.obtain(HOST);
  expect(error).toBeNull();
  expect(steps.find(({ step }) => step === 'refused')?.message).toMatch(/not by our policy; the next CA is asked/);
  const { events } = await rig.service.explain(HOST);
  expect(events.map(({ event }) => event).join('\n')).toMatch(/had refused it before: .*not by our policy; .*policy/);
  // As long as that certificate is in use, over restarts, too.
  await rig.restart(HOST);
  const { host: issuer } = new URL(one.directory);
  expect(rig.service.info(HOST)?.refused).toMatchObject([{ issuer, detail: 'not by our policy' }]);
  expect((await rig.service.explain(HOST)).advice.join('\n')).toMatch(
    /asked first, refused: .*not by our policy\n.*policy/,
  );
  one.faults.splice(0);
  await rig.obtain(HOST, true);
  expect(rig.service.info(HOST)?.refused).toBeUndefined();
});
