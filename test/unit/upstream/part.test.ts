import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { NonsenseError } from '../../../src/upstream/failures.ts';
import { readPart } from '../../../src/upstream/part.ts';

const answer = (status: number, headers: Record<string, string> = {}) => ({
  status,
  headers,
  body: Readable.from([]),
  url: new URL('https://registry.test/v2/app/blobs/sha256:0'),
});

describe('readPart', () => {
  it('reads a part from the offset that was asked for', () => {
    expect(readPart(answer(206, { 'content-range': 'bytes 5-9/10' }), 5)).toEqual({
      kind: 'part',
      from: 5,
      to: 10,
      size: 10,
    });
    expect(readPart(answer(206, { 'content-range': 'bytes 5-9/*' }), 5)).toMatchObject({ size: undefined });
  });

  it.each([
    ['another offset', 'bytes 4-9/10'],
    ['a range that ends behind the blob', 'bytes 5-10/10'],
    ['no range', undefined],
  ])('refuses a part with %s', (_, range) => {
    const headers = range === undefined ? {} : { 'content-range': range };
    expect(() => readPart(answer(206, headers as Record<string, string>), 5)).toThrow(NonsenseError);
  });

  it('reads the whole, with what it says of ranges', () => {
    expect(readPart(answer(200, { 'content-length': '10', 'accept-ranges': 'Bytes' }), null)).toEqual({
      kind: 'whole',
      size: 10,
      ranges: true,
    });
    expect(readPart(answer(200, { 'accept-ranges': 'none' }), 5)).toEqual({
      kind: 'whole',
      size: undefined,
      ranges: false,
    });
    expect(readPart(answer(200), null)).toMatchObject({ ranges: undefined });
  });

  it('refuses bytes that are compressed', () => {
    expect(() => readPart(answer(200, { 'content-encoding': 'gzip' }), null)).toThrow(NonsenseError);
  });

  it('takes a 416 for the end only where the blob ends at the offset asked for', () => {
    expect(readPart(answer(416, { 'content-range': 'bytes */10' }), 10)).toEqual({ kind: 'end', size: 10 });
    expect(readPart(answer(416, { 'content-range': 'bytes */9' }), 10)).toBeNull();
    expect(readPart(answer(416), 10)).toBeNull();
  });

  it('knows nothing of other answers', () => {
    expect(readPart(answer(404), null)).toBeNull();
    expect(readPart(answer(206, { 'content-range': 'bytes 0-9/10' }), null)).toBeNull();
  });
});
