import { expect, test } from 'vitest';
import { Users } from '../../../src/access/users.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryUserStore } from '../../support/access-stores.ts';
import { rejection } from '../../support/refusal.ts';

const basic = (name: string, token: string): string => `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`;

const CI = { kind: 'user', name: 'ci' };
const NOON = Date.UTC(2026, 10, 22, 12);
const HOUR = 3_600_000;
const at = (time: number): string => new Date(time).toISOString();

test('a token proves its user, and only that one', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  const ci = await users.add('ci');
  const dev = await users.add('dev@corp');
  expect(users.verify(basic('ci', ci.token))).toEqual({ kind: 'user', name: 'ci' });
  expect(users.verify(basic('dev@corp', dev.token))).toEqual({ kind: 'user', name: 'dev@corp' });
  expect(users.verify(basic('ci', dev.token))).toBeNull();
  expect(users.verify(basic('nobody', ci.token))).toBeNull();
  expect(users.verify(basic('CI', ci.token))).toBeNull();
  expect(users.verify(basic('ci', ''))).toBeNull();
  expect(users.verify(basic('ci', `${ci.token} `))).toBeNull();
});

test('an unknown name never matches, whatever the token', async () => {
  // SHA-256 of nothing known is 32 zeros, but a user without a row must not be let in even then.
  const users = await Users.open(new MemoryUserStore(), silentLog());
  for (const token of ['', '\0', '0'.repeat(64)]) expect(users.verify(basic('x', token))).toBeNull();
});

test.each(['', 'Basic', 'Basic !', 'Bearer abc', 'Basic Y2k=', 'Basic  ', 'Digest x', `Basic ${'A'.repeat(100_000)}`])(
  'the header %s proves nobody',
  async (header) => {
    const users = await Users.open(new MemoryUserStore(), silentLog());
    await users.add('ci');
    expect(users.verify(header)).toBeNull();
  },
);

test('the scheme is read in any case', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  const { token } = await users.add('ci');
  expect(users.verify(basic('ci', token).replace('Basic', 'bASIC'))).toEqual(CI);
});

test('tokens are long, differ, and are not kept', async () => {
  const store = new MemoryUserStore();
  const users = await Users.open(store, silentLog());
  const tokens = await Promise.all(['a', 'b', 'c'].map(async (name) => (await users.add(name)).token));
  expect(new Set(tokens).size).toBe(3);
  for (const token of tokens) {
    expect(token).toMatch(/^rgw_[A-Za-z0-9_-]{43}$/);
    for (const row of (await store.load()).users)
      expect(Buffer.from(row.tokenHash).toString('latin1')).not.toContain(token.slice(4));
  }
  expect((await store.load()).users[0]?.tokenHash).toHaveLength(32);
});

test('users outlive a restart; removed ones are refused at once', async () => {
  const store = new MemoryUserStore();
  const { token } = await (await Users.open(store, silentLog())).add('ci', null, NOON);
  const users = await Users.open(store, silentLog());
  expect(await users.list(NOON)).toEqual([
    {
      name: 'ci',
      createdAt: '2026-11-22T12:00:00.000Z',
      issuedAt: '2026-11-22T12:00:00.000Z',
      expiresAt: null,
      lastUsedAt: null,
      state: 'valid',
      previousUntil: null,
    },
  ]);
  expect(users.verify(basic('ci', token))).toEqual(CI);
  await users.remove('ci');
  expect(users.verify(basic('ci', token))).toBeNull();
  expect(users.count).toBe(0);
  expect((await rejection(users.remove('ci'))).code).toBe('USER_UNKNOWN');
});

test('a name is taken once', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  const { token } = await users.add('ci');
  expect(await rejection(users.add('ci'))).toMatchObject({ code: 'USER_EXISTS', usage: false });
  expect(users.verify(basic('ci', token))).toEqual(CI);
});

test.each(['', 'a:b', 'a b', '-a', '*', 'a'.repeat(65), 'ü', 'a\n'])('the name %j is refused', async (name) => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  expect(await rejection(users.add(name))).toMatchObject({ code: 'USER_INVALID', usage: true });
});

test("another holder's users are known, and removed ones refused, without a question to the store", async () => {
  const store = new MemoryUserStore();
  const users = await Users.open(store, silentLog());
  const other = await Users.open(store.another(), silentLog());
  const { token } = await other.add('ci');
  await expect.poll(() => users.verify(basic('ci', token))).toEqual(CI);
  expect((await rejection(users.add('ci'))).code).toBe('USER_EXISTS');
  await users.remove('ci');
  await expect.poll(() => other.count).toBe(0);
  await users.close();
  await other.add('late');
  expect(users.count).toBe(0);
});

test('a token expires, is told from a wrong one, and a rotation brings the same span anew', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  const { token } = await users.add('ci', at(NOON + 10 * HOUR), NOON);
  expect(users.verify(basic('ci', token), NOON + 10 * HOUR - 1)).toEqual(CI);
  const expired = { kind: 'expired', name: 'ci', expiredAt: at(NOON + 10 * HOUR) };
  expect(users.verify(basic('ci', token), NOON + 10 * HOUR)).toEqual(expired);
  expect(users.verify(basic('ci', `${token}x`), NOON + 10 * HOUR)).toBeNull();
  const states = [7, 9, 11].map(async (hours) => (await users.list(NOON + hours * HOUR))[0]?.state);
  expect(await Promise.all(states)).toEqual(['valid', 'expiring', 'expired']);
  const next = await users.rotate('ci', {}, NOON + 20 * HOUR);
  expect(next).toMatchObject({ createdAt: at(NOON), issuedAt: at(NOON + 20 * HOUR), expiresAt: at(NOON + 30 * HOUR) });
  expect(users.verify(basic('ci', next.token), NOON + 29 * HOUR)).toEqual(CI);
  expect((await users.rotate('ci', { expiresAt: null }, NOON)).expiresAt).toBeNull();
});

test('a rotated token is void at once, or after its grace, and never revived', async () => {
  const store = new MemoryUserStore();
  const users = await Users.open(store, silentLog());
  const first = await users.add('ci', null, NOON);
  const second = await users.rotate('ci', { grace: HOUR }, NOON);
  expect(second.previousUntil).toBe(at(NOON + HOUR));
  // Another process, or this one after a restart.
  const other = await Users.open(store, silentLog());
  for (const one of [users, other]) {
    expect(one.verify(basic('ci', first.token), NOON + HOUR - 1)).toEqual(CI);
    expect(one.verify(basic('ci', first.token), NOON + HOUR)).toBeNull();
    expect(one.verify(basic('ci', second.token), NOON + HOUR)).toEqual(CI);
  }
  const third = await users.rotate('ci', {}, NOON + 1);
  expect(third.previousUntil).toBeNull();
  expect(users.verify(basic('ci', first.token), NOON + 2)).toBeNull();
  expect(users.verify(basic('ci', second.token), NOON + 2)).toBeNull();
  await users.rotate('ci', { expiresAt: at(NOON + HOUR) }, NOON);
  expect((await users.rotate('ci', { grace: 48 * HOUR }, NOON + 2 * HOUR)).previousUntil).toBeNull();
});

test('that there ever was a user outlives the last one', async () => {
  const store = new MemoryUserStore();
  const users = await Users.open(store, silentLog());
  expect(users.everAdded).toBe(false);
  await users.add('ci');
  await users.remove('ci');
  expect(users.everAdded).toBe(true);
  expect((await Users.open(store, silentLog())).everAdded).toBe(true);
});

test('last uses are known to the minute, and stored at the end', async () => {
  const store = new MemoryUserStore();
  const users = await Users.open(store, silentLog());
  await users.add('ci');
  await users.add('dev');
  for (const ms of [0, 1_000, 59_999, 61_000]) users.used('ci', NOON + ms);
  users.used('nobody', NOON);
  const seen = async (one: Users) => (await one.list()).map(({ lastUsedAt }) => lastUsedAt);
  expect(await seen(users)).toEqual([at(NOON + 60_000), null]);
  expect(await store.lastUses()).toEqual(new Map());
  await users.close();
  expect(await store.lastUses()).toEqual(new Map([['ci', at(NOON + 60_000)]]));
  expect(await seen(await Users.open(store, silentLog()))).toEqual([at(NOON + 60_000), null]);
});

test('an unknown name is answered with the nearest', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  await users.add('deploy-prod');
  expect((await rejection(users.remove('deploy-prd'))).next).toContain('did you mean deploy-prod?');
  expect((await rejection(users.rotate('x'))).next).toContain('gateway user ls');
});
