import { expect, it, onTestFinished, vi } from 'vitest';
import type { Lock, Locks } from '../../src/kit/locks.ts';
import { CertificateRig, openListeners, type RigOptions } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { FakeCa } from '../support/fake-ca/index.ts';

const HOST = 'hub.gw.test';
const WAIT = { timeout: 20_000, interval: 20 };

/** Two nodes over one database. The CA meets the second: its listeners are the ones that the names lead to. */
async function openTwo(options: Partial<RigOptions> = {}) {
  const clock = new TestClock();
  const listeners = await openListeners();
  const ca = await new FakeCa({ ports: listeners.ports, now: clock.now }).start();
  onTestFinished(() => ca.stop());
  const one = await CertificateRig.open(listeners, { issuers: [ca], clock, ...options });
  const two = await CertificateRig.open(listeners, { issuers: [ca], clock, ...options, beside: one });
  await one.start();
  await two.start();
  return { clock, ca, one, two };
}

it.each(['http-01', 'tls-alpn-01'] as const)('answers %s for an order of another node', async (challenge) => {
  const { ca, one, two } = await openTwo({ challenges: [challenge] });
  expect((await one.obtain(HOST)).error).toBeNull();
  expect(ca.issued).toHaveLength(1);
  // What one node got, the other serves.
  two.service.cover([{ host: HOST, order: true }]);
  const serial = one.service.info(HOST)?.serial;
  await vi.waitFor(() => expect(two.service.info(HOST)).toMatchObject({ state: 'valid', serial }), WAIT);
  expect(two.service.contexts().byHost.get(HOST)).toBeDefined();
  expect(two.service.alpnChallenges.size).toBe(0);
});

it('makes one order of a name that two nodes want at once', async () => {
  const { ca, one, two } = await openTwo();
  const both = await Promise.all([one.obtain(HOST), two.obtain(HOST)]);
  expect(both.map(({ error }) => error)).toEqual([null, null]);
  expect(ca.orders).toHaveLength(1);
  expect(ca.registrations).toBe(1);
  expect(both[1]?.steps.map(({ step }) => step)).toEqual(['order', 'in use']);
  expect(both[1]?.steps[0]?.message).toContain('another node');
  expect(two.service.info(HOST)).toMatchObject({ state: 'valid', serial: one.service.info(HOST)?.serial });
});

it('knows on every node that a CA asked to wait', async () => {
  const { ca, one, two } = await openTwo();
  ca.faults.push({
    at: 'newOrder',
    times: 1,
    how: { status: 429, type: 'rateLimited', detail: 'no', retryAfter: '7200' },
  });
  expect((await one.obtain(HOST)).error).not.toBeNull();
  expect((await two.obtain(HOST)).error?.message).toMatch(/is not asked before .* left alone/);
  expect(ca.requests.filter((resource) => resource === 'newOrder')).toHaveLength(1);
});

it('ends an order whose lock is lost as one that another node has taken over, and looks how that went', async () => {
  const lost = new AbortController();
  const lock: Lock = { name: 'any', fence: 1, lost: lost.signal, release: async () => {} };
  const free: Lock = { ...lock, lost: new AbortController().signal };
  const grant = async (name: string) => (lost.signal.aborted || !name.startsWith('certificate') ? free : lock);
  const locks: Locks = { acquire: async () => free, tryAcquire: grant, holder: async () => null };
  const { ca, one } = await openTwo({ locks });
  ca.faults.push({ at: 'newOrder', times: 1, how: 'hang' });
  const obtaining = one.obtain(HOST);
  await vi.waitFor(() => expect(ca.requests).toContain('newOrder'), WAIT);
  lost.abort(new Error('the lock was lost'));
  expect((await obtaining).error).toMatchObject({ code: 'CERTIFICATE_TAKEN_OVER' });
  // It is no failure of the CA, and nothing is to be waited for.
  expect(one.service.info(HOST)?.lastError).toBeNull();
  await vi.waitFor(() => expect(one.service.info(HOST)?.state).toBe('valid'), WAIT);
  expect(ca.issued).toHaveLength(1);
});
