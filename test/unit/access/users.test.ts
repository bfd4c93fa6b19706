import { expect, test } from 'vitest';
import { Users } from '../../../src/access/users.ts';
import { MemoryUserStore } from '../../support/access-stores.ts';
import { refusal } from '../../support/refusal.ts';

const basic = (name: string, token: string): string => `Basic ${Buffer.from(`${name}:${token}`).toString('base64')}`;

test('a token proves its user, and only that one', () => {
  const users = new Users(new MemoryUserStore());
  const ci = users.add('ci');
  const dev = users.add('dev@corp');
  expect(users.verify(basic('ci', ci.token))).toBe('ci');
  expect(users.verify(basic('dev@corp', dev.token))).toBe('dev@corp');
  expect(users.verify(basic('ci', dev.token))).toBeNull();
  expect(users.verify(basic('nobody', ci.token))).toBeNull();
  expect(users.verify(basic('CI', ci.token))).toBeNull();
  expect(users.verify(basic('ci', ''))).toBeNull();
  expect(users.verify(basic('ci', `${ci.token} `))).toBeNull();
});

test('an unknown name never matches, whatever the token', () => {
  // SHA-256 of nothing known is 32 zeros, but a user without a row must not be let in even then.
  const users = new Users(new MemoryUserStore());
  for (const token of ['', '\0', '0'.repeat(64)]) expect(users.verify(basic('x', token))).toBeNull();
});

test.each(['', 'Basic', 'Basic !', 'Bearer abc', 'Basic Y2k=', 'Basic  ', 'Digest x', `Basic ${'A'.repeat(100_000)}`])(
  'the header %s proves nobody',
  (header) => {
    const users = new Users(new MemoryUserStore());
    users.add('ci');
    expect(users.verify(header)).toBeNull();
  },
);

test('the scheme is read in any case', () => {
  const users = new Users(new MemoryUserStore());
  const { token } = users.add('ci');
  expect(users.verify(basic('ci', token).replace('Basic', 'bASIC'))).toBe('ci');
});

test('tokens are long, differ, and are not kept', () => {
  const store = new MemoryUserStore();
  const users = new Users(store);
  const tokens = ['a', 'b', 'c'].map((name) => users.add(name).token);
  expect(new Set(tokens).size).toBe(3);
  for (const token of tokens) {
    expect(token).toMatch(/^rgw_[A-Za-z0-9_-]{43}$/);
    for (const row of store.load()) expect(Buffer.from(row.tokenHash).toString('latin1')).not.toContain(token.slice(4));
  }
  expect(store.load()[0]?.tokenHash).toHaveLength(32);
});

test('users outlive a restart; removed ones are refused at once', () => {
  const store = new MemoryUserStore();
  const { token } = new Users(store).add('ci', new Date('2026-11-22T05:00:00Z'));
  const users = new Users(store);
  expect(users.list()).toEqual([{ name: 'ci', createdAt: '2026-11-22T05:00:00.000Z' }]);
  expect(users.verify(basic('ci', token))).toBe('ci');
  users.remove('ci');
  expect(users.verify(basic('ci', token))).toBeNull();
  expect(users.count).toBe(0);
  expect(refusal(() => users.remove('ci')).code).toBe('USER_UNKNOWN');
});

test('a name is taken once', () => {
  const users = new Users(new MemoryUserStore());
  const { token } = users.add('ci');
  expect(refusal(() => users.add('ci'))).toMatchObject({ code: 'USER_EXISTS', usage: false });
  expect(users.verify(basic('ci', token))).toBe('ci');
});

test.each(['', 'a:b', 'a b', '-a', '*', 'a'.repeat(65), 'ü', 'a\n'])('the name %j is refused', (name) => {
  const users = new Users(new MemoryUserStore());
  expect(refusal(() => users.add(name))).toMatchObject({ code: 'USER_INVALID', usage: true });
});
