import { describe, expect, it } from 'vitest';
import { RegistryError } from '../../../src/oci/errors.ts';
import {
  isRegistryHost,
  isRepositoryName,
  isTag,
  parseReference,
  requireDigest,
  requireRepository,
} from '../../../src/oci/names.ts';

describe('repository names', () => {
  it.each(['alpine', 'library/alpine', 'a/b/c/d', 'a.b', 'a_b', 'a__b', 'a-b', 'a---b', '0', 'x/0a-1.b__c'])(
    'takes %s',
    (name) => expect(isRepositoryName(name)).toBe(true),
  );
  it.each([
    '',
    '/',
    'a/',
    '/a',
    'a//b',
    'A',
    'a..b',
    'a___b',
    '-a',
    'a-',
    '.a',
    'a.',
    '_a',
    'a b',
    'a%2fb',
    'ä',
    'a/../b',
  ])('refuses %j', (name) => expect(isRepositoryName(name)).toBe(false));
  it('takes 255 characters and no more', () => {
    expect(isRepositoryName('a'.repeat(255))).toBe(true);
    expect(isRepositoryName('a'.repeat(256))).toBe(false);
  });
  it('says what was wrong, and repeats only the start of a long name', () => {
    expect(() => requireRepository('Alpine')).toThrow(/Alpine is not valid/);
    expect(() => requireRepository('A'.repeat(5000))).toThrow(/^the repository name A{128}… is not valid$/);
  });
});

describe('references', () => {
  it.each(['latest', '_x', 'V1.2-rc_3', 'a'.repeat(128)])('takes the tag %s', (tag) => expect(isTag(tag)).toBe(true));
  it.each(['', '.x', '-x', 'a/b', 'a:b', 'a'.repeat(129), 'a\n'])('refuses the tag %j', (tag) =>
    expect(isTag(tag)).toBe(false),
  );
  it('tells tags and digests apart by the colon', () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    expect(parseReference(digest)).toEqual({ kind: 'digest', digest });
    expect(parseReference('sha256')).toEqual({ kind: 'tag', tag: 'sha256' });
    expect(kind(() => parseReference('sha256:00'))).toBe('digestInvalid');
    expect(parseReference('no/tag')).toBeNull();
    expect(kind(() => requireDigest(`sha512:${'0'.repeat(64)}`))).toBe('digestInvalid');
  });
});

it.each([
  ['docker.io', true],
  ['localhost', true],
  ['registry:5000', true],
  ['[::1]:5000', true],
  ['library', false],
  ['local-host', false],
])('a first segment %s is a registry: %s', (segment, is) => expect(isRegistryHost(segment)).toBe(is));

function kind(run: () => unknown): string | undefined {
  try {
    run();
  } catch (error) {
    if (error instanceof RegistryError) return error.kind;
  }
  return undefined;
}
