import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest';
import { CertificateRig, openListeners } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { FakeCa } from '../support/fake-ca/index.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { openNode } from '../support/postgres-stores.ts';
import { startProgram } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';

const HOST = 'hub.gw.test';
const WAIT = { timeout: 30_000, interval: 20 };
const HOLDER = fileURLToPath(new URL('../support/lock-holder/main.ts', import.meta.url));

describeWith(POSTGRES, 'certificates of nodes over one PostgreSQL', () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await PostgresServer.start();
  });
  afterAll(() => server?.stop());

  /** Two nodes; the CA meets the second, which the names lead to. */
  async function openTwo() {
    const url = await server.createDatabase();
    const clock = new TestClock();
    const listeners = await openListeners();
    const ca = await new FakeCa({ ports: listeners.ports, now: clock.now }).start();
    onTestFinished(() => ca.stop());
    const rigs: CertificateRig[] = [];
    const open = async () => {
      const stores = await openNode(url);
      // What nodes of a fleet wait for: that whichever of them the CA meets knows the answer.
      const published = async () => {
        await eventually('all nodes to answer the challenges', async () =>
          (await stores.challenges.list(clock.now())).every((challenge) =>
            rigs.every(({ service }) =>
              challenge.type === 'http-01'
                ? service.httpChallenge(challenge.token) !== null
                : challenge.type !== 'tls-alpn-01' || service.alpnChallenges.has(challenge.host),
            ),
          ),
        );
      };
      const rig = await CertificateRig.open(listeners, { issuers: [ca], clock, stores, published });
      rigs.push(rig);
      return rig;
    };
    const [one, two] = [await open(), await open()];
    return { url, clock, ca, one, two };
  }

  it('are ordered once where two nodes want one at the same time, and served by both', async () => {
    const { ca, one, two } = await openTwo();
    await one.start();
    await two.start();
    const both = await Promise.all([one.obtain(HOST), two.obtain(HOST)]);
    expect(both.map(({ error }) => error)).toEqual([null, null]);
    expect(ca.orders).toHaveLength(1);
    expect(ca.registrations).toBe(1);
    const serial = one.service.info(HOST)?.serial;
    expect(two.service.info(HOST)).toMatchObject({ state: 'valid', serial });
  });

  it('are ordered once by the schedules of two nodes, renewals and what is asked about them included', async () => {
    const { clock, ca, one, two } = await openTwo();
    await one.start(HOST);
    await two.start(HOST);
    await vi.waitFor(() => {
      for (const node of [one, two]) expect(node.service.info(HOST)?.state).toBe('valid');
    }, WAIT);
    expect(ca.orders).toHaveLength(1);
    const first = one.service.info(HOST)?.serial;
    clock.advance(75 * 24 * 3_600_000);
    await vi.waitFor(() => {
      for (const node of [one, two]) {
        expect(node.service.info(HOST)?.state).toBe('valid');
        expect(node.service.info(HOST)?.serial).not.toBe(first);
      }
    }, WAIT);
    expect(ca.orders).toHaveLength(2);
  });

  it('leave nothing of a node whose lock another was granted meanwhile', async () => {
    const { url, ca, one, two } = await openTwo();
    await one.start();
    await two.start();
    const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
    ca.faults.push({ at: 'newOrder', times: 1, how: { until } });
    const obtaining = one.obtain(HOST);
    await vi.waitFor(() => expect(ca.requests).toContain('newOrder'), WAIT);
    // As if the first had stood still until its lease was over.
    await server.query(`UPDATE locks SET expires_at = now() - interval '1 s' WHERE name = 'certificate ${HOST}'`, url);
    expect((await two.obtain(HOST)).error).toBeNull();
    const { serial } = (await two.store.certificate('acme', HOST)) ?? {};
    goOn();
    expect((await obtaining).error).toMatchObject({ code: 'CERTIFICATE_TAKEN_OVER' });
    expect(await one.store.certificates()).toMatchObject([{ serial }]);
    expect(await one.store.record(HOST)).toMatchObject({ failures: 0, lastError: null });
    await vi.waitFor(
      () => expect(one.service.info(HOST)).toMatchObject({ state: 'valid', serial, lastError: null }),
      WAIT,
    );
    // One extra order for the node that stood in the middle of one.
    expect(ca.orders.length).toBeLessThanOrEqual(2);
    expect(ca.issued).toHaveLength(1);
  });

  it('are not written to by a process that was stopped for longer than its lease', async () => {
    const url = await server.createDatabase();
    const { certificates, locks } = await openNode(url);
    const key = randomBytes(32).toString('base64');
    const holder = startProgram({ command: process.execPath, args: [HOLDER, url, key, '800'] });
    onTestFinished(() => holder.kill());
    await holder.waitFor(/held/);
    holder.signal('SIGSTOP');
    const next = await locks.acquire('certificate a.example.com', { leaseMs: 60_000 });
    holder.signal('SIGCONT');
    const [, written, why] = await holder.waitFor(/write: (\w+); lost: (.*)/);
    expect(written).toBe('FencedError');
    expect(why).toContain('certificate a.example.com');
    expect(await certificates.record('a.example.com')).toBeNull();
    await next.release();
  });
});
