import { expect, it } from 'vitest';
import { UseTimes } from '../../../src/sqlite/use-log.ts';

it('keeps a time for each number, far apart as they may be', () => {
  const times = new UseTimes();
  const numbers = [0, 1, 255, 256, 70_000, 5_000_000_000];
  for (const number of numbers) times.set(number, number + 0.5);
  times.set(255, 0);
  expect(numbers.map((number) => times.get(number))).toEqual([0.5, 1.5, 0, 256.5, 70_000.5, 5_000_000_000.5]);
  expect([2, 257, 80_000].map((number) => times.get(number))).toEqual([undefined, undefined, undefined]);
  for (const number of [0, 2, 256, 256, 90_000]) times.delete(number);
  expect(numbers.map((number) => times.get(number))).toEqual([undefined, 1.5, 0, undefined, 70_000.5, 5_000_000_000.5]);
  times.set(256, 7);
  expect(times.get(256)).toBe(7);
  times.clear();
  expect(numbers.map((number) => times.get(number))).toEqual(numbers.map(() => undefined));
});
