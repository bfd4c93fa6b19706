import type { Readable } from 'node:stream';
import { parseRetryAfter } from '../kit/retry-after.ts';

/** Of an answer; names in lower case. */
export type Headers = Readonly<Record<string, string | string[] | undefined>>;

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

/** The wait that an answer asks for, in seconds; undefined where it asks for none. */
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

/** An answer that nobody reads: a small rest is drained so that the connection can be used again, a large one is cut off. */
export function discard(body: Readable): void {
  body.on('error', () => {});
  let size = 0;
  body.on('data', (chunk: Uint8Array) => {
    size += chunk.length;
    if (size > DRAIN_LIMIT) body.destroy();
  });
  body.resume();
}

/** An answer whose rest nobody wants: the connection ends with it. */
export function cutOff(body: Readable): void {
  body.on('error', () => {}).destroy();
}

const DRAIN_LIMIT = 16 * 1024;
/** The body of a redirect comes with its headers; what takes longer is not waited for. */
const DRAIN_MS = 100;

/** Discards, and waits until the connection is free, so that a next request to the same host needs no other: that saves its handshakes. */
export async function discardWhole(body: Readable): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, DRAIN_MS);
    body.once('close', () => {
      clearTimeout(timer);
      // The pool learns a moment later.
      setImmediate(resolve);
    });
  });
  discard(body);
  await closed;
}
