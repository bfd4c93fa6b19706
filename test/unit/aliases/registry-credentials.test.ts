import { describe, expect, test } from 'vitest';
import { applySettings, newRegistry, sameRegistry } from '../../../src/aliases/names.ts';
import { type NamedCredentialsChange, parseRepositoryPattern } from '../../../src/aliases/registry-credentials.ts';
import type { RegistryEntry } from '../../../src/aliases/table.ts';
import { OperatorError } from '../../../src/kit/operator-error.ts';

const LOGIN = { username: 'bob', password: 'secret' };
const hub = newRegistry('docker.io');

function set(row: RegistryEntry, named: NamedCredentialsChange): RegistryEntry {
  return applySettings(row, { named });
}

function refusal(task: () => unknown): OperatorError {
  try {
    task();
  } catch (error) {
    if (error instanceof OperatorError) return error;
    throw error;
  }
  throw new Error('it was taken');
}

describe('a pattern of repositories', () => {
  test.each([
    ['docker.io', 'team/*', 'team/*'],
    ['docker.io', 'redis', 'library/redis'],
    ['docker.io', '*', '*'],
    ['docker.io', 'library/re*', 'library/re*'],
    ['docker.io', 'team/**/x', 'team/*/x'],
    ['ghcr.io', 'redis', 'redis'],
    ['ghcr.io', 'te*', 'te*'],
    ['ghcr.io', '*-private/*', '*-private/*'],
    ['mcr.microsoft.com', 'Team/*', 'Team/*'],
  ])('at %s: %s is %s', (host, text, pattern) => {
    expect(parseRepositoryPattern(text, host)).toBe(pattern);
  });

  test.each([
    ['docker.io', '', /empty/],
    ['docker.io', 'te*', /te\*\/\*, or library\/te\*/],
    ['docker.io', 'docker.io/team/*', /without the registry: team\/\*/],
    ['ghcr.io', '/team', /can be no repository/],
    ['ghcr.io', 'team/', /can be no repository/],
    ['ghcr.io', 'team/app:1', /can be no repository/],
    ['ghcr.io', 'te am', /can be no repository/],
    ['ghcr.io', 'a/'.repeat(200), /can be no repository/],
  ])('at %s: "%s" is refused in words', (host, text, words) => {
    const error = refusal(() => parseRepositoryPattern(text, host));
    expect(error).toMatchObject({ code: 'CREDENTIALS_INVALID', usage: true });
    expect(`${error.message}: ${error.next}`).toMatch(words);
  });
});

describe('credentials for some repositories', () => {
  test('are added, changed and removed by their name, in the order of the names', () => {
    const one = set(hub, { name: 'team-b', for: ['team-b/*'], credentials: LOGIN });
    const two = set(one, { name: 'team-a', for: ['team-a/*', 'team-a/*'], credentials: { ...LOGIN, username: 'al' } });
    expect(two.named.map(({ name, for: patterns, username }) => [name, patterns, username])).toEqual([
      ['team-a', ['team-a/*'], 'al'],
      ['team-b', ['team-b/*'], 'bob'],
    ]);
    const moved = set(two, { name: 'team-b', for: ['team-b/app'] });
    expect(moved.named[1]).toMatchObject({ for: ['team-b/app'], ...LOGIN });
    expect(set(moved, { name: 'team-a', credentials: null }).named.map(({ name }) => name)).toEqual(['team-b']);
    expect(moved.credentials).toBeNull();
    expect([sameRegistry(two, moved), sameRegistry(two, set(two, { name: 'team-b', for: ['team-b/*'] }))]).toEqual([
      false,
      true,
    ]);
  });

  test('keep their id with a new password or other repositories; another user, or they made anew, have another', () => {
    const row = set(hub, { name: 'a', for: ['team/*'], credentials: LOGIN });
    const id = (of: RegistryEntry) => of.named[0]?.id ?? 0;
    expect(id(row)).toBeGreaterThan(1);
    expect(id(set(row, { name: 'a', credentials: { ...LOGIN, password: 'new' } }))).toBe(id(row));
    expect(id(set(row, { name: 'a', for: ['other/*'] }))).toBe(id(row));
    expect(id(set(row, { name: 'a', credentials: { ...LOGIN, username: 'alice' } }))).not.toBe(id(row));
    const gone = set(row, { name: 'a', credentials: null });
    expect(id(set(gone, { name: 'a', for: ['team/*'], credentials: LOGIN }))).not.toBe(id(row));
  });

  test.each<[string, NamedCredentialsChange, string, RegExp]>([
    [
      'the pattern of another',
      { name: 'b', for: ['team/*'], credentials: LOGIN },
      'CREDENTIALS_CONFLICT',
      /team\/\*.*are for/,
    ],
    ['new ones without repositories', { name: 'b', credentials: LOGIN }, 'CREDENTIALS_INVALID', /no repositories/],
    ['new ones without a user', { name: 'b', for: ['x/*'] }, 'CREDENTIALS_INVALID', /no user name/],
    ['no pattern', { name: 'a', for: [] }, 'CREDENTIALS_INVALID', /no repositories/],
    ['a name that is none', { name: 'Team A', for: ['x/*'], credentials: LOGIN }, 'CREDENTIALS_INVALID', /no name/],
    ['the name of its own', { name: 'default', for: ['x/*'], credentials: LOGIN }, 'CREDENTIALS_INVALID', /no name/],
    ['those that are not there', { name: 'b', credentials: null }, 'CREDENTIALS_UNKNOWN', /no credentials called b/],
    [
      'a user with a colon',
      { name: 'a', credentials: { username: 'a:b', password: 'x' } },
      'CREDENTIALS_INVALID',
      /colon/,
    ],
  ])('%s: refused in words', (_, change, code, words) => {
    const row = set(hub, { name: 'a', for: ['team/*'], credentials: LOGIN });
    const error = refusal(() => set(row, change));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(words);
    expect(error.message + error.next).not.toContain(LOGIN.password);
  });

  test('no pattern of registries has any: whoever owns a host that matches would be sent them', () => {
    const error = refusal(() => set(newRegistry('*.pkg.dev'), { name: 'a', for: ['team/*'], credentials: LOGIN }));
    expect(error.code).toBe('CREDENTIALS_INVALID');
  });
});
