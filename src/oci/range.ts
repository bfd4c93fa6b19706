import { type Extent, IntervalSet } from '../kit/interval-set.ts';

/** One range as asked for, before the size is known; `to` is exclusive, undefined reads to the end. */
export type RangeSpec =
  | { readonly kind: 'from'; readonly from: number; readonly to: number | undefined }
  | { readonly kind: 'suffix'; readonly length: number };

/** More ranges than the largest client sends at once (zstd:chunked: 1024): such a header is ignored, as RFC 9110 14.2 allows. */
export const MAX_RANGES = 1024;

/** Longest header read: 1024 ranges of 13 digits twice. */
const MAX_LENGTH = 32 * 1024;

/**
 * Reads a `Range` header (RFC 9110, 14.1.2 and 14.2). Null where it is ignored: another unit, malformed, or too many ranges. One whose end lies
 * before its start is a range of nothing, which no content can satisfy: the client is told so, rather than sent all of it.
 */
export function parseRange(header: string | undefined): RangeSpec[] | null {
  if (header === undefined || header.length > MAX_LENGTH || !/^bytes=/i.test(header)) return null;
  const specs: RangeSpec[] = [];
  for (const part of header.slice('bytes='.length).split(',')) {
    const text = part.trim();
    if (text === '') continue; // empty list elements are no error (RFC 9110, 5.6.1)
    const match = /^(\d*)-(\d*)$/.exec(text);
    if (match === null || specs.length === MAX_RANGES) return null;
    const spec = readSpec(match[1] ?? '', match[2] ?? '');
    if (spec === null) return null;
    specs.push(spec);
  }
  return specs.length === 0 ? null : specs;
}

function readSpec(first: string, last: string): RangeSpec | null {
  if (first === '' && last === '') return null;
  // Beyond the end of every file: RFC 9110, 14.1.2 reads such an end as the end of the content.
  const [from, end] = [first, last].map((digits) => Math.min(Number(digits), Number.MAX_SAFE_INTEGER - 1)) as [
    number,
    number,
  ];
  if (first === '') return { kind: 'suffix', length: end };
  if (last === '') return { kind: 'from', from, to: undefined };
  return { kind: 'from', from, to: Math.max(from, end + 1) };
}

/** Whether some content could satisfy it. */
export function isSatisfiable(spec: RangeSpec): boolean {
  return spec.kind === 'suffix' ? spec.length > 0 : spec.from < (spec.to ?? Number.POSITIVE_INFINITY);
}

/** The satisfiable ranges as extents within `size` bytes, in the order asked; empty where none is (416). */
export function resolveRanges(specs: readonly RangeSpec[], size: number): Extent[] {
  const extents: Extent[] = [];
  for (const spec of specs) {
    const from = spec.kind === 'suffix' ? Math.max(0, size - spec.length) : spec.from;
    const to = spec.kind === 'suffix' ? size : Math.min(size, spec.to ?? size);
    if (from < to) extents.push({ from, to });
  }
  return extents;
}

/** What each part of a multipart body costs beside its bytes: the boundary, two fields, empty lines. */
const PART_OVERHEAD = 150;
/** Ranges with a smaller gap between them may be sent as one: RFC 9110, 15.3.7.2 takes the overhead of a part for some 80 bytes. */
const SMALL_GAP = 80;

/**
 * Joins ranges that overlap or lie close to each other, in ascending order, where they are so small that their parts' headers outweigh them
 * (RFC 9110, 15.3.7.2). Others stay as they were asked for: some clients (containers/image, for zstd:chunked) count the parts.
 */
export function joinTinyRanges(extents: readonly Extent[]): readonly Extent[] {
  const bytes = extents.reduce((sum, { from, to }) => sum + to - from, 0);
  if (extents.length < 2 || bytes >= extents.length * PART_OVERHEAD) return extents;
  const joined: { from: number; to: number }[] = [];
  for (const { from, to } of [...extents].sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1);
    if (last !== undefined && from - last.to < SMALL_GAP) last.to = Math.max(last.to, to);
    else joined.push({ from, to });
  }
  return joined;
}

/** Whether the ranges together are all of the content. */
export function coverAll(extents: readonly Extent[], size: number): boolean {
  return new IntervalSet(extents).endFrom(0) >= size;
}

/** `Content-Range` of a 206. */
export function contentRange(extent: Extent, size: number | undefined): string {
  return `bytes ${extent.from}-${extent.to - 1}/${size ?? '*'}`;
}

/** `Content-Range` of a 416. */
export function unsatisfied(size: number): string {
  return `bytes */${size}`;
}
