import { expect, test } from 'vitest';
import { ReadyTexts } from '../../../src/edge/ready-texts.ts';

test('a body that is sent again becomes a text, byte for byte', () => {
  const texts = new ReadyTexts();
  // A view into a larger buffer, as those that came over a channel are.
  const whole = Uint8Array.from({ length: 512 }, (_, n) => n % 256);
  const body = whole.subarray(100, 400);
  expect(texts.of(body)).toBeNull();
  const text = texts.of(body);
  expect(Buffer.from(text ?? '', 'latin1')).toEqual(Buffer.from(body));
  expect(texts.of(body)).toBe(text);
  expect(texts.of(whole.subarray(100, 400))).toBeNull();
});

test('a long body does not, and an empty one may', () => {
  const texts = new ReadyTexts();
  const long = new Uint8Array(64 * 1024);
  const empty = new Uint8Array(0);
  for (let n = 0; n < 3; n++) expect(texts.of(long)).toBeNull();
  texts.of(empty);
  expect(texts.of(empty)).toBe('');
});
