import { expect, test } from 'vitest';
import { LogRepeats } from '../../../src/kit/log-repeats.ts';

test('the same is logged once a minute, with how many were left out; keys do not count for each other, and are forgotten at a thousand', () => {
  let now = 0;
  const repeats = new LogRepeats(() => now);
  expect([repeats.note('a'), repeats.note('a'), repeats.note('b'), repeats.note('a')]).toEqual([0, null, 0, null]);
  now = 59_999;
  expect(repeats.note('a')).toBeNull();
  now = 60_000;
  expect([repeats.note('a'), repeats.note('a')]).toEqual([3, null]);
  now = 120_000;
  expect(repeats.note('b')).toBe(0);
  for (let n = 0; n < 1_000; n++) repeats.note(`other ${n}`);
  expect(repeats.note('a')).toBe(0);
});
