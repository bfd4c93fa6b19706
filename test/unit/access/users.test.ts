import { expect, test } from 'vitest';
import { Users } from '../../../src/access/users.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { MemoryUserStore } from '../../support/access-stores.ts';
import { rejection } from '../../support/refusal.ts';

const basic = (name: string, token: string): string => `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`;

test('a token proves its user, and only that one', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  const ci = await users.add('ci');
  const dev = await users.add('dev@corp');
  expect(users.verify(basic('ci', ci.token))).toBe('ci');
  expect(users.verify(basic('dev@corp', dev.token))).toBe('dev@corp');
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
  expect(users.verify(basic('ci', token).replace('Basic', 'bASIC'))).toBe('ci');
});

test('tokens are long, differ, and are not kept', async () => {
  const store = new MemoryUserStore();
  const users = await Users.open(store, silentLog());
  const tokens = await Promise.all(['a', 'b', 'c'].map(async (name) => (await users.add(name)).token));
  expect(new Set(tokens).size).toBe(3);
  for (const token of tokens) {
    expect(token).toMatch(/^rgw_[A-Za-z0-9_-]{43}$/);
    for (const row of await store.load())
      expect(Buffer.from(row.tokenHash).toString('latin1')).not.toContain(token.slice(4));
  }
  expect((await store.load())[0]?.tokenHash).toHaveLength(32);
});

test('users outlive a restart; removed ones are refused at once', async () => {
  const store = new MemoryUserStore();
  const { token } = await (await Users.open(store, silentLog())).add('ci', new Date('2026-11-22T05:00:00Z'));
  const users = await Users.open(store, silentLog());
  expect(users.list()).toEqual([{ name: 'ci', createdAt: '2026-11-22T05:00:00.000Z' }]);
  expect(users.verify(basic('ci', token))).toBe('ci');
  await users.remove('ci');
  expect(users.verify(basic('ci', token))).toBeNull();
  expect(users.count).toBe(0);
  expect((await rejection(users.remove('ci'))).code).toBe('USER_UNKNOWN');
});

test('a name is taken once', async () => {
  const users = await Users.open(new MemoryUserStore(), silentLog());
  const { token } = await users.add('ci');
  expect(await rejection(users.add('ci'))).toMatchObject({ code: 'USER_EXISTS', usage: false });
  expect(users.verify(basic('ci', token))).toBe('ci');
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
  await expect.poll(() => users.verify(basic('ci', token))).toBe('ci');
  expect((await rejection(users.add('ci'))).code).toBe('USER_EXISTS');
  await users.remove('ci');
  await expect.poll(() => other.count).toBe(0);
  await users.close();
  await other.add('late');
  expect(users.count).toBe(0);
});
