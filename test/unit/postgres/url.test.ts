import { expect, test } from 'vitest';
import { parseTarget } from '../../../src/postgres/url.ts';

test('a sign that a URL cannot have as it is, such as a % in a password, is told in words that do not repeat it', () => {
  for (const url of ['postgres://gateway:se%cret@db/gateway', 'postgres://gateway@db/%zz', 'postgres://%@db/gateway']) {
    expect(() => parseTarget(url)).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(/%25$/) }),
    );
    expect(() => parseTarget(url)).not.toThrow(/se%cret/);
  }
  expect(parseTarget('postgres://gateway:se%25cret@db/gateway').password).toBe('se%cret');
});
