import { describe, expect, it } from 'vitest';
import { isLoopback } from '../../../src/upstream/push/open-target.ts';
import {
  chunkLength,
  commitUrl,
  confirmedBytes,
  minChunkOf,
  sessionLocation,
} from '../../../src/upstream/push/upload-session.ts';

const endpoint = new URL('https://registry.example');
const from = new URL('https://registry.example/v2/app/blobs/uploads/');

describe('the place of an upload', () => {
  it.each([
    ['/v2/app/blobs/uploads/1?_state=a%2Bb+c', 'https://registry.example/v2/app/blobs/uploads/1?_state=a%2Bb+c'],
    ['1', 'https://registry.example/v2/app/blobs/uploads/1'],
    ['https://store.example/put?sig=x#y', 'https://store.example/put?sig=x'],
    // A terminator that does not tell the registry that it speaks TLS.
    ['http://registry.example/v2/app/blobs/uploads/1', 'https://registry.example/v2/app/blobs/uploads/1'],
  ])('%s is %s', (text, place) => {
    expect(sessionLocation(text, from, endpoint).href).toBe(place);
  });

  it.each([
    undefined,
    'http://',
    'http://other.example/1',
    'http://registry.example:8080/1',
    'https://u:p@registry.example/1',
    'ftp://registry.example/1',
  ])('%s is none', (text) => {
    expect(() => sessionLocation(text, from, endpoint)).toThrow();
  });

  it('keeps its query as it was written where the digest is added', () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    const search = (text: string) => commitUrl(new URL(text), digest).search;
    expect(search('https://r.example/1')).toBe(`?digest=sha256%3A${'a'.repeat(64)}`);
    expect(search('https://r.example/1?_state=a+b%2Fc%3D%20d&x')).toBe(
      `?_state=a+b%2Fc%3D%20d&x&digest=sha256%3A${'a'.repeat(64)}`,
    );
  });
});

describe('what is confirmed', () => {
  it.each([
    ['0-499', 500],
    ['bytes=0-499', 500],
    ['bytes 0-499', 500],
    ['0-0', 0],
    ['0-1', 2],
    ['1-499', null],
    ['0-', null],
    ['0-99999999999999999999', null],
    [undefined, null],
  ])('by %s is %s', (range, bytes) => {
    expect(confirmedBytes(range === undefined ? {} : { range })).toBe(bytes);
  });
});

describe('a chunk', () => {
  const session = (offset: number, minChunk = 0) => ({ location: from, offset, minChunk });

  it('is as large as it may be, the last one as small as it is', () => {
    expect(chunkLength(session(0), 100, 40)).toBe(40);
    expect(chunkLength(session(80), 100, 40)).toBe(20);
    expect(chunkLength(session(0, 60), 100, 40)).toBe(60);
    expect(chunkLength(session(60, 60), 100, 40)).toBe(40);
  });

  it('has the least that its registry asks for, within reason', () => {
    expect(minChunkOf({})).toBe(0);
    expect(minChunkOf({ 'oci-chunk-min-length': '1000' })).toBe(1000);
    expect(minChunkOf({ 'oci-chunk-min-length': '-1' })).toBe(0);
    expect(minChunkOf({ 'oci-chunk-min-length': '999999999999' })).toBe(1024 ** 3);
  });
});

it.each([
  ['localhost:5000', true],
  ['registry.localhost', true],
  ['127.0.0.2', true],
  ['[::1]:5000', true],
  ['[::ffff:127.0.0.1]', true],
  ['127.0.0.1.example.com', false],
  ['notlocalhost', false],
  ['10.0.0.1', false],
])('%s is this machine: %s', (host, is) => {
  expect(isLoopback(new URL(`https://${host}`))).toBe(is);
});
