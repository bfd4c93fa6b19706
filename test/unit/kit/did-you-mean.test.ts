import { expect, test } from 'vitest';
import { didYouMean } from '../../../src/kit/did-you-mean.ts';

test('finds the word that was meant, and nothing where none is near', () => {
  const words = ['maxSize', 'minFree', 'tagTtl', 'staleFor'];
  expect(didYouMean('maxsize', words)).toBe('maxSize');
  expect(didYouMean('max_size', words)).toBe('maxSize');
  expect(didYouMean('tagTTTl', words)).toBe('tagTtl');
  expect(didYouMean('proxy', words)).toBeUndefined();
  expect(didYouMean('', [])).toBeUndefined();
});
