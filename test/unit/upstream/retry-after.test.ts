import { expect, it } from 'vitest';
import { parseRetryAfter } from '../../../src/upstream/retry-after.ts';

const NOW = Date.parse('2026-01-01T00:00:00Z');

it.each([
  ['120', 120],
  [' 0 ', 0],
  ['1.5', 1.5],
  ['Thu, 01 Jan 2026 00:00:30 GMT', 30],
  ['Wed, 31 Dec 2025 00:00:00 GMT', 0],
  ['soon', undefined],
  ['', undefined],
  ['-5', undefined],
  [undefined, undefined],
])('reads %j', (header, seconds) => {
  expect(parseRetryAfter(header, NOW)).toBe(seconds);
});
