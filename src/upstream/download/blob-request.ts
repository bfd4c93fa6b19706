import type { BlobKey } from '../../oci/transfer.ts';
import type { UpstreamContext } from '../context.ts';
import { InvalidResponseError, StatusError } from '../failures.ts';
import type { UpstreamRequest } from '../request.ts';
import {
  bytesOf,
  cutOff,
  discard,
  header,
  parseContentRange,
  statusError,
  type UpstreamResponse,
} from '../responses.ts';
import type { Route } from '../upstream.ts';

export interface BlobRequest {
  readonly method: UpstreamRequest['method'];
  /** `to` is exclusive; null for the whole blob. */
  readonly range: { readonly from: number; readonly to?: number | undefined } | null;
  readonly signal: AbortSignal;
  readonly purpose: UpstreamRequest['purpose'];
}

/** Requests a blob or a range of it; resolves to the response whatever its status. */
export function requestBlob(
  { requester }: Pick<UpstreamContext, 'requester'>,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  { method, range, signal, purpose }: BlobRequest,
): Promise<UpstreamResponse> {
  const headers: Record<string, string> = { accept: '*/*' };
  if (range !== null) headers.range = `bytes=${range.from}-${range.to === undefined ? '' : range.to - 1}`;
  const path = `/v2/${key.repository}/blobs/${key.digest}`;
  return requester.send({ route, endpoint, path, repository: key.repository, method, headers, signal, purpose });
}

/** What the body of a response holds. */
export type BlobContent =
  /** Bytes `[from, to)` of the blob. */
  | { readonly kind: 'segment'; readonly from: number; readonly to: number; readonly size: number | undefined }
  /** The blob from its start. `ranges`: whether the server says that it supports Range; undefined where it does not say. */
  | { readonly kind: 'whole'; readonly size: number | undefined; readonly ranges: boolean | undefined }
  /** Nothing: the blob ends at the requested offset. */
  | { readonly kind: 'end'; readonly size: number };

/**
 * Reads a 200, 206 or 416 (RFC 9110 §14.4, §15.5.17); null for any other response, and for a 206 where no range was requested.
 * `If-Range` is not sent: validators differ between the mirrors and CDN nodes of one registry, while the bytes of a digest cannot. The
 * size, checked here, and the digest, checked at the end, are what counts.
 * @param from where the requested range begins; null where the whole blob was requested
 * @throws {InvalidResponseError} for another range than the requested one, or compressed bytes; the body is cut off then
 */
export function readBlobContent(response: UpstreamResponse, from: number | null): BlobContent | null {
  if (response.status === 206 && from !== null) {
    requireIdentity(response);
    const range = parseContentRange(header(response.headers, 'content-range'));
    if (range === null || range.from !== from) {
      cutOff(response.body);
      throw new InvalidResponseError('a part of the blob that was not asked for');
    }
    return { kind: 'segment', ...range };
  }
  if (response.status === 200) {
    requireIdentity(response);
    const acceptRanges = header(response.headers, 'accept-ranges')?.trim().toLowerCase();
    return {
      kind: 'whole',
      size: bytesOf(header(response.headers, 'content-length')),
      ranges: acceptRanges === 'bytes' ? true : acceptRanges === 'none' ? false : undefined,
    };
  }
  if (response.status === 416 && from !== null && unsatisfiedSize(response) === from)
    return { kind: 'end', size: from };
  return null;
}

/** The failure in a response that is neither the blob nor a range of it. */
export async function blobError(response: UpstreamResponse, endpoint: URL): Promise<StatusError> {
  if (response.status >= 400) return await statusError(response, endpoint);
  discard(response.body);
  return new StatusError(502, response.url.host, undefined, `it answered ${response.status} to a request for a blob`);
}

/** The size in the `Content-Range` of a 416, where an asterisk stands for the range (RFC 9110 §15.5.17). */
export function unsatisfiedSize({ headers }: UpstreamResponse): number | undefined {
  return bytesOf(/^bytes \*\/(\d+)$/.exec(header(headers, 'content-range') ?? '')?.[1]);
}

/** The digest is not that of bytes which are compressed though `Accept-Encoding: identity` was sent. */
function requireIdentity({ headers, body }: UpstreamResponse): void {
  const encoding = header(headers, 'content-encoding')?.trim().toLowerCase() ?? 'identity';
  if (encoding === 'identity' || encoding === '') return;
  cutOff(body);
  throw new InvalidResponseError(`a blob compressed with ${encoding}, though it was asked for as it is`);
}
