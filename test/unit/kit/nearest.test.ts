import { expect, test } from 'vitest';
import { nearest } from '../../../src/kit/nearest.ts';

test('finds the word that was meant, and nothing where none is near', () => {
  const words = ['maxSize', 'minFree', 'tagTtl', 'staleFor'];
  expect(nearest('maxsize', words)).toBe('maxSize');
  expect(nearest('max_size', words)).toBe('maxSize');
  expect(nearest('tagTTTl', words)).toBe('tagTtl');
  expect(nearest('proxy', words)).toBeUndefined();
  expect(nearest('', [])).toBeUndefined();
});
