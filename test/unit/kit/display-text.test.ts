import { expect, test } from 'vitest';
import { displayWidth, padDisplay, wrapDisplay } from '../../../src/kit/text.ts';

test.each([
  ['plain', 5],
  ['镜像 a', 6],
  ['é', 1],
  ['e\u0301', 1],
  ['ｗｉｄｅ', 8],
  ['', 0],
])('%j takes %i columns', (text, width) => {
  expect(displayWidth(text)).toBe(width);
  expect(displayWidth(padDisplay(text, 10))).toBe(10);
});

test('lines are broken between words, and within what is too long', () => {
  expect(wrapDisplay('one two three', 7)).toEqual(['one two', '  three']);
  expect(wrapDisplay('  one two three', 10)).toEqual(['  one two', '    three']);
  expect(wrapDisplay('abcdefghij', 6)).toEqual(['abcdef', '  ghij']);
  expect(wrapDisplay('镜像仓库不可用', 8)).toEqual(['镜像仓库', '  不可用']);
  expect(wrapDisplay('short', 80)).toEqual(['short']);
});

test('there is an end to it, however narrow', () => {
  expect(wrapDisplay('镜像', 1).join('').replaceAll(' ', '')).toBe('镜像');
});
