import { expect, test } from 'vitest';
import { after } from '../../../src/kit/after.ts';

const half = (value: number): number => {
  if (value % 2 === 1) throw new RangeError('odd');
  return value / 2;
};

test('a value that is here is used at once', () => {
  expect(after(4, half)).toBe(2);
  expect(() => after(3, half)).toThrow(RangeError);
});

test('a promise is waited for, and carries what went wrong', async () => {
  await expect(after(Promise.resolve(4), half)).resolves.toBe(2);
  await expect(after(Promise.resolve(3), half)).rejects.toThrow(RangeError);
  await expect(after(Promise.reject(new TypeError('never')), half)).rejects.toThrow(TypeError);
});
