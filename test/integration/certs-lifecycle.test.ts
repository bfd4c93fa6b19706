import { X509Certificate } from 'node:crypto';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { certificateId } from '../../src/acme/directory.ts';
import { CertificateRig, openListeners, type RigOptions } from '../support/certificate-rig.ts';
import { TestClock } from '../support/clock.ts';
import { FakeCa, type FakeCaOptions } from '../support/fake-ca/index.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const HOST = 'hub.gw.test';
/** Generous: other tests share the cores. */
const TIMEOUT = { timeout: 20_000, interval: 20 };

/** A CA, and a gateway's certificates that use it, on one clock. */
async function open(ca: Partial<FakeCaOptions> = {}, rig: Partial<RigOptions> = {}) {
  const clock = new TestClock();
  const listeners = await openListeners();
  const fake = await new FakeCa({ ports: listeners.ports, now: clock.now, ...ca }).start();
  onTestFinished(() => fake.stop());
  return { clock, listeners, fake, rig: await CertificateRig.open(listeners, { issuers: [fake], clock, ...rig }) };
}

const issued = (fake: FakeCa, count: number) => vi.waitFor(() => expect(fake.issued).toHaveLength(count), TIMEOUT);
const state = (rig: CertificateRig, host = HOST) => rig.service.info(host);
/** Nothing is due: an order that has begun would not have reached the CA yet, so its absence there shows nothing. */
const quiet = (rig: CertificateRig) =>
  expect(Date.parse(state(rig)?.nextAttempt ?? '')).toBeGreaterThan(rig.clock.now());
const until = (check: () => void | Promise<void>) => vi.waitFor(check, TIMEOUT);

describe('obtaining', () => {
  it('reports each step and has the certificate in use at the end', async () => {
    const { rig, fake } = await open();
    await rig.start();
    const { steps, error } = await rig.obtain(HOST);
    expect(error).toBeNull();
    expect(steps.map(({ step }) => step)).toEqual(['resolve', 'order', 'challenge', 'validate', 'finalise', 'in use']);
    expect(rig.service.contexts().byHost.get(HOST)).toBeDefined();
    expect(state(rig)).toMatchObject({ state: 'valid', lastError: null, serial: fake.issued[0]?.serialNumber });
    expect(fake.issued[0]?.subjectAltName).toBe(`DNS:${HOST}`);
    expect(rig.service.httpChallenge('any')).toBeNull();
  });

  it('orders one certificate each for the domain and every alias, in the background', async () => {
    const { rig, fake } = await open();
    const hosts = ['gw.test', 'a.gw.test', 'b.gw.test', 'hub.corp.example'];
    await rig.start(...hosts, '127.0.0.1', 'localhost', { host: 'no.gw.test', order: false });
    await issued(fake, 4);
    await until(() => expect(rig.service.list().map(({ state }) => state)).toEqual(expect.arrayContaining(['valid'])));
    expect(fake.issued.map((one) => one.subjectAltName).sort()).toEqual(hosts.map((host) => `DNS:${host}`).sort());
    expect(fake.registrations).toBe(1);
    expect(rig.service.info('no.gw.test')).toBeNull();
  });

  it('makes one order of two adds at once, and tells both', async () => {
    const { rig, fake } = await open();
    await rig.start();
    const both = await Promise.all([rig.obtain(HOST), rig.obtain(HOST)]);
    expect(fake.orders).toHaveLength(1);
    expect(both.map(({ error }) => error)).toEqual([null, null]);
    expect(both[1].steps).toEqual(both[0].steps);
  });

  it('orders nothing again after a restart, and keeps the certificates of hosts that left', async () => {
    const { rig, fake } = await open();
    await rig.start(HOST);
    await issued(fake, 1);
    await until(() => expect(state(rig)?.state).toBe('valid'));
    const { serial } = state(rig) ?? {};
    await rig.restart(HOST);
    expect(rig.service.contexts().byHost.get(HOST)).toBeDefined();
    rig.service.cover([]);
    expect(rig.service.contexts().byHost.get(HOST)).toBeUndefined();
    rig.service.cover([{ host: HOST, order: true }]);
    rig.clock.advance(HOUR);
    quiet(rig);
    expect((await rig.obtain(HOST)).steps.map(({ step }) => step)).toEqual(['in use']);
    expect(state(rig)).toMatchObject({ state: 'valid', serial });
    expect(fake.orders).toHaveLength(1);
  });

  it('uses a new key for each certificate, and one account', async () => {
    const { rig, fake } = await open();
    await rig.start();
    await rig.obtain(HOST);
    await rig.obtain(HOST, true);
    const [first, second] = fake.issued;
    expect(first?.publicKey.equals(second?.publicKey as never)).toBe(false);
    expect(first?.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'prime256v1' });
    expect(fake.registrations).toBe(1);
  });

  it('lets the person go, and goes on', async () => {
    const { rig, fake } = await open({ slowPolls: 3 });
    await rig.start();
    const leaving = new AbortController();
    const waiting = rig.service.obtain(HOST, {
      onStep: () => leaving.abort(new Error('Ctrl-C')),
      signal: leaving.signal,
    });
    await expect(waiting).rejects.toThrow('Ctrl-C');
    await issued(fake, 1);
    await until(() => expect(state(rig)?.state).toBe('valid'));
  });
});

describe('failing', () => {
  it("gives the CA's error at once, marks the host pending, and tries again by the table of waits", async () => {
    const { rig, fake } = await open();
    fake.faults.push({
      at: 'newOrder',
      times: 2,
      how: { status: 403, type: 'rejectedIdentifier', detail: 'policy forbids it' },
    });
    await rig.start();
    const { error } = await rig.obtain(HOST);
    expect(error?.message).toContain('urn:ietf:params:acme:error:rejectedIdentifier: policy forbids it');
    expect(error?.message).toContain(state(rig)?.nextAttempt ?? 'no time');
    expect(error?.next).toContain('does not issue for this name');
    expect(state(rig)).toMatchObject({ state: 'pending', lastError: { detail: 'policy forbids it' } });
    const wait = Date.parse(state(rig)?.nextAttempt ?? '') - rig.clock.now();
    expect(wait).toBeGreaterThanOrEqual(48_000);
    expect(wait).toBeLessThanOrEqual(72_000);
    rig.clock.advance(40_000);
    quiet(rig);
    rig.clock.advance(35_000);
    await until(async () => expect((await rig.store.records())[0]?.failures).toBe(2));
    rig.clock.advance(3 * MINUTE);
    await issued(fake, 1);
    await until(() => expect(state(rig)).toMatchObject({ state: 'valid', lastError: null }));
    expect(await rig.metrics()).toMatch(
      /gateway_certificate_failures_total\{issuer="127[^}]*type="rejectedIdentifier"\} 2/,
    );
  });

  it.each([
    ['429 with Retry-After', { status: 429, type: 'rateLimited', detail: 'slow down', retryAfter: '7200' }],
    ['503 with Retry-After', { status: 503, type: 'serverInternal', detail: 'busy', retryAfter: '7200' }],
    ['503 without a problem document', { status: 503, retryAfter: '7200' }],
  ] as const)('waits as long as %s says, over a restart', async (_, how) => {
    const { rig, fake, clock } = await open();
    fake.faults.push({ at: 'newOrder', times: 1, how });
    await rig.start();
    const { error } = await rig.obtain(HOST);
    expect(error).not.toBeNull();
    const { nextAttempt, lastError } = state(rig) ?? {};
    expect(Date.parse(nextAttempt ?? '')).toBeGreaterThanOrEqual(clock.now() + 2 * HOUR - 1_000);
    await rig.restart(HOST);
    expect(state(rig)).toMatchObject({ state: 'pending', nextAttempt, lastError });
    clock.advance(HOUR);
    quiet(rig);
    // A person does not undercut what the CA asked for either.
    const asked = await rig.obtain(HOST);
    expect(asked.error?.message).toMatch(/is not asked before .* left alone/);
    expect(state(rig)?.lastError).toEqual(lastError);
    expect(fake.requests.filter((resource) => resource === 'newOrder')).toHaveLength(1);
    clock.advance(HOUR + MINUTE);
    await issued(fake, 1);
  });

  it('waits by its own table where rateLimited comes without Retry-After', async () => {
    const { rig, fake, clock } = await open();
    fake.faults.push({ at: 'newOrder', times: 1, how: { status: 429, type: 'rateLimited', detail: 'too many' } });
    await rig.start();
    await rig.obtain(HOST);
    const wait = Date.parse(state(rig)?.nextAttempt ?? '') - clock.now();
    expect(wait).toBeLessThan(2 * MINUTE);
    expect(state(rig)?.lastError?.type).toBe('urn:ietf:params:acme:error:rateLimited');
  });

  it('registers again with the same key where the CA has lost the account', async () => {
    const { rig, fake } = await open();
    await rig.start();
    await rig.obtain(HOST);
    const before = await rig.store.account(fake.directory);
    fake.forgetAccounts();
    await rig.restart(HOST);
    const { steps, error } = await rig.obtain(HOST, true);
    expect(error).toBeNull();
    expect(steps.map(({ step }) => step)).toContain('account');
    expect(await rig.store.account(fake.directory)).toEqual(before);
    expect(fake.registrations).toBe(2);
  });

  it.each([false, true])(
    'finds its account again after a kill right after registering (update refused: %s)',
    async (refused) => {
      const { rig, fake } = await open();
      await rig.start();
      await rig.obtain(HOST);
      const account = await rig.store.account(fake.directory);
      if (refused) fake.faults.push({ at: 'account', how: { status: 403, type: 'unauthorized' } });
      await rig.store.putAccount({ directory: fake.directory, key: account?.key ?? '', url: null });
      await rig.restart(HOST);
      expect((await rig.obtain(HOST, true)).error).toBeNull();
      expect(await rig.store.account(fake.directory)).toEqual(account);
      expect(fake.registrations).toBe(1);
    },
  );

  it.each(['hang', 'drop'] as const)('bounds a CA that %ss, and takes the order up again', async (how) => {
    const { rig, fake, clock } = await open({ lifetime: MINUTE });
    await rig.start();
    await rig.obtain(HOST);
    fake.faults.push({ at: 'finalize', times: 1, how });
    // 30 s left: no answer may take more than its share of that.
    clock.advance(31_000);
    await until(() => expect(state(rig)?.lastError?.type).toBe(how === 'hang' ? 'timeout' : 'network'));
    expect(state(rig)?.state).toBe('valid');
    expect(await rig.store.order(HOST, fake.directory)).not.toBeNull();
    await rig.restart(HOST);
    expect(state(rig)?.lastError?.type).toBe(how === 'hang' ? 'timeout' : 'network');
    clock.advance(4_000);
    await issued(fake, 2);
    await until(() => expect(state(rig)?.lastError).toBeNull());
    expect(fake.orders).toHaveLength(2);
  });

  it('goes on with an order that a kill left at any step', async () => {
    for (const at of ['authorization', 'challenge', 'finalize', 'order', 'certificate'] as const) {
      const { rig, fake, clock } = await open({ slowPolls: 1 });
      await rig.start();
      fake.faults.push({ at, times: 1, how: 'drop' });
      await rig.obtain(HOST);
      const key = (await rig.store.order(HOST, fake.directory))?.key;
      expect(key, at).toBeDefined();
      await rig.restart(HOST);
      clock.advance(2 * MINUTE);
      await until(() => expect(state(rig)?.state, at).toBe('valid'));
      expect(fake.orders, at).toHaveLength(1);
      expect(fake.issued, at).toHaveLength(1);
      expect(rig.service.exportCertificate(HOST).key).toBe(key);
    }
  });

  it('orders anew where the CA no longer has the order that was left', async () => {
    const { rig, fake } = await open();
    await rig.start();
    fake.faults.push({ at: 'finalize', times: 1, how: 'drop' });
    await rig.obtain(HOST);
    fake.faults.push({ at: 'order', times: 1, how: { status: 404, type: 'malformed', detail: 'no such order' } });
    expect((await rig.obtain(HOST)).error).toBeNull();
    expect(fake.orders).toHaveLength(2);
  });

  it('serves an expired certificate rather than none, and says so', async () => {
    const { rig, fake, clock } = await open({ lifetime: HOUR });
    await rig.start();
    await rig.obtain(HOST);
    fake.faults.push({ at: 'directory', how: 'drop' });
    await rig.restart(HOST);
    clock.advance(2 * HOUR);
    await until(() => expect(state(rig)?.lastError?.type).toBe('network'));
    expect(state(rig)?.state).toBe('expired');
    expect(rig.service.contexts().byHost.get(HOST)).toBeDefined();
    expect(rig.service.warnings().join()).toContain(`the certificate of ${HOST} ran out`);
    expect((await rig.service.explain(HOST)).summary).toContain('RAN OUT');
    expect(await rig.metrics()).toContain('gateway_certificate_state{host="hub.gw.test",state="expired"} 1');
    fake.faults.length = 0;
    clock.advance(10 * MINUTE);
    await issued(fake, 2);
    await until(() => expect(state(rig)?.state).toBe('valid'));
  });

  it('holds up no other host', async () => {
    const { rig, fake } = await open();
    fake.faults.push({ at: 'newOrder', host: 'bad.gw.test', how: 'hang' });
    const good = Array.from({ length: 20 }, (_, n) => `h${n}.gw.test`);
    await rig.start('bad.gw.test', ...good);
    await issued(fake, 20);
    await until(() => expect(good.map((host) => state(rig, host)?.state)).toEqual(good.map(() => 'valid')));
    expect(state(rig, 'bad.gw.test')?.state).toBe('pending');
  });

  it('is ready while the CA is down at start, and obtains the rest when it returns', async () => {
    const { rig, fake, clock } = await open();
    fake.faults.push({ at: 'directory', how: 'drop' });
    await rig.start(HOST);
    await until(() => expect(state(rig)?.lastError?.type).toBe('network'));
    fake.faults.length = 0;
    clock.advance(2 * MINUTE);
    await issued(fake, 1);
  });

  it('notices that the clock is off', async () => {
    const { rig } = await open({ dateOffset: -10 * MINUTE });
    await rig.start();
    await rig.obtain(HOST);
    expect(rig.service.warnings().join()).toMatch(/clock is (599|60\d) s ahead of/);
    expect((await rig.service.explain(HOST)).advice.join()).toContain('set it by NTP');
  });
});

describe('renewing', () => {
  it('renews when a third of the lifetime is left, and not before', async () => {
    const { rig, fake, clock } = await open({ lifetime: 90 * DAY });
    await rig.start();
    await rig.obtain(HOST);
    clock.advance(56 * DAY);
    quiet(rig);
    expect(fake.orders).toHaveLength(1);
    clock.advance(4 * DAY + HOUR);
    await issued(fake, 2);
  });

  it('renews short-lived ones at half of their life', async () => {
    const { rig, fake, clock } = await open({ lifetime: 160 * HOUR });
    await rig.start();
    await rig.obtain(HOST);
    clock.advance(74 * HOUR);
    quiet(rig);
    expect(fake.orders).toHaveLength(1);
    clock.advance(7 * HOUR);
    await issued(fake, 2);
  });

  it('follows the window of ARI, names what is replaced, and keeps its moment over a restart', async () => {
    const window = { start: 0, end: 0 };
    const { rig, fake, clock } = await open({ window: () => window });
    Object.assign(window, { start: clock.now() + 20 * DAY, end: clock.now() + 22 * DAY });
    await rig.start();
    await rig.obtain(HOST);
    clock.advance(2 * MINUTE);
    await until(async () =>
      expect((await rig.store.records())[0]?.renewal).toMatchObject({ explanation: 'https://ca.example/why' }),
    );
    const { nextAttempt } = state(rig) ?? {};
    expect(Date.parse(nextAttempt ?? '')).toBeGreaterThanOrEqual(window.start);
    expect(Date.parse(nextAttempt ?? '')).toBeLessThanOrEqual(window.end);
    await rig.restart(HOST);
    expect(state(rig)?.nextAttempt).toBe(nextAttempt);
    const old = rig.service.exportCertificate(HOST).certificate;
    clock.advance(19 * DAY);
    quiet(rig);
    expect(fake.orders).toHaveLength(1);
    clock.advance(3 * DAY);
    await issued(fake, 2);
    expect(fake.orders[1]?.replaces).toBe(certificateId(old));
  });

  it('replaces a revoked certificate at once, with a new key', async () => {
    let revoked = false;
    const { rig, fake, clock } = await open({
      window: (certificate) => {
        const end = certificate.validToDate.getTime();
        return revoked && certificate === fake.issued[0]
          ? { start: clock.now() - 2 * HOUR, end: clock.now() - HOUR }
          : { start: end - 30 * DAY, end: end - 28 * DAY };
      },
      renewalRetryAfter: '3600',
    });
    await rig.start();
    await rig.obtain(HOST);
    clock.advance(2 * MINUTE);
    await until(async () => expect((await rig.store.records())[0]?.renewal).toBeTruthy());
    revoked = true;
    clock.advance(HOUR + MINUTE);
    await issued(fake, 2);
    await until(() => expect(state(rig)?.serial).toBe(fake.issued[1]?.serialNumber));
    expect(fake.issued[1]?.publicKey.equals(fake.issued[0]?.publicKey as never)).toBe(false);
    expect((await rig.service.explain(HOST)).events.map(({ event }) => event).join()).toContain(
      'wants this certificate replaced at once',
    );
    clock.advance(DAY);
    quiet(rig);
    expect(fake.orders).toHaveLength(2);
  });

  it('orders without `replaces` where the CA answers it with 409', async () => {
    const { rig, fake } = await open({
      window: (one) => ({ start: one.validToDate.getTime() - DAY, end: one.validToDate.getTime() }),
    });
    await rig.start();
    await rig.obtain(HOST);
    fake.markReplaced(rig.service.exportCertificate(HOST).certificate);
    expect((await rig.obtain(HOST, true)).error).toBeNull();
    expect(fake.orders.map(({ replaces }) => replaces !== undefined)).toEqual([false, true, false]);
  });

  it('renews by share of life while ARI fails', async () => {
    const { rig, fake, clock } = await open({ window: () => ({ start: 0, end: 1 }) });
    fake.faults.push({ at: 'renewalInfo', how: { status: 500, type: 'serverInternal' } });
    await rig.start();
    await rig.obtain(HOST);
    clock.advance(56 * DAY);
    quiet(rig);
    expect(fake.orders).toHaveLength(1);
    clock.advance(5 * DAY);
    await issued(fake, 2);
  });

  it('renews certificates of a minute again and again, and is never without', async () => {
    const { rig, fake, clock } = await open({ lifetime: MINUTE });
    await rig.start(HOST);
    await issued(fake, 1);
    for (let round = 2; round <= 6; round++) {
      await until(async () =>
        expect((await rig.store.certificates())[0]?.serial).toBe(fake.issued.at(-1)?.serialNumber),
      );
      clock.advance(31_000);
      await issued(fake, round);
      expect(state(rig)?.state).toBe('valid');
    }
  });
});

describe('challenges and issuers', () => {
  it('falls to the next kind of challenge, and begins with what worked the next time', async () => {
    const { rig, fake, listeners } = await open({ ports: { http: 1, tls: 0 } });
    Object.assign(fake.options.ports, { tls: listeners.ports.tls });
    await rig.start();
    const first = await rig.obtain(HOST);
    expect(first.error).toBeNull();
    expect(first.steps.filter(({ step }) => step === 'challenge').map(({ message }) => message.split(':')[0])).toEqual([
      'http-01',
      'tls-alpn-01',
    ]);
    await rig.restart(HOST);
    const second = await rig.obtain(HOST, true);
    expect(second.steps.filter(({ step }) => step === 'challenge').map(({ message }) => message.split(':')[0])).toEqual(
      ['tls-alpn-01'],
    );
    expect(rig.service.alpnChallenges.size).toBe(0);
  });

  it('tells of every kind of challenge why it failed', async () => {
    const { rig } = await open({ ports: { http: 1, tls: 2 } });
    await rig.start();
    const { error } = await rig.obtain(HOST);
    expect(error?.message).toMatch(/\(by tls-alpn-01\); by http-01: \S+: .*127\.0\.0\.1:1/);
    const [info] = rig.service.list();
    expect(info?.lastError?.type).toBe('urn:ietf:params:acme:error:connection');
    expect(info?.lastError?.detail).toContain('by http-01: ');
  });

  it('uses what the CA offers', async () => {
    const { rig } = await open({ challenges: ['dns-01', 'tls-alpn-01'] });
    await rig.start();
    expect((await rig.obtain(HOST)).error).toBeNull();
    const none = await open({ challenges: ['dns-01'] });
    await none.rig.start();
    expect((await none.rig.obtain(HOST)).error?.message).toContain('offers no tls-alpn-01 challenge');
  });

  it('asks the next issuer where one fails, and the first one first the next time', async () => {
    const { fake, clock, listeners } = await open();
    const second = await new FakeCa({ ports: listeners.ports, now: clock.now }).start();
    onTestFinished(() => second.stop());
    const rig = await CertificateRig.open(listeners, { issuers: [fake, second], clock });
    fake.faults.push({ at: 'newOrder', times: 1, how: { status: 503, retryAfter: '600' } });
    await rig.start();
    expect((await rig.obtain(HOST)).error).toBeNull();
    expect([fake.issued.length, second.issued.length]).toEqual([0, 1]);
    expect((await rig.obtain('other.gw.test')).error).toBeNull();
    expect([fake.issued.length, second.issued.length]).toEqual([1, 1]);
    // This host's hold at the first CA is still on.
    expect((await rig.obtain(HOST, true)).error).toBeNull();
    expect([fake.issued.length, second.issued.length]).toEqual([1, 2]);
  });

  it('names the problem of each issuer where all fail', async () => {
    const { fake, clock, listeners } = await open();
    const second = await new FakeCa({ ports: listeners.ports, now: clock.now }).start();
    onTestFinished(() => second.stop());
    fake.faults.push({
      at: 'newOrder',
      how: { status: 429, type: 'rateLimited', detail: 'one is full', retryAfter: '86400' },
    });
    second.faults.push({ at: 'newOrder', how: { status: 403, type: 'caa', detail: 'two may not' } });
    const rig = await CertificateRig.open(listeners, { issuers: [fake, second], clock });
    await rig.start();
    const { error } = await rig.obtain(HOST);
    expect(error?.message).toMatch(/one is full.*two may not/);
    // The second is willing before the first.
    expect(Date.parse(state(rig)?.nextAttempt ?? '') - clock.now()).toBeLessThan(2 * MINUTE);
  });

  it('binds an external account, and says what is missing without one', async () => {
    const { fake, clock, listeners, rig } = await open({ eab: true });
    await rig.start();
    const refused = await rig.obtain(HOST);
    expect(refused.error?.next).toContain('acme.issuers[].eab');
    const bound = await CertificateRig.open(listeners, {
      issuers: [
        { directory: fake.directory, eab: { keyId: 'kid-1', hmacKey: Buffer.from('secret').toString('base64url') } },
      ],
      clock,
    });
    await bound.start();
    expect((await bound.obtain(HOST)).error).toBeNull();
    const [binding] = fake.externalAccounts as { protected: string }[];
    expect(JSON.parse(Buffer.from(binding?.protected ?? '', 'base64url').toString())).toMatchObject({
      alg: 'HS256',
      kid: 'kid-1',
    });
  });

  it('asks for the configured profile, and names those on offer where it is none of them', async () => {
    const { fake, clock, listeners } = await open({ profiles: ['classic', 'shortlived'] });
    const rig = await CertificateRig.open(listeners, {
      issuers: [{ directory: fake.directory, profile: 'shortlived' }],
      clock,
    });
    await rig.start();
    expect((await rig.obtain(HOST)).error).toBeNull();
    expect(fake.orders[0]?.profile).toBe('shortlived');
    const wrong = await CertificateRig.open(listeners, {
      issuers: [{ directory: fake.directory, profile: 'fast' }],
      clock,
    });
    await wrong.start();
    expect((await wrong.obtain(HOST)).error?.message).toContain('offers no profile fast, only: classic, shortlived');
  });

  it('keeps an account for each issuer', async () => {
    const { fake, clock, listeners } = await open();
    const second = await new FakeCa({ ports: listeners.ports, now: clock.now }).start();
    onTestFinished(() => second.stop());
    const rig = await CertificateRig.open(listeners, { issuers: [fake, second], clock });
    fake.faults.push({ at: 'newOrder', times: 1, how: 'drop' });
    await rig.start();
    await rig.obtain(HOST);
    const [one, two] = [await rig.store.account(fake.directory), await rig.store.account(second.directory)];
    expect(one?.key).toBeDefined();
    expect(two?.key).toBeDefined();
    expect(one?.key).not.toBe(two?.key);
  });
});

describe('operator-supplied certificates', () => {
  it('cover hosts without an order, until they grow old', async () => {
    const { rig, fake, clock } = await open();
    await rig.start({ host: 'a.corp.example', order: false });
    // A wildcard from the fake CA's twin, as an operator would bring it.
    const { certificate, key } = (await open()).fake.issue('*.corp.example');
    expect((await rig.service.importCertificate(certificate, key)).names).toEqual(['*.corp.example']);
    rig.service.cover([
      { host: 'a.corp.example', order: true },
      { host: 'b.a.corp.example', order: true },
    ]);
    await issued(fake, 1);
    expect(fake.orders.map(({ host }) => host)).toEqual(['b.a.corp.example']);
    const leaf = new X509Certificate(rig.service.exportCertificate('a.corp.example').certificate);
    expect(leaf.subjectAltName).toBe('DNS:*.corp.example');
    await expect(rig.service.renew('a.corp.example', () => {})).rejects.toThrow(/imported/);
    await rig.restart('a.corp.example');
    expect(state(rig, 'a.corp.example')?.state).toBe('valid');
    clock.advance(62 * DAY);
    await until(() => expect(fake.orders.some(({ host }) => host === 'a.corp.example')).toBe(true));
  });
});
