import { plain, sizeOf416 } from './blobs.ts';
import { NonsenseError } from './failures.ts';
import { bytesOf, header, parseContentRange } from './headers.ts';
import type { Answer } from './request.ts';

/** What an answer brings to whoever asked for a blob from an offset on: bytes `[from, to)`, or the news that there are none. */
export type Part =
  | { readonly kind: 'part'; readonly from: number; readonly to: number; readonly size: number | undefined }
  /** The blob from its start; `ranges`: whether parts can be had as well, where the answer says so. */
  | { readonly kind: 'whole'; readonly size: number | undefined; readonly ranges: boolean | undefined }
  | { readonly kind: 'end'; readonly size: number };

/**
 * Reads a 200, a 206 or a 416 (RFC 9110 §14.4, §15.5.17). Null for any other answer, and for a part where none was asked for.
 * `If-Range` is not sent: a validator differs between the mirrors and CDN nodes of one registry while the bytes, being addressed by their
 * digest, do not; the size here and the digest in the end are what counts.
 * @param from where a part was asked for from; null where the whole was
 * @throws {NonsenseError} another part than asked for, or compressed bytes
 */
export function readPart(answer: Answer, from: number | null): Part | null {
  if (answer.status === 206 && from !== null) {
    plain(answer);
    const got = parseContentRange(header(answer.headers, 'content-range'));
    if (got === null || got.from !== from) throw new NonsenseError('a part of the blob that was not asked for');
    return { kind: 'part', ...got };
  }
  if (answer.status === 200) {
    plain(answer);
    const said = header(answer.headers, 'accept-ranges')?.trim().toLowerCase();
    return {
      kind: 'whole',
      size: bytesOf(header(answer.headers, 'content-length')),
      ranges: said === 'bytes' ? true : said === 'none' ? false : undefined,
    };
  }
  if (answer.status === 416 && from !== null && sizeOf416(answer) === from) return { kind: 'end', size: from };
  return null;
}
