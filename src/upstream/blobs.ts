import { RegistryError } from '../oci/errors.ts';
import type { BlobKey, BlobStream } from '../oci/transfer.ts';
import { BodySource } from './body-source.ts';
import { NonsenseError, StatusError } from './failures.ts';
import { bytesOf, cutOff, discard, header, parseContentRange } from './headers.ts';
import type { Answer, Ask } from './request.ts';
import type { Room } from './room.ts';
import { statusError } from './status.ts';
import type { Route } from './upstream.ts';

type Method = Ask['method'];

/** Asks for a blob or a part of it, `to` exclusive; whatever the answer. */
export function requestBlob(
  room: Pick<Room, 'requester'>,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  options: {
    method: Method;
    range: { from: number; to?: number | undefined } | null;
    signal: AbortSignal;
    purpose: Ask['purpose'];
  },
): Promise<Answer> {
  const { method, range, signal, purpose } = options;
  const headers: Record<string, string> = { accept: '*/*' };
  if (range !== null) headers.range = `bytes=${range.from}-${range.to === undefined ? '' : range.to - 1}`;
  const path = `/v2/${key.repository}/blobs/${key.digest}`;
  return room.requester.send({ route, endpoint, path, repository: key.repository, method, headers, signal, purpose });
}

/** The size by HEAD, else from the answer to a GET of the first byte: public.ecr.aws answers 401 to every HEAD, some CDNs sign for GET only. */
export async function statBlob(
  room: Room,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  signal: AbortSignal,
): Promise<{ size: number | undefined }> {
  const purpose = 'document';
  const head = await requestBlob(room, route, endpoint, key, { method: 'HEAD', range: null, signal, purpose });
  if (head.status === 200) {
    discard(head.body);
    return { size: bytesOf(header(head.headers, 'content-length')) };
  }
  const error = await statusError(head, endpoint);
  const refused = head.status >= 400 && head.status !== 429 && error.status !== 404 && head.status < 500;
  if (!refused && head.status !== 501) throw error;
  const first = await requestBlob(room, route, endpoint, key, {
    method: 'GET',
    range: { from: 0, to: 1 },
    signal,
    purpose,
  });
  if (first.status === 206) {
    discard(first.body);
    return { size: parseContentRange(header(first.headers, 'content-range'))?.size };
  }
  if (first.status === 200) {
    cutOff(first.body);
    return { size: bytesOf(header(first.headers, 'content-length')) };
  }
  // An empty blob has no first byte.
  if (first.status === 416) {
    discard(first.body);
    return { size: sizeOf416(first) };
  }
  throw await statusError(first, endpoint);
}

export async function openBlob(
  room: Room,
  route: Route,
  endpoint: URL,
  key: BlobKey,
  range: { from: number; to?: number } | null,
  signal: AbortSignal,
): Promise<BlobStream> {
  const answer = await requestBlob(room, route, endpoint, key, { method: 'GET', range, signal, purpose: 'fill' });
  const length = bytesOf(header(answer.headers, 'content-length'));
  const count = (bytes: number): void => room.metrics.bytes.inc({ registry: route.host }, bytes);
  if (answer.status === 200) {
    plain(answer);
    return { status: 200, size: length, source: new BodySource(answer.body, length, count) };
  }
  if (answer.status === 206 && range !== null) {
    plain(answer);
    const contentRange = parseContentRange(header(answer.headers, 'content-range'));
    if (contentRange === null || contentRange.from !== range.from) {
      cutOff(answer.body);
      throw new NonsenseError('a part of the blob that was not asked for');
    }
    const { size, from, to } = contentRange;
    return {
      status: 206,
      contentRange,
      size,
      source: new BodySource(answer.body, length ?? to - from, count),
    };
  }
  if (answer.status === 416 && range !== null) {
    discard(answer.body);
    const size = sizeOf416(answer) ?? '*';
    throw new RegistryError('rangeNotSatisfiable', {
      facts: { range: `bytes=${range.from}-`, size },
      headers: { 'content-range': `bytes */${size}` },
    });
  }
  throw await blobError(answer, endpoint);
}

/** The failure in an answer that is neither the blob nor a part of it. */
export async function blobError(answer: Answer, endpoint: URL): Promise<StatusError> {
  if (answer.status >= 400) return await statusError(answer, endpoint);
  discard(answer.body);
  return new StatusError(502, answer.url.host, undefined, `it answered ${answer.status} to a request for a blob`);
}

/** The size that a 416 tells (RFC 9110 §15.5.17). */
export function sizeOf416(answer: Answer): number | undefined {
  return bytesOf(/^bytes \*\/(\d+)$/.exec(header(answer.headers, 'content-range') ?? '')?.[1]);
}

/** Bytes that are compressed though `identity` was asked for are not the blob. @throws {NonsenseError} */
export function plain(answer: Answer): void {
  const encoding = header(answer.headers, 'content-encoding')?.trim().toLowerCase() ?? 'identity';
  if (encoding === 'identity' || encoding === '') return;
  cutOff(answer.body);
  throw new NonsenseError(`a blob compressed with ${encoding}, though it was asked for as it is`);
}
