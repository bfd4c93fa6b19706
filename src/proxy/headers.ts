import type { Digest } from '../oci/digest.ts';
import { BLOB } from '../oci/media-types.ts';

/** Docker's clients take a registry for version 2 by this header; every answer has it. */
const API_VERSION = 'registry/2.0';

/** RFC 9111, *Warning* as RFC 7234 5.5.1 defines it: what is served may be out of date. */
const STALE = '110 - "Response is Stale"';

export type Headers = Readonly<Record<string, string>>;

/** What every client needs of a manifest: type without parameters, exact length, digest, quoted tag. */
export function manifestHeaders(mediaType: string, size: number, digest: Digest): Headers {
  return {
    'docker-distribution-api-version': API_VERSION,
    'content-type': mediaType,
    'content-length': String(size),
    'docker-content-digest': digest,
    etag: entityTag(digest),
  };
}

/** A blob, or a part of one: `length` is that of the body, undefined where the upstream never says. */
export function blobHeaders(digest: Digest, length: number | undefined, contentType: string = BLOB): Headers {
  const headers: Record<string, string> = {
    'docker-distribution-api-version': API_VERSION,
    'content-type': contentType,
    'docker-content-digest': digest,
    etag: entityTag(digest),
    'accept-ranges': 'bytes',
    // Its name is its digest: no cache between here and the client ever has to ask again.
    'cache-control': 'max-age=31536000, immutable',
  };
  if (length !== undefined) headers['content-length'] = String(length);
  return headers;
}

export function listHeaders(mediaType: string, length: number): Headers {
  return {
    'docker-distribution-api-version': API_VERSION,
    'content-type': mediaType,
    'content-length': String(length),
  };
}

/** A 304 has what a cache needs to know again, and no length. */
export function notModifiedHeaders(digest: Digest): Headers {
  return {
    'docker-distribution-api-version': API_VERSION,
    'docker-content-digest': digest,
    etag: entityTag(digest),
  };
}

export function staleHeaders(headers: Headers): Headers {
  return { ...headers, warning: STALE };
}

/** The digest names the exact bytes, so it is a strong validator. */
function entityTag(digest: Digest): string {
  return `"${digest}"`;
}

/** `If-None-Match` (RFC 9110, 13.1.2): weak comparison, a list, or `*`. */
export function matchesNone(header: string | undefined, digest: Digest): boolean {
  if (header === undefined) return false;
  if (header.trim() === '*') return true;
  const tag = entityTag(digest);
  return header.split(',').some((part) => part.trim().replace(/^W\//, '') === tag);
}

/** `If-Range` (RFC 9110, 13.1.5): strong comparison. Blobs have no date, so a date never matches. True where the range stands. */
export function rangeStands(header: string | undefined, digest: Digest): boolean {
  return header === undefined || header.trim() === entityTag(digest);
}
