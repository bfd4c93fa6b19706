import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { InvalidResponseError } from '../../../src/upstream/failures.ts';
import { readBlobContent } from '../../../src/upstream/responses.ts';

const answer = (status: number, headers: Record<string, string> = {}) => ({
  status,
  headers,
  body: Readable.from([]),
  url: new URL('https://registry.test/v2/app/blobs/sha256:0'),
  redirected: false,
});

describe('readBlobContent', () => {
  it('reads a part from the offset that was asked for', () => {
    expect(readBlobContent(answer(206, { 'content-range': 'bytes 5-9/10' }), 5)).toEqual({
      kind: 'segment',
      from: 5,
      to: 10,
      size: 10,
    });
    expect(readBlobContent(answer(206, { 'content-range': 'bytes 5-9/*' }), 5)).toMatchObject({ size: undefined });
  });

  it.each([
    ['another offset', 'bytes 4-9/10'],
    ['a range that ends behind the blob', 'bytes 5-10/10'],
    ['no range', undefined],
  ])('refuses a part with %s', (_, range) => {
    const headers = range === undefined ? {} : { 'content-range': range };
    expect(() => readBlobContent(answer(206, headers as Record<string, string>), 5)).toThrow(InvalidResponseError);
  });

  it('reads the whole, with what it says of ranges', () => {
    expect(readBlobContent(answer(200, { 'content-length': '10', 'accept-ranges': 'Bytes' }), null)).toEqual({
      kind: 'whole',
      size: 10,
      ranges: true,
      unsure: false,
    });
    expect(readBlobContent(answer(200, { 'accept-ranges': 'none' }), 5)).toEqual({
      kind: 'whole',
      size: undefined,
      ranges: false,
      unsure: false,
    });
    expect(readBlobContent(answer(200), null)).toMatchObject({ ranges: undefined });
  });

  it('refuses bytes that are compressed, unless they have the size of those that are not, or their digest alone can tell', () => {
    const gzip = { 'content-encoding': 'GZIP', 'content-length': '9' };
    expect(readBlobContent(answer(200, gzip), null)).toMatchObject({ kind: 'whole', size: undefined, unsure: true });
    expect(() => readBlobContent(answer(200, gzip), null, 10)).toThrow(InvalidResponseError);
    expect(readBlobContent(answer(200, gzip), null, 9)).toMatchObject({ size: 9 });
    const part = { 'content-encoding': 'gzip', 'content-range': 'bytes 5-8/9' };
    expect(() => readBlobContent(answer(206, part), 5, 10)).toThrow(InvalidResponseError);
    expect(readBlobContent(answer(206, part), 5, 9)).toMatchObject({ from: 5 });
    expect(readBlobContent(answer(200, { 'content-encoding': 'aws-chunked' }), null)).toMatchObject({ kind: 'whole' });
  });

  it('takes a part for the whole only where it is all of it', () => {
    const part = (range: string, more = {}) => readBlobContent(answer(206, { 'content-range': range, ...more }), null);
    expect(part('bytes 0-9/10')).toEqual({ kind: 'whole', size: 10, ranges: true, unsure: false });
    for (const range of ['bytes 0-8/10', 'bytes 1-9/10', 'bytes 0-9/*', 'items 0-9/10'])
      expect(() => part(range)).toThrow(InvalidResponseError);
    expect(() => part('bytes 0-9/10', { 'content-length': '11' })).toThrow(InvalidResponseError);
  });

  it('takes a 416 for the end only where the blob ends at the offset asked for or before it', () => {
    expect(readBlobContent(answer(416, { 'content-range': 'bytes */10' }), 10)).toEqual({ kind: 'end', size: 10 });
    expect(readBlobContent(answer(416, { 'content-range': 'bytes */9' }), 10)).toEqual({ kind: 'end', size: 9 });
    expect(readBlobContent(answer(416, { 'content-range': 'bytes */11' }), 10)).toBeNull();
    expect(readBlobContent(answer(416), 10)).toBeNull();
  });

  it('knows nothing of other answers', () => {
    expect(readBlobContent(answer(404), null)).toBeNull();
    expect(readBlobContent(answer(304), null)).toBeNull();
  });
});
