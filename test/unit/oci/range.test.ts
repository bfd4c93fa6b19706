import { describe, expect, it } from 'vitest';
import { contentRange, MAX_RANGES, parseRange, resolveRanges, unsatisfied } from '../../../src/oci/range.ts';

const resolve = (header: string, size: number) => {
  const specs = parseRange(header);
  return specs === null ? 'ignored' : resolveRanges(specs, size).map((extent) => [extent.from, extent.to]);
};

describe('Range', () => {
  it.each([
    ['bytes=0-0', [[0, 1]]],
    ['bytes=0-9', [[0, 10]]],
    ['bytes=5-', [[5, 10]]],
    ['bytes=5-100', [[5, 10]]],
    ['bytes=-3', [[7, 10]]],
    ['bytes=-30', [[0, 10]]],
    ['bytes=4-99999999999999999999', [[4, 10]]],
    ['bytes=-99999999999999999999', [[0, 10]]],
    ['bytes=2-1,3-3', [[3, 4]]],
    ['Bytes=1-2', [[1, 3]]],
    [
      'bytes=0-1, 4-5 ,-1',
      [
        [0, 2],
        [4, 6],
        [9, 10],
      ],
    ],
    ['bytes=8-8,20-30', [[8, 9]]],
    ['bytes=,1-1,', [[1, 2]]],
  ] as const)('%s of 10 bytes', (header, extents) => expect(resolve(header, 10)).toEqual(extents));

  it.each([
    'bytes=10-',
    'bytes=10-20',
    'bytes=-0',
    'bytes=20-30,40-',
    'bytes=2-1',
    'bytes=500-0',
    'bytes=99999999999999999999-',
  ])('%s of 10 bytes: unsatisfiable', (header) => expect(resolve(header, 10)).toEqual([]));

  it('nothing of an empty blob is satisfiable', () => {
    expect(resolve('bytes=0-', 0)).toEqual([]);
    expect(resolve('bytes=-5', 0)).toEqual([]);
  });

  it.each([
    'items=0-1',
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=a-b',
    'bytes=0-1;2-3',
    'bytes=1-2,x',
    'bytes=0x1-2',
    'bytes=+1-2',
    'bytes=1.0-2',
  ])('%s is ignored', (header) => expect(resolve(header, 10)).toBe('ignored'));

  it('takes as many ranges as zstd:chunked sends, and ignores more', () => {
    const ranges = (count: number) =>
      `bytes=${Array.from({ length: count }, (_, at) => `${2 * at}-${2 * at}`).join(',')}`;
    expect(parseRange(ranges(MAX_RANGES))).toHaveLength(MAX_RANGES);
    expect(parseRange(ranges(MAX_RANGES + 1))).toBeNull();
  });
});

describe('Content-Range', () => {
  it('is written with an inclusive end', () => {
    expect(contentRange({ from: 2, to: 5 }, 10)).toBe('bytes 2-4/10');
    expect(contentRange({ from: 2, to: 5 }, undefined)).toBe('bytes 2-4/*');
    expect(unsatisfied(10)).toBe('bytes */10');
  });
});
