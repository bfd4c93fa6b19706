import { describe, expect, it } from 'vitest';
import { RegistryError } from '../../../src/oci/errors.ts';
import type { Digest } from '../../../src/oci/names.ts';
import { fallbackTag } from '../../../src/oci/referrers-tag.ts';
import { exceeds } from '../../../src/proxy/ranges.ts';
import { matchesNone, rangeApplies } from '../../../src/proxy/reply.ts';
import { NEGATIVE_TTL, NegativeCache } from '../../../src/proxy/repository-access.ts';
import { FAILURE_PAUSE, StaleIfError, staleWarning } from '../../../src/proxy/stale.ts';

const digest = (digit: string) => `sha256:${digit.repeat(64)}` as Digest;
const _key = { registry: 'docker.io', repository: 'library/app' };

describe('conditions', () => {
  it('If-None-Match compares weakly, in lists', () => {
    for (const header of ['*', `"${digest('a')}"`, `W/"${digest('a')}"`, `"x", "${digest('a')}"`]) {
      expect(matchesNone(header, digest('a'))).toBe(true);
    }
    for (const header of [undefined, '', digest('a'), `"${digest('b')}"`]) {
      expect(matchesNone(header, digest('a'))).toBe(false);
    }
  });
  it('If-Range compares strongly', () => {
    expect(rangeApplies(undefined, digest('a'))).toBe(true);
    expect(rangeApplies(`"${digest('a')}"`, digest('a'))).toBe(true);
    expect(rangeApplies(`W/"${digest('a')}"`, digest('a'))).toBe(false);
    expect(rangeApplies('Wed, 21 Oct 2026 07:28:00 GMT', digest('a'))).toBe(false);
  });
});

describe('several ranges', () => {
  it('of more bytes than the whole are better answered with the whole', () => {
    expect(
      exceeds(
        [
          { from: 0, to: 6 },
          { from: 5, to: 10 },
        ],
        10,
      ),
    ).toBe(true);
    expect(
      exceeds(
        [
          { from: 0, to: 5 },
          { from: 5, to: 10 },
        ],
        10,
      ),
    ).toBe(false);
  });
});

describe('what failed a moment ago', () => {
  it('a 404 is remembered for seconds, nothing else is', () => {
    let now = 0;
    const missing = new NegativeCache(() => now);
    missing.note('a', new RegistryError('manifestUnknown'));
    missing.note('b', new RegistryError('upstreamDenied'));
    missing.note('c', new RegistryError('upstreamRateLimited'));
    expect(() => missing.check('a')).toThrow(RegistryError);
    for (const other of ['b', 'c', 'd']) missing.check(other);
    now = NEGATIVE_TTL;
    missing.check('a');
  });
  it('an upstream that fails is left alone for a while, longer if it says so, within a bound', () => {
    let now = 0;
    const staleIfError = new StaleIfError(() => now);
    staleIfError.failed('a', new RegistryError('upstreamFailed'));
    staleIfError.failed('b', new RegistryError('upstreamRateLimited', { retryAfter: 60 }));
    staleIfError.failed('c', new RegistryError('upstreamRateLimited', { retryAfter: 86_400 }));
    staleIfError.failed('d', new RegistryError('manifestUnknown'));
    expect(['a', 'b', 'c', 'd'].map((id) => staleIfError.isFailing(id))).toEqual([true, true, true, false]);
    now = FAILURE_PAUSE;
    expect(['a', 'b', 'c'].map((id) => staleIfError.isFailing(id))).toEqual([false, true, true]);
    now = 5 * 60_000;
    expect(['b', 'c'].map((id) => staleIfError.isFailing(id))).toEqual([false, false]);
  });
});

it('a slow upstream is waited for once, until it answers', async () => {
  let now = 0;
  const staleIfError = new StaleIfError(() => now, 5);
  const slow = Promise.withResolvers<string>();
  expect(await staleIfError.within('a', slow.promise, 'late')).toBeNull();
  expect(staleIfError.isFailing('a')).toBe(true);
  staleIfError.succeeded('a');
  expect(staleIfError.isFailing('a')).toBe(false);
  slow.resolve('late');
  expect(await staleIfError.within('a', slow.promise, 'late')).toBe('late');
  await expect(staleIfError.within('a', Promise.reject(new Error('no')), 'late')).rejects.toThrow('no');
  now = FAILURE_PAUSE;
  expect(staleIfError.isFailing('a')).toBe(false);
});

describe('the warning of a stale answer', () => {
  const text = (what: string) => staleWarning({ what, since: 1_000 }, 0, 61_000);

  it('says what failed, since when, and how old the answer is', () => {
    expect(text('quay.io failed: it answered 503')).toMatch(
      /^299 - "quay\.io failed: it answered 503, since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ; this answer is 1 min 1 s old"$/,
    );
  });

  it.each([
    '"; x="',
    '\\',
    'a\r\nx-evil: 1',
    '\u001b[2J',
    'caf\u00e9 \u{1F4A3}',
    'a%22b%0a%zz',
    `${'long '.repeat(10_000)}`,
  ])('is one short quoted string of visible ASCII, whatever an upstream says: %j', (what) => {
    const warning = text(what);
    // Without `%`: containerd decodes `%22`, and drops a warning in which that is a quote.
    expect(warning).toMatch(/^299 - "[\x20-\x21\x23-\x24\x26-\x5b\x5d-\x7e]+"$/);
    expect(warning.length).toBeLessThan(500);
  });

  it('remembers since when something fails, until it succeeds', () => {
    let now = 5;
    const staleIfError = new StaleIfError(() => now);
    const fail = () =>
      staleIfError.failed('a', new RegistryError('upstreamFailed', { facts: { registry: 'r', reason: `${now}` } }));
    fail();
    now = FAILURE_PAUSE + 5;
    fail();
    expect(staleIfError.trouble('a', 'new')).toMatchObject({ what: `r failed: ${now}`, since: 5 });
    staleIfError.succeeded('a');
    expect(staleIfError.trouble('a', 'new')).toEqual({ what: 'new', logged: 'new', since: now });
  });
});

it('the fallback tag is cut as the specification says', () => {
  expect(fallbackTag(digest('a'))).toBe(`sha256-${'a'.repeat(64)}`);
  expect(fallbackTag(`sha512:${'b'.repeat(128)}` as Digest)).toBe(`sha512-${'b'.repeat(64)}`);
});
