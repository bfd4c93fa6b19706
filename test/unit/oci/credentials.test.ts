import { describe, expect, test } from 'vitest';
import {
  credentialsFor,
  DEFAULT_CREDENTIAL,
  forRepository,
  hasCredential,
  haveSameOpeners,
  type NamedCredentials,
  openerOf,
} from '../../../src/oci/credentials.ts';

const own = { username: 'ops', password: 'of all' };
const named = (name: string, id: number, ...patterns: string[]): NamedCredentials => ({
  ...{ name, id, for: patterns, username: `${name} user`, password: `of ${name}` },
});
const row = {
  credentials: own,
  named: [named('a', 11, 'team/*', '*/shared'), named('b', 12, 'team/app', 'team/x*'), named('c', 13, 'team/*pp')],
};

describe('the credentials of a repository', () => {
  test.each([
    ['team/app', 'b'],
    ['team/other', 'a'],
    ['team/x/y', 'b'],
    ['team/deep/er', 'a'],
    ['team/snapp', 'c'],
    ['any/shared', 'a'],
    ['team', undefined],
    ['library/app', undefined],
    ['my-team/app', undefined],
  ])('%s: of the most exact pattern, else the registry’s own', (repository, name) => {
    const found = credentialsFor(row, repository);
    expect(found?.username).toBe(name === undefined ? own.username : `${name} user`);
    expect(openerOf(row, repository)).toBe(
      name === undefined ? DEFAULT_CREDENTIAL : row.named.find((one) => one.name === name)?.id,
    );
    expect(forRepository(row, repository)).toMatchObject({ credentials: { username: found?.username }, named: [] });
  });

  test('are alike exact by the fewer stars, then by the alphabet, whatever the order of their names', () => {
    const lines = [named('z', 2, 'a*b*'), named('y', 3, 'ab*'), named('x', 4, '*ab')];
    for (const order of [lines, [...lines].reverse()]) {
      expect(openerOf({ credentials: null, named: order }, 'ab')).toBe(4);
      expect(openerOf({ credentials: null, named: order }, 'abc')).toBe(3);
      expect(openerOf({ credentials: null, named: order }, 'axb')).toBe(2);
      expect(openerOf({ credentials: null, named: order }, 'b')).toBeNull();
    }
  });

  test('are none where there are none; a row without named ones is given as it is', () => {
    const plain = { credentials: own, named: [] };
    expect(forRepository(plain, 'any')).toBe(plain);
    expect([openerOf(plain, 'any'), openerOf({ credentials: null, named: [] }, 'any')]).toEqual([
      DEFAULT_CREDENTIAL,
      null,
    ]);
  });

  test('are known by their ids while the registry has them; a password makes no others of them', () => {
    expect([11, 12, 13, 14, DEFAULT_CREDENTIAL].map((id) => hasCredential(row, id))).toEqual([
      true,
      true,
      true,
      false,
      true,
    ]);
    expect(hasCredential({ ...row, credentials: null }, DEFAULT_CREDENTIAL)).toBe(false);
    const [a, ...rest] = row.named;
    if (a === undefined) throw new Error('no credentials');
    expect(haveSameOpeners(row, { credentials: own, named: [{ ...a, password: 'new' }, ...rest] })).toBe(true);
    expect(haveSameOpeners(row, { credentials: own, named: [{ ...a, for: ['team/*'] }, ...rest] })).toBe(false);
    expect(haveSameOpeners(row, { credentials: null, named: row.named })).toBe(false);
    expect(haveSameOpeners({ credentials: null, named: [] }, undefined)).toBe(true);
  });
});
