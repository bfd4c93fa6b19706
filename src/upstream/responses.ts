import type { Readable } from 'node:stream';
import { parseRetryAfter } from '../kit/http.ts';
import { parseJsonObject } from '../kit/json.ts';
import { essence, isMediaType, isWebPage } from '../oci/media-types.ts';
import { type Digest, digestAlgorithm, parseDigest } from '../oci/names.ts';
import { canHaveSize } from '../oci/transfer.ts';
import { compressionIn, readPlain } from './content-encoding.ts';
import { InvalidResponseError, SinkError, StatusError } from './failures.ts';
import type { RawResponse, ResponseHeaders } from './net/connections.ts';
import { giveBack } from './net/receive-buffers.ts';
import { NO_REASON, type OwnReason, readOwnReason } from './own-reason.ts';

/** The last response after challenges and redirects; its body is to be read to the end or destroyed. */
export interface UpstreamResponse extends RawResponse {
  /** The URL that was asked last. */
  readonly url: URL;
  /** Another one was asked first. */
  readonly redirected: boolean;
}

// Headers

/** One value of a header: the first of several. */
export function header(headers: ResponseHeaders, name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}

/** All values of a header that may be repeated, as one list (RFC 9110 §5.3). */
export function headerList(headers: ResponseHeaders, name: string): string {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}

/** The wait that a response asks for, in seconds; undefined where it asks for none. */
export function retryAfterOf(headers: ResponseHeaders): number | undefined {
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

/** The media type of a response, without parameters; empty where it says none that can be one. */
export function mediaTypeOf({ headers }: Pick<UpstreamResponse, 'headers'>): string {
  const type = essence(header(headers, 'content-type') ?? '');
  return isMediaType(type) ? type : '';
}

// Bodies and errors

/** A body of more than this is cut off, not drained. */
const DRAIN_LIMIT = 16 * 1024;
/** The body of a redirect comes with its headers; what takes longer is not waited for. */
const DRAIN_MS = 100;
/** What is drained or read of an error in more time than this is cut off: a body that drips would keep its connection for good. */
const SMALL_BODY_MS = 2_000;
/** The body of an error response is a few hundred bytes. */
const ERROR_BODY_LIMIT = 64 * 1024;

/** Throws a body away: a small one is drained, so that its connection can be used again, a large one is cut off. */
export function discard(body: Readable): void {
  body.on('error', () => {});
  cutOffLate(body);
  let size = 0;
  body.on('data', (chunk: Uint8Array) => {
    size += chunk.length;
    if (size > DRAIN_LIMIT) body.destroy();
  });
  body.resume();
}

function cutOffLate(body: Readable): void {
  if (body.closed) return;
  const timer = setTimeout(() => body.destroy(), SMALL_BODY_MS);
  body.once('close', () => clearTimeout(timer));
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
  const said = await ownReasonOf(response);
  const { status, url } = response;
  // A 4xx of a download host (a CDN) says nothing about the image: a signature expired, or the host fails. That of another registry does.
  const fromRegistry = url.origin === endpoint.origin || url.pathname.startsWith('/v2/');
  if (!fromRegistry && [400, 401, 403, 404, 410].includes(status)) {
    const reason = `the download host that it redirects to answered ${status}`;
    const error = new StatusError(502, url.host, undefined, reason);
    error.downloadHostStatus = status;
    error.where = 'target';
    return error;
  }
  // Also where that is a path of the registry's own: a signature that has expired says nothing about who may pull.
  const isTarget = response.redirected;
  const reason = isTarget ? `what it redirects to answered ${status}` : undefined;
  const error = new StatusError(status, url.host, retryAfterOf(response.headers), reason);
  if (isTarget) error.where = 'target';
  error.said = said;
  return error;
}

/** What the body of a refusal says for itself; nothing where it is no JSON, too long, or comes too slowly: the status says enough then. */
export async function ownReasonOf({ body, headers }: RawResponse): Promise<OwnReason> {
  cutOffLate(body);
  try {
    const bytes = await readPlain(body, headerList(headers, 'content-encoding'), ERROR_BODY_LIMIT);
    return readOwnReason(parseJsonObject(bytes) ?? {});
  } catch {
    body.destroy();
    return NO_REASON;
  }
}

/** Bytes that a writer has not finished with at which a body is paused, so that a slow disk slows down its upstream instead of filling memory. */
const IN_FLIGHT_MAX = 512 * 1024;

export interface BodyWriter {
  /** Takes a copy of a chunk before it returns; resolves when the sink is ready for more. */
  write(chunk: Uint8Array): Promise<unknown>;
  /** Whether the rest of the body is not needed. */
  isDone(): boolean;
  paused(): void;
  resumed(pauseMs: number): void;
}

/**
 * Gives every chunk of a body to a writer, several writes at a time, until the body ends or the writer is done. The chunks are the network's
 * own buffers, which are given back to it. Resolves once all writes are finished; the body is closed then.
 * @throws {SinkError} where a write failed; else what broke the body
 */
export function writeBody(body: Readable, writer: BodyWriter): Promise<void> {
  return new Promise((resolve, reject) => {
    let inFlight = 0;
    let pausedAt = 0;
    let finished = false;
    let failure: Error | null = null;

    const finish = (error: Error | null): void => {
      if (finished) return;
      finished = true;
      failure = error;
      body.off('data', onData);
      if (!body.readableEnded) body.destroy();
      settle();
    };
    const settle = (): void => {
      if (!finished || (inFlight > 0 && !(failure instanceof SinkError))) return;
      if (failure === null) resolve();
      else reject(failure);
    };
    const onData = (chunk: Uint8Array): void => {
      const written = writer.write(chunk);
      giveBack(chunk);
      inFlight += chunk.length;
      if (inFlight > IN_FLIGHT_MAX && pausedAt === 0) {
        pausedAt = performance.now();
        body.pause();
        writer.paused();
      }
      written.then(
        () => {
          inFlight -= chunk.length;
          if (finished) settle();
          else if (pausedAt !== 0 && inFlight <= IN_FLIGHT_MAX / 2) {
            writer.resumed(performance.now() - pausedAt);
            pausedAt = 0;
            body.resume();
          }
        },
        (error: Error) => {
          const sinkError = new SinkError(`the sink failed: ${error.message}`, { cause: error });
          if (finished) reject(sinkError);
          else finish(sinkError);
        },
      );
      if (writer.isDone()) finish(null);
    };
    body.on('end', () => finish(null));
    body.on('error', (error: Error) => finish(error));
    body.on('close', () => finish(new Error('the body closed early')));
    body.on('data', onData);
  });
}

// Blobs

/** What the body of a response holds. */
export type BlobContent =
  /** Bytes `[from, to)` of the blob. */
  | { readonly kind: 'segment'; readonly from: number; readonly to: number; readonly size: number | undefined }
  /**
   * The blob from its start. `ranges`: whether the server says that it supports Range; undefined where it does not say. `unsure`: it is called
   * compressed, and only its digest will tell whether it is, so that neither a size nor a part of it can be promised.
   */
  | {
      readonly kind: 'whole';
      readonly size: number | undefined;
      readonly ranges: boolean | undefined;
      readonly unsure: boolean;
    }
  /** Nothing: the blob ends at the requested offset or before it. */
  | { readonly kind: 'end'; readonly size: number };

/**
 * Reads a 200, 206 or 416 (RFC 9110 §14.4, §15.3.7, §15.5.17); null for any other response.
 * `If-Range` is not sent: validators differ between the mirrors and CDN nodes of one registry, while the bytes of a digest cannot. The
 * size, checked here, and the digest, checked at the end, are what counts.
 * @param from where the requested range begins; null where the whole blob was requested
 * @param expectedSize of the blob, where its manifest gives it
 * @throws {InvalidResponseError} for another range than the requested one, or bytes that may be compressed of which no digest can be checked, or
 * that must be; the body is cut off then
 */
export function readBlobContent(
  response: UpstreamResponse,
  from: number | null,
  expectedSize?: number,
): BlobContent | null {
  if (response.status === 206) return readPart(response, from, expectedSize);
  if (response.status === 200) {
    const length = header(response.headers, 'content-length');
    const size = bytesOf(length);
    const compression = doubtfulCompression(response, size, expectedSize);
    if (compression !== null && size !== undefined && expectedSize !== undefined)
      refuseCompressed(response, compression);
    if (length !== undefined && size === undefined) {
      cutOff(response.body);
      throw new InvalidResponseError('a blob of an impossible length');
    }
    const acceptRanges = header(response.headers, 'accept-ranges')?.trim().toLowerCase();
    const ranges = acceptRanges === 'bytes' ? true : acceptRanges === 'none' ? false : undefined;
    if (compression !== null) return { kind: 'whole', size: undefined, ranges, unsure: true };
    return { kind: 'whole', size, ranges, unsure: false };
  }
  if (response.status === 416 && from !== null) {
    const size = unsatisfiedSize(response);
    if (size !== undefined && size <= from) return { kind: 'end', size };
  }
  return null;
}

/** A 206: the part that was asked for, or where the whole was, all of it under another name. @throws {InvalidResponseError} */
function readPart(response: UpstreamResponse, from: number | null, expectedSize: number | undefined): BlobContent {
  // Several parts in one body (`multipart/byteranges`) have no Content-Range in the header.
  const range = parseContentRange(header(response.headers, 'content-range'));
  const compression = doubtfulCompression(response, range?.size, expectedSize);
  if (compression !== null) refuseCompressed(response, compression);
  const length = bytesOf(header(response.headers, 'content-length'));
  const fits =
    range !== null && range.from === (from ?? 0) && (length ?? range.to - range.from) === range.to - range.from;
  if (fits && from !== null) return { kind: 'segment', ...range };
  if (fits && range.to === range.size) return { kind: 'whole', size: range.size, ranges: true, unsure: false };
  cutOff(response.body);
  throw new InvalidResponseError('a part of the blob that was not asked for');
}

/**
 * @param expected what is known of the size before
 * @throws {InvalidResponseError} for another size, or one that a blob of this digest cannot have
 */
export function requirePossibleSize(digest: Digest, size: number | undefined, expected?: number): void {
  if (!canHaveSize(digest, size)) throw new InvalidResponseError(`${size} bytes for ${digest}`);
  if (size !== undefined && expected !== undefined && size !== expected)
    throw new InvalidResponseError(`${size} bytes of a blob that has ${expected}`);
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

/**
 * The compression that a blob is said to have, though `Accept-Encoding: identity` was sent; null where it has none, or cannot have one. Bytes that
 * are compressed are not those of the digest; but object stores that were told of a compression when the blob was put there name it with the
 * blob's own bytes, too: those have the size that its manifest gives.
 */
function doubtfulCompression(
  { headers }: UpstreamResponse,
  size: number | undefined,
  expected: number | undefined,
): string | null {
  if (size !== undefined && size === expected) return null;
  return compressionIn(headerList(headers, 'content-encoding')) ?? null;
}

/** @throws {InvalidResponseError} */
function refuseCompressed({ body }: UpstreamResponse, compression: string): never {
  cutOff(body);
  throw new InvalidResponseError(`a blob compressed with ${compression}, though it was asked for as it is`);
}

/** Why a 200 or 206 cannot be the blob that was asked for, or a part of it; null where it can. The bytes are what proves it in the end. */
export function blobContradiction(response: UpstreamResponse, digest: Digest): string | null {
  const claimed = parseDigest(header(response.headers, 'docker-content-digest') ?? '');
  if (claimed !== null && claimed !== digest && digestAlgorithm(claimed) === digestAlgorithm(digest)) {
    return `a blob whose digest is ${claimed}`;
  }
  // A blob may be a page; what a registry calls its digest is one.
  if (claimed === null && isWebPage(mediaTypeOf(response))) return 'a web page';
  return null;
}
