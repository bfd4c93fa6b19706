import type { Readable } from 'node:stream';
import { readBounded } from '../kit/bounded.ts';
import { parseRetryAfter } from '../kit/retry-after.ts';
import { StatusError } from './failures.ts';
import type { Headers, RawResponse } from './net/connections.ts';

/** The last response after challenges and redirects; its body is to be read to the end or destroyed. */
export interface UpstreamResponse extends RawResponse {
  /** The URL that was asked last. */
  readonly url: URL;
}

/** One value of a header: the first of several. */
export function header(headers: Headers, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** All values of a header that may be repeated, as one list (RFC 9110 §5.3). */
export function headerList(headers: Headers, name: string): string {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}

/** The wait that a response asks for, in seconds; undefined where it asks for none. */
export function retryAfterOf(headers: Headers): number | undefined {
  const ms = parseRetryAfter(header(headers, 'retry-after'));
  return ms === null ? undefined : ms / 1000;
}

/** A whole number of bytes as in Content-Length; undefined for anything else. */
export function bytesOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,15}$/.test(text)) return undefined;
  return Number(text);
}

/** `Content-Range: bytes 0-9/100`, `to` exclusive; null where it is missing or makes no sense (RFC 9110 §14.4). */
export function parseContentRange(
  text: string | undefined,
): { from: number; to: number; size: number | undefined } | null {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(text ?? '');
  if (match === null) return null;
  const [from, last] = [Number(match[1]), Number(match[2])];
  const size = match[3] === '*' ? undefined : Number(match[3]);
  if (last < from || (size !== undefined && last >= size)) return null;
  return { from, to: last + 1, size };
}

/** A body of more than this is cut off, not drained. */
const DRAIN_LIMIT = 16 * 1024;
/** The body of a redirect comes with its headers; what takes longer is not waited for. */
const DRAIN_MS = 100;
/** The body of an error response is a few hundred bytes. */
const ERROR_BODY_LIMIT = 64 * 1024;

/** Throws a body away: a small one is drained, so that its connection can be used again, a large one is cut off. */
export function discard(body: Readable): void {
  body.on('error', () => {});
  let size = 0;
  body.on('data', (chunk: Uint8Array) => {
    size += chunk.length;
    if (size > DRAIN_LIMIT) body.destroy();
  });
  body.resume();
}

/** Throws a body away and closes its connection. */
export function cutOff(body: Readable): void {
  body.on('error', () => {}).destroy();
}

/** Discards, and waits until the connection is free, so that the next request to the same host can use it and saves the handshakes. */
export async function discardWhole(body: Readable): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, DRAIN_MS);
    body.once('close', () => {
      clearTimeout(timer);
      // undici returns the connection to its pool after this event.
      setImmediate(resolve);
    });
  });
  discard(body);
  await closed;
}

/** Reads a response that is none of the expected ones into an error. */
export async function statusError(response: UpstreamResponse, endpoint: URL): Promise<StatusError> {
  const code = await errorCode(response);
  const { status, url } = response;
  // A 4xx of a download host (a CDN) says nothing about the image: a signature expired, or the host fails. That of another registry does.
  const fromRegistry = url.origin === endpoint.origin || url.pathname.startsWith('/v2/');
  if (!fromRegistry && [400, 401, 403, 404, 410].includes(status)) {
    const reason = `the download host that it redirects to answered ${status}`;
    const error = new StatusError(502, url.host, undefined, reason);
    error.downloadHostStatus = status;
    return error;
  }
  const error = new StatusError(status, url.host, retryAfterOf(response.headers));
  error.code = code;
  return error;
}

/** `errors[0].code` of the body (distribution-spec, *Error Codes*). */
async function errorCode({ body }: RawResponse): Promise<string | undefined> {
  try {
    const document = JSON.parse((await readBounded(body, ERROR_BODY_LIMIT)).toString('utf8')) as {
      errors?: { code?: unknown }[];
    };
    const code = document.errors?.[0]?.code;
    return typeof code === 'string' ? code : undefined;
  } catch {
    // Not JSON, too long, or broken off: the status says enough.
    body.destroy();
    return undefined;
  }
}
