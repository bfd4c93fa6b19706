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

test('hosts are compared without the domain that both are under', () => {
  const hosts = ['fake.corp.example.com', 'quay.io', 'ghcr.io', 'k8s'];
  expect(didYouMean('refused.corp.example.com', hosts)).toBeUndefined();
  expect(didYouMean('fkae.corp.example.com', hosts)).toBe('fake.corp.example.com');
  expect(didYouMean('quay.oi', hosts)).toBe('quay.io');
  expect(didYouMean('gchr.io', hosts)).toBe('ghcr.io');
  expect(didYouMean('k9', hosts)).toBeUndefined();
});
