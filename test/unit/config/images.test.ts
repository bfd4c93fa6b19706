import { expect, test } from 'vitest';
import { imageRulesText, parseImageRule, parseImageRules, splitPattern } from '../../../src/config/images.ts';

const HEX = 'a'.repeat(64);

test.each([
  ['*', { name: '*', tag: null, digest: null }],
  ['*:latest', { name: '*', tag: 'latest', digest: null }],
  ['*@*', { name: '*', tag: null, digest: '*' }],
  ['*/*:latest', { name: '*/*', tag: 'latest', digest: null }],
  ['docker.io/library/*', { name: 'docker.io/library/*', tag: null, digest: null }],
  ['Docker.IO/Library/Nginx:V1', { name: 'docker.io/library/nginx', tag: 'V1', digest: null }],
  ['docker.io/nginx:1.*', { name: 'docker.io/nginx', tag: '1.*', digest: null }],
  ['localhost/x', { name: 'localhost/x', tag: null, digest: null }],
  ['localhost:5000/x', { name: 'localhost:5000/x', tag: null, digest: null }],
  ['localhost:*/x:1', { name: 'localhost:*/x', tag: '1', digest: null }],
  ['[2001:db8::1]:5000/x:1', { name: '[2001:db8::1]:5000/x', tag: '1', digest: null }],
  ['*.pkg.dev/team/*', { name: '*.pkg.dev/team/*', tag: null, digest: null }],
  ['hf.co/Org/Model-GGUF:Q4_0', { name: 'hf.co/org/model-gguf', tag: 'Q4_0', digest: null }],
  [`quay.io/a/b@sha256:${HEX}`, { name: 'quay.io/a/b', tag: null, digest: `sha256:${HEX}` }],
  ['quay.io/a/b@sha256:*', { name: 'quay.io/a/b', tag: null, digest: 'sha256:*' }],
])('reads %s', (text, parts) => {
  expect(splitPattern(text)).toEqual(parts);
});

test.each([
  ['', 'is not a pattern of images'],
  ['!', 'is not a pattern of images'],
  [' ', 'is not a pattern of images'],
  [7, 'is not a pattern of images'],
  ['nginx', 'write docker.io/library/nginx'],
  ['nginx:1', 'write docker.io/library/nginx'],
  ['library/nginx', 'names no registry; write docker.io/library/nginx'],
  ['docker.io', 'write docker.io/*'],
  ['*.pkg.dev', 'write *.pkg.dev/*'],
  ['docker.io/', 'is not a pattern of images'],
  ['docker.io//x', 'is not a pattern of images'],
  ['docker.io/x:', 'is not a pattern of images'],
  ['docker.io/x:a:b', 'is not a pattern of images'],
  ['docker.io/x y', 'is not a pattern of images'],
  ['docker.io/x?', 'is not a pattern of images'],
  ['docker.io/{a,b}', 'is not a pattern of images'],
  ['https://docker.io/x', 'is not a pattern of images'],
  ['docker.io/a:5000/x', 'is not a pattern of images'],
  ['docker.io/x@', 'has no digest behind its @'],
  ['docker.io/x@latest', 'has no digest behind its @'],
  ['docker.io/x@sha256:abc', 'has no digest behind its @'],
  [`docker.io/x@sha256:${'A'.repeat(64)}`, 'has no digest behind its @'],
  ['docker.io/x@md5:*', 'has no digest behind its @'],
  [`docker.io/x:1@sha256:${HEX}`, 'names a tag and a digest'],
  [`docker.io/${'x'.repeat(600)}`, 'longer than 512'],
])('refuses %s', (text, message) => {
  expect(() => parseImageRule(text)).toThrow(message);
});

test('rules for some clients', () => {
  const rule = { image: '! docker.io/*', users: ['ci'], networks: ['10.0.0.0/8'] };
  expect(parseImageRule(rule)).toEqual({
    pattern: 'docker.io/*',
    allows: false,
    users: ['ci'],
    networks: ['10.0.0.0/8'],
  });
  expect(() => parseImageRule({ image: '*', user: 'ci' })).toThrow('unknown key "user"');
  expect(() => parseImageRule({ image: '*', users: [] })).toThrow('has nobody in users');
  expect(() => parseImageRule({ image: '*', networks: [] })).toThrow('has nobody in networks');
  expect(() => parseImageRule({ image: '*', users: [7] })).toThrow('names a user that is no text');
  expect(() => parseImageRule({ image: '*', networks: ['ten'] })).toThrow('ten');
  expect(() => parseImageRule({ users: ['ci'] })).toThrow('is not a pattern of images');
});

test('are shown as they are written', () => {
  const rules = parseImageRules(['*', '!*:latest', { image: '!quay.io/*', users: ['ci'], networks: ['10.0.0.0/8'] }]);
  expect(imageRulesText(rules)).toBe('*, !*:latest, !quay.io/* (user ci, 10.0.0.0/8)');
  expect(imageRulesText([])).toBe('none');
});
