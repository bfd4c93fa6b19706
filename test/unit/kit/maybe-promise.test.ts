import { expect, test } from 'vitest';
import { andThen } from '../../../src/kit/async.ts';

const half = (value: number): number => {
  if (value % 2 === 1) throw new RangeError('odd');
  return value / 2;
};

test('a value that is here is used at once', () => {
  expect(andThen(4, half)).toBe(2);
  expect(() => andThen(3, half)).toThrow(RangeError);
});

test('a promise is waited for, and carries what went wrong', async () => {
  await expect(andThen(Promise.resolve(4), half)).resolves.toBe(2);
  await expect(andThen(Promise.resolve(3), half)).rejects.toThrow(RangeError);
  await expect(andThen(Promise.reject(new TypeError('never')), half)).rejects.toThrow(TypeError);
});
