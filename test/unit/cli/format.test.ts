import { expect, test } from 'vitest';
import { formatWhen } from '../../../src/cli/output.ts';
import { formatBytes } from '../../../src/kit/text.ts';
import { formatSpan } from '../../../src/kit/time.ts';

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1 KiB'],
  [1536, '1.5 KiB'],
  [20 * 2 ** 30, '20 GiB'],
  [123.4 * 2 ** 20, '123 MiB'],
  [2 ** 50, '1 PiB'],
  [2 ** 60, '1024 PiB'],
])('%d bytes are %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test.each([
  [0, '0 s'],
  [-5, '0 s'],
  [59_400, '59 s'],
  [60_000, '1 min'],
  [3_661_000, '1 h 1 min'],
  [90_000_000, '1 d 1 h'],
  [86_400_000, '1 d'],
])('%d ms are %s', (ms, text) => {
  expect(formatSpan(ms)).toBe(text);
});

test('a time is told from now', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  expect(formatWhen(null, now)).toBe('-');
  expect(formatWhen('2026-01-01T00:00:00.400Z', now)).toBe('now');
  expect(formatWhen('2026-01-03T04:00:00Z', now)).toBe('in 2 d 4 h');
  expect(formatWhen('2025-12-31T23:00:00Z', now)).toBe('1 h ago');
  expect(formatWhen('soon', now)).toBe('soon');
});
