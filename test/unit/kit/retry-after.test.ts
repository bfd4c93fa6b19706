import { expect, it } from 'vitest';
import { parseRetryAfter } from '../../../src/kit/http.ts';

const NOW = Date.parse('2026-01-01T00:00:00Z');

it.each([
  ['120', 120_000],
  [' 0 ', 0],
  ['1.5', 1_500],
  ['Thu, 01 Jan 2026 00:00:30 GMT', 30_000],
  ['Thu, 01 Jan 2026 00:05:00 GMT', 300_000],
  ['Wed, 31 Dec 2025 00:00:00 GMT', 0],
  ['Wed, 31 Dec 2025 23:00:00 GMT', 0],
  ['soon', null],
  ['', null],
  ['-5', null],
  ['99999999999', 31 * 24 * 3_600_000],
  ['Fri, 01 Jan 2027 00:00:00 GMT', 31 * 24 * 3_600_000],
  [undefined, null],
])('reads %j as %j ms', (header, ms) => {
  expect(parseRetryAfter(header, NOW)).toBe(ms);
});
