import { RedirectError } from '../failures.ts';
import type { ResponseHeaders } from '../net/connections.ts';
import { checkTarget } from '../net/egress.ts';
import { header } from '../responses.ts';

// What a registry says of an upload session, read (distribution-spec, *Pushing a blob in chunks*).

/** An upload that a registry has begun for one blob. */
export interface UploadSession {
  /** Where the next request goes; its query is the registry's own state, kept as it is. A secret: who has it may write. */
  readonly location: URL;
  /** Bytes from the first that the registry has confirmed. */
  readonly offset: number;
  /** The least that a chunk has but the last one (`OCI-Chunk-Min-Length`), bytes. */
  readonly minChunk: number;
}

/** No registry needs larger ones; S3's own parts are 5 MiB at least. */
const MAX_MIN_CHUNK = 1024 * 1024 * 1024;

/**
 * Where a session goes on: absolute or relative (RFC 9110 §10.2.2), checked as any place that a registry points to. A registry behind a terminator that
 * does not tell it so calls itself `http://`: its own host is asked as it was.
 * @throws {RedirectError}
 */
export function sessionLocation(text: string | undefined, from: URL, endpoint: URL): URL {
  if (text === undefined || !URL.canParse(text, from.href))
    throw new RedirectError('an upload without a place', from.host);
  const url = new URL(text, from);
  const own = url.protocol === 'http:' && endpoint.protocol === 'https:' && url.hostname === endpoint.hostname;
  if (own && (url.port === '' || url.port === endpoint.port)) {
    url.protocol = endpoint.protocol;
    url.port = endpoint.port;
  }
  checkTarget(url, endpoint, 'an upload');
  url.hash = '';
  return url;
}

/** The URL that commits a session. Only added to: a query that is parsed and written anew may not be what its registry has signed. */
export function commitUrl(location: URL, digest: string): URL {
  const url = new URL(location);
  url.search += `${url.search === '' ? '?' : '&'}digest=${encodeURIComponent(digest)}`;
  return url;
}

/**
 * How many bytes an answer confirms by its `Range: 0-499`; null where it does not say, or what makes no sense. Distribution writes `0-0` for none, and
 * one byte alone has the same range: sending that once more does no harm.
 */
export function confirmedBytes(headers: ResponseHeaders): number | null {
  const last = /^(?:bytes[ =])?0-(\d{1,15})$/.exec(header(headers, 'range')?.trim() ?? '')?.[1];
  if (last === undefined) return null;
  return last === '0' ? 0 : Number(last) + 1;
}

export function minChunkOf(headers: ResponseHeaders): number {
  const text = header(headers, 'oci-chunk-min-length') ?? '';
  return /^\d{1,12}$/.test(text) ? Math.min(MAX_MIN_CHUNK, Number(text)) : 0;
}

/** Bytes of the next chunk of a blob of this size. */
export function chunkLength({ offset, minChunk }: UploadSession, size: number, chunk: number): number {
  return Math.min(size - offset, Math.max(chunk, minChunk));
}
