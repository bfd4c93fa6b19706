import { afterEach, describe, expect, test } from 'vitest';
import { Access, type AccessRequest } from '../../../src/access/access.ts';
import { Quotas } from '../../../src/access/quotas.ts';
import { Users } from '../../../src/access/users.ts';
import type { Config } from '../../../src/config/config.ts';
import type { AccessPort } from '../../../src/edge/request-context.ts';
import { RegistryError, renderError } from '../../../src/oci/errors.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryCounterStore, MemoryUserStore } from '../../support/access-stores.ts';

const open: Access[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

async function access(options: {
  rules?: Partial<Config['access']>;
  limits?: Partial<Config['limits']>;
  counters?: MemoryCounterStore;
  users?: Users;
}): Promise<Access> {
  const clocks = { now: () => Date.UTC(2026, 10, 22), monotonic: () => 0 };
  const limits = { requestsPerMinute: null, bytesPerDay: null, bytesPerMonth: null, ...options.limits };
  const one = new Access({
    rules: { anonymous: null, allow: [], deny: [], ...options.rules },
    limits,
    users: options.users ?? (await Users.open(new MemoryUserStore(), silentLog())),
    quotas: await Quotas.open({ ...limits, store: options.counters ?? new MemoryCounterStore(), clocks }),
    log: silentLog(),
    now: clocks.monotonic,
  });
  open.push(one satisfies AccessPort);
  return one;
}

const basic = (name: string, token: string) => `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`;
const accessRequest = (change: Partial<AccessRequest> = {}) => ({
  address: '192.0.2.1',
  authorization: undefined,
  host: 'cr.example.com',
  ...change,
});

function refused(run: () => unknown): RegistryError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(RegistryError);
    return error as RegistryError;
  }
  throw new Error('nothing was thrown');
}

describe('who may pull', () => {
  test('everyone while there is no user, whatever they send', async () => {
    const one = await access({});
    for (const authorization of [undefined, basic('hub', 'password'), 'Bearer x', 'nonsense']) {
      expect(one.check(accessRequest({ authorization }))).toEqual({
        user: null,
        authenticated: false,
        known: false,
        client: '192.0.2.1',
      });
    }
  });

  test('users only, from the first user on, and nobody after the last', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const one = await access({ users });
    const { token } = await users.add('ci');
    expect(refused(() => one.check(accessRequest())).kind).toBe('unauthorized');
    expect(refused(() => one.check(accessRequest({ authorization: 'Bearer x' }))).kind).toBe('unauthorized');
    expect(one.check(accessRequest({ authorization: basic('ci', token) }))).toEqual({
      user: 'ci',
      authenticated: true,
      known: true,
      client: 'user:ci',
    });
    await users.remove('ci');
    expect(refused(() => one.check(accessRequest())).kind).toBe('unauthorized');
    expect(refused(() => one.check(accessRequest({ authorization: basic('ci', token) }))).kind).toBe(
      'credentialsWrong',
    );
  });

  test('from the networks of access.anonymous without credentials, from elsewhere with them', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const one = await access({ users, rules: { anonymous: ['10.0.0.0/8', '2001:db8::/32', '::ffff:172.16.0.0/108'] } });
    const check = (address: string, authorization?: string) => one.check(accessRequest({ address, authorization }));
    // Whether there are users or not.
    const { token } = await users.add('ci');
    for (const address of ['10.1.2.3', '::ffff:10.1.2.3', '2001:db8:1::7', '172.16.9.9', '::ffff:172.16.9.9']) {
      expect(check(address).user).toBeNull();
      expect(check(address, basic('ci', token)).user).toBe('ci');
      expect(refused(() => check(address, basic('ci', 'wrong'))).kind).toBe('credentialsWrong');
    }
    for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db9::1', 'unknown', '']) {
      expect(refused(() => check(address)).kind).toBe('unauthorized');
      expect(check(address, basic('ci', token)).user).toBe('ci');
    }
    await users.remove('ci');
    expect(check('10.1.2.3').user).toBeNull();
    expect(refused(() => check('10.1.2.3', basic('ci', token))).kind).toBe('credentialsWrong');
    expect(refused(() => check('192.0.2.1')).kind).toBe('unauthorized');
  });

  test('an expired token is refused in words, whoever may come without', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const { token } = await users.add('ci', '2026-11-22T00:00:00.000Z', Date.UTC(2026, 10, 1));
    for (const anonymous of [null, true, ['192.0.2.0/24']]) {
      const one = await access({ users, rules: { anonymous } });
      const error = refused(() => one.check(accessRequest({ authorization: basic('ci', token) })));
      const { status, headers, body } = renderError(error);
      expect(status).toBe(401);
      expect(headers['www-authenticate']).toContain('Basic realm=');
      expect(body).toContain('the token of ci expired at 2026-11-22T00:00:00.000Z');
    }
  });

  test('anonymous: true keeps it open; wrong credentials are refused all the same', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const one = await access({ users, rules: { anonymous: true } });
    const { token } = await users.add('ci');
    expect(one.check(accessRequest()).authenticated).toBe(false);
    expect(one.check(accessRequest({ authorization: basic('ci', token) })).authenticated).toBe(true);
    expect(refused(() => one.check(accessRequest({ authorization: basic('ci', 'wrong') }))).kind).toBe(
      'credentialsWrong',
    );
    expect(one.check(accessRequest({ authorization: 'Bearer of-another-registry' })).authenticated).toBe(false);
  });

  test('anonymous: false is closed even without users', async () => {
    const closed = await access({ rules: { anonymous: false } });
    expect(refused(() => closed.check(accessRequest())).kind).toBe('unauthorized');
  });

  test('the challenge is Basic, and nothing of the host breaks out of it', async () => {
    const one = await access({ rules: { anonymous: false } });
    const { status, headers } = renderError(refused(() => one.check(accessRequest())));
    expect(status).toBe(401);
    expect(headers['www-authenticate']).toBe('Basic realm="cr.example.com", charset="UTF-8"');
    const evil = renderError(
      refused(() => one.check(accessRequest({ host: 'a", Bearer realm="https://evil"\r\nx: y' }))),
    );
    expect(evil.headers['www-authenticate']).toMatch(/^Basic realm="[A-Za-z0-9.:-]+", charset="UTF-8"$/);
    const none = renderError(refused(() => one.check(accessRequest({ host: '' }))));
    expect(none.headers['www-authenticate']).toContain('realm="registry gateway"');
  });

  test('address rules come before everything', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const { token } = await users.add('ci');
    const one = await access({ users, rules: { deny: ['192.0.2.0/24'] } });
    const error = refused(() => one.check(accessRequest({ authorization: basic('ci', token) })));
    expect(error.kind).toBe('clientDenied');
    expect(error.message).toContain('192.0.2.1');
  });
});

describe('limits', () => {
  test('requests a minute, for each address, IPv6 by /64, or user', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const { token } = await users.add('ci');
    const one = await access({ users, rules: { anonymous: true }, limits: { requestsPerMinute: 2 } });
    const authorization = basic('ci', token);
    one.check(accessRequest({ address: '2001:db8::1' }));
    one.check(accessRequest({ address: '2001:db8::2' }));
    const error = refused(() => one.check(accessRequest({ address: '2001:db8::3' })));
    expect(error.kind).toBe('tooManyRequests');
    expect(renderError(error).headers['retry-after']).toBe('30');
    one.check(accessRequest({ address: '2001:db8::3', authorization }));
    one.check(accessRequest({ address: '192.0.2.9', authorization }));
    expect(refused(() => one.check(accessRequest({ authorization }))).kind).toBe('tooManyRequests');
    one.check(accessRequest());
  });

  test('guesses count against the address', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    await users.add('ci');
    const one = await access({ users, limits: { requestsPerMinute: 3 } });
    const kinds = [1, 2, 3, 4].map(
      (n) => refused(() => one.check(accessRequest({ authorization: basic('ci', `guess${n}`) }))).kind,
    );
    expect(kinds).toEqual(['credentialsWrong', 'credentialsWrong', 'credentialsWrong', 'tooManyRequests']);
  });

  /** A whole body for this client. */
  async function send(one: Access, bytes: number): Promise<void> {
    const { client } = one.check(accessRequest());
    const reservation = await one.quota?.reserve(client, { bytes, fetched: false });
    reservation?.sent(bytes);
    reservation?.close();
  }

  test('bytes outlive a restart', async () => {
    const counters = new MemoryCounterStore();
    const first = await access({ counters, limits: { bytesPerDay: 100 } });
    await send(first, 100);
    const error = refused(() => first.check(accessRequest()));
    expect(error.message).toContain('100 bytes a day');
    expect(renderError(error).headers['retry-after']).toBe('86400');
    await first.close();
    const second = await access({ counters, limits: { bytesPerDay: 100 } });
    expect(refused(() => second.check(accessRequest())).kind).toBe('tooManyRequests');
  });

  test('bytes a month stop everyone', async () => {
    const one = await access({ limits: { bytesPerMonth: 100 } });
    await send(one, 100);
    expect(refused(() => one.check(accessRequest({ address: '198.51.100.1' }))).message).toContain('a month');
  });

  test('bytes are one user’s from wherever, and one address’s in whatever form', async () => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    const { token } = await users.add('ci');
    const one = await access({ users, rules: { anonymous: true } });
    const authorization = basic('ci', token);
    const clientOf = (address: string, authorization?: string) =>
      one.check(accessRequest({ address, authorization })).client;
    expect(
      new Set(['192.0.2.9', '2001:db8::1', '::ffff:198.51.100.1'].map((at) => clientOf(at, authorization))),
    ).toEqual(new Set(['user:ci']));
    expect(new Set(['192.0.2.9', '::ffff:192.0.2.9', '64:ff9b::192.0.2.9'].map((at) => clientOf(at)))).toEqual(
      new Set(['192.0.2.9']),
    );
  });

  test('with no bytes limited nobody is asked before a body', async () => {
    expect((await access({ limits: { requestsPerMinute: 10 } })).quota).toBeNull();
  });

  test('a store that fails does not fail a pull, nor the end', async () => {
    const counters = new MemoryCounterStore();
    const one = await access({ counters, limits: { bytesPerDay: 100 } });
    await send(one, 1);
    counters.add = async () => {
      throw new Error('disk full');
    };
    await expect(one.close()).resolves.toBeUndefined();
  });
});
