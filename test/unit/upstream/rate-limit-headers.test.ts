import { describe, expect, it } from 'vitest';
import { rateLimitIn } from '../../../src/upstream/rate-limit-headers.ts';

const DAY = 86_400_000;

describe('what an answer says of a limit', () => {
  it.each([
    [
      "Docker Hub's",
      {
        'ratelimit-limit': '100;w=21600',
        'ratelimit-remaining': '76;w=21600',
        'docker-ratelimit-source': '203.0.113.7',
      },
      { limit: 100, remaining: 76, windowMs: 21_600_000, resetMs: null, source: '203.0.113.7' },
    ],
    [
      'with x-',
      { 'x-ratelimit-limit': '60', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': '30' },
      { limit: 60, remaining: 0, windowMs: null, resetMs: 30_000, source: null },
    ],
    [
      "GitLab's, which ends at a time",
      { 'ratelimit-limit': '600', 'ratelimit-remaining': '599', 'ratelimit-reset': '1800000042' },
      { limit: 600, remaining: 599, windowMs: null, resetMs: 42_000, source: null },
    ],
    [
      'of the draft',
      { ratelimit: '"default";r=50;t=30', 'ratelimit-policy': '"default";q=100;w=60' },
      { limit: 100, remaining: 50, windowMs: 60_000, resetMs: 30_000, source: null },
    ],
    ['nothing', { 'docker-ratelimit-source': '203.0.113.7' }, null],
  ])('%s', (_, headers, expected) => {
    expect(rateLimitIn(headers, 1_800_000_000_000)).toEqual(expected);
  });

  it.each([
    ['-1;w=21600', null],
    ['1e9', null],
    ['many', null],
    ['99999999999999999999', null],
    ['5;w=1e300', { remaining: 5, windowMs: null }],
    ['5;w=-3', { remaining: 5, windowMs: null }],
    ['5;w=0', { remaining: 5, windowMs: null }],
    ['0;w=315360000', { remaining: 0, windowMs: DAY }],
    ['0;w=99999999999', { remaining: 0, windowMs: null }],
  ])('is bounded: %s', (text, expected) => {
    const read = rateLimitIn({ 'ratelimit-remaining': text });
    if (expected === null) expect(read).toBeNull();
    else expect(read).toMatchObject(expected);
  });

  it('ends within a day, and never now', () => {
    const resets = ['0', '999999999', '999999999999', '1000000000'].map(
      (reset) => rateLimitIn({ 'ratelimit-remaining': '0', 'ratelimit-reset': reset })?.resetMs,
    );
    expect(resets).toEqual([1000, DAY, DAY, 1000]);
  });

  it('calls nobody by a name that is long, or that a terminal obeys', () => {
    const read = rateLimitIn({ 'ratelimit-remaining': '1', 'docker-ratelimit-source': `\u001b[2J${'x'.repeat(5000)}` });
    expect(read?.source?.length).toBeLessThanOrEqual(80);
    expect(read?.source).not.toContain('\u001b');
  });
});
