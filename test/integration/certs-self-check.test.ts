import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { CertificateRig, openListeners, type RigOptions } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { dnsServer } from '../support/dns-server.ts';
import { FakeCa } from '../support/fake-ca/index.ts';

const HOST = 'hub.gw.test';
const HOUR = 3_600_000;
/** Generous: other tests share the cores. */
const TIMEOUT = { timeout: 20_000, interval: 20 };

async function open(
  records: Parameters<typeof dnsServer>[0],
  rig: Partial<RigOptions> = {},
  lifetime = 90 * 24 * HOUR,
) {
  const clock = new TestClock();
  const listeners = await openListeners();
  const ca = await new FakeCa({ ports: listeners.ports, now: clock.now, lifetime }).start();
  const dns = await dnsServer(records);
  onTestFinished(() => ca.stop());
  return {
    clock,
    listeners,
    ca,
    dns,
    rig: await CertificateRig.open(listeners, { issuers: [ca], clock, selfCheck: true, resolvers: [dns], ...rig }),
  };
}

/** A port that answers like a stranger's web server. */
async function stranger(): Promise<number> {
  const server = createServer((_, response) => response.writeHead(404).end('not here')).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => new Promise<void>((done) => server.close(() => done())));
  return (server.address() as AddressInfo).port;
}

describe('a self-check that passes', () => {
  it('says where the name leads, and the CA is asked', async () => {
    const { rig, ca } = await open({ 'hub.gw.test': { CNAME: 'gw.test' }, 'gw.test': { A: '127.0.0.1' } });
    await rig.start();
    const { steps, error } = await rig.obtain(HOST);
    expect(error).toBeNull();
    expect(steps[0]?.message).toBe('hub.gw.test CNAME gw.test, gw.test A 127.0.0.1, and this gateway answers there');
    expect(ca.issued).toHaveLength(1);
  });

  it('puts first the kind of challenge that would work', async () => {
    const tlsOnly = await open({ 'hub.gw.test': { A: '127.0.0.1' } }, { ports: { http: 1, https: 0 } });
    await tlsOnly.rig.stop();
    const ports = { http: await stranger(), https: tlsOnly.listeners.ports.tls };
    const second = await CertificateRig.open(tlsOnly.listeners, {
      issuers: [tlsOnly.ca],
      selfCheck: true,
      resolvers: [tlsOnly.dns],
      ports,
    });
    await second.start();
    const { steps, error } = await second.obtain(HOST);
    expect(error).toBeNull();
    expect(steps.find(({ step }) => step === 'challenge')?.message).toMatch(/^tls-alpn-01/);
  });
});

describe('a self-check that fails', () => {
  it('names the missing record, spends one real attempt an hour, and keeps that over a restart', async () => {
    const { rig, ca, clock } = await open({ 'gw.test': { A: '127.0.0.1' } });
    // Split horizon: the CA sees what we do not, but has a problem of its own.
    ca.faults.push({
      at: 'newOrder',
      how: { status: 403, type: 'dns', detail: 'NXDOMAIN looking up A for hub.gw.test' },
    });
    await rig.start();
    const first = await rig.obtain(HOST);
    expect(first.steps[0]?.message).toContain('there is no A or AAAA record for hub.gw.test');
    expect(first.error?.message).toContain('NXDOMAIN looking up A');
    const asked = () => ca.requests.filter((resource) => resource === 'newOrder').length;
    expect(asked()).toBe(1);
    await rig.restart(HOST);
    clock.advance(90_000);
    await vi.waitFor(() => expect(rig.service.info(HOST)?.lastError?.type).toBe('selfCheck'), TIMEOUT);
    for (let minutes = 0; minutes < 50; minutes += 10) {
      clock.advance(600_000);
      await rig.obtain(HOST);
    }
    expect(asked()).toBe(1);
    const story = await rig.service.explain(HOST);
    expect(story.summary).toContain('there is no A or AAAA record for hub.gw.test');
    expect(story.advice.join()).toContain('create an A or AAAA record for hub.gw.test');
    clock.advance(15 * 60_000);
    await rig.obtain(HOST);
    expect(asked()).toBe(2);
  });

  it('is no wall: where only this machine sees it so, the certificate comes', async () => {
    const { rig } = await open({ 'gw.test': { A: '127.0.0.1' } });
    await rig.start();
    const { steps, error } = await rig.obtain(HOST);
    expect(error).toBeNull();
    expect(steps[0]?.message).toMatch(/^warning: there is no A or AAAA record.*asked all the same/);
  });

  it('says which record points where, and what answers there', async () => {
    const port = await stranger();
    const { rig } = await open({ 'hub.gw.test': { A: '127.0.0.1' } }, { ports: { http: port, https: 1 } });
    await rig.start();
    const [first] = (await rig.obtain(HOST)).steps;
    expect(first?.message).toContain('hub.gw.test A 127.0.0.1');
    expect(first?.message).toContain(`hub.gw.test leads to 127.0.0.1, and port ${port} there answered 404`);
    expect(first?.message).toContain('port 1 there refuses connections');
  });

  it('does not stand in the way of a certificate that is about to run out', async () => {
    const { rig, ca, clock } = await open({}, {}, 60_000);
    await rig.start();
    expect((await rig.obtain(HOST)).error).toBeNull();
    for (let round = 2; round <= 4; round++) {
      await vi.waitFor(
        async () => expect((await rig.store.certificates())[0]?.serial).toBe(ca.issued.at(-1)?.serialNumber),
        TIMEOUT,
      );
      clock.advance(31_000);
      await vi.waitFor(() => expect(ca.issued).toHaveLength(round), TIMEOUT);
    }
  });
});
