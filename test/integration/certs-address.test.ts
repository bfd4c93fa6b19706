import { expect, it, onTestFinished, vi } from 'vitest';
import { CertificateRig, openListeners } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { FakeCa, type FakeCaOptions } from '../support/fake-ca/index.ts';

const HOUR = 3_600_000;
/** Let's Encrypt's profile `shortlived`. */
const SHORT = 160 * HOUR;

async function open(ca: Partial<FakeCaOptions>, profile: string | null = null) {
  const clock = new TestClock();
  const listeners = await openListeners();
  const fake = await new FakeCa({ ports: listeners.ports, now: clock.now, lifetime: SHORT, ...ca }).start();
  onTestFinished(() => fake.stop());
  const issuers = [{ directory: fake.directory, profile }];
  return { clock, fake, rig: await CertificateRig.open(listeners, { issuers, clock }) };
}

it.each([
  ['http-01', '9.9.9.9', 'IP Address:9.9.9.9'],
  ['tls-alpn-01', '9.9.9.9', 'IP Address:9.9.9.9'],
  ['http-01', '2620:fe::fe', 'IP Address:2620:FE:0:0:0:0:0:FE'],
  ['tls-alpn-01', '2620:fe::fe', 'IP Address:2620:FE:0:0:0:0:0:FE'],
])('an address is proved by %s: %s', async (kind, address, name) => {
  const { fake, rig } = await open({ challenges: [kind] });
  await rig.start();
  const { error, steps } = await rig.obtain(address);
  expect(error).toBeNull();
  expect(steps.filter(({ step }) => step === 'challenge').at(-1)?.message).toContain(kind);
  expect(fake.orders.at(-1)).toMatchObject({ host: address, type: 'ip' });
  expect(fake.issued[0]?.subjectAltName).toBe(name);
  expect(rig.service.info(address)).toMatchObject({ state: 'valid' });
});

it('is renewed when half of its 160 hours are left', async () => {
  const { clock, fake, rig } = await open({});
  await rig.start('9.9.9.9');
  await vi.waitFor(() => expect(rig.service.info('9.9.9.9')?.state).toBe('valid'), 20_000);
  const half = Date.parse(rig.service.info('9.9.9.9')?.nextAttempt ?? '') - clock.now();
  expect(half).toBeGreaterThan(SHORT * 0.45);
  expect(half).toBeLessThanOrEqual(SHORT / 2);
  clock.advance(SHORT / 2);
  await vi.waitFor(() => expect(fake.issued).toHaveLength(2), 20_000);
});

it.each([
  ['shortlived, where the CA has it', ['classic', 'shortlived'], 'shortlived'],
  ['none, where the CA has others', ['classic'], undefined],
  ['none, where the CA has no profiles', undefined, undefined],
])('the profile of an address is %s', async (_, profiles, chosen) => {
  const { fake, rig } = await open(profiles === undefined ? {} : { profiles });
  await rig.start();
  expect((await rig.obtain('9.9.9.9')).error).toBeNull();
  // That of a name is the CA's own choice.
  expect((await rig.obtain('hub.gw.test')).error).toBeNull();
  expect(fake.orders.map(({ profile }) => profile)).toEqual([chosen, undefined]);
});

it('a configured profile is the one that is asked for, and what the CA does not list is refused before the order', async () => {
  const { fake, rig } = await open({ profiles: ['classic', 'shortlived'] }, 'classic');
  await rig.start();
  expect((await rig.obtain('9.9.9.9')).error).toBeNull();
  expect(fake.orders.map(({ profile }) => profile)).toEqual(['classic']);
  const other = await open({}, 'tlsserver');
  await other.rig.start();
  const { error } = await other.rig.obtain('9.9.9.9');
  expect(error?.message).toMatch(/offers no profile tlsserver, no profiles at all/);
  expect(error?.next).toContain('acme.issuers[].profile');
  expect(other.fake.orders).toEqual([]);
});
