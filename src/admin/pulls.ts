import { once } from 'node:events';
import type http from 'node:http';
import { type ImageSource, SourceError } from '../images/image-source.ts';
import type { ByteSource } from '../kit/byte-source.ts';
import { isRepositoryName, parseDigest, parseReference, type RepositoryKey } from '../oci/names.ts';

// Images for commands of the operator (`save`, `relay`), by the socket that only the operator may open: their bytes go past no port of the network.

/** Bytes that are read at a time. */
const CHUNK = 256 * 1024;

/** What of an image is asked for: `/v2/<registry>/<repository>/manifests/<tag or digest>`, and so on. */
const PATH = /^\/v2\/([^/]+)\/(.+)\/(manifests|blobs|referrers|tags)\/([^/]+)$/;

/** Why a list of tags ends before all of them are told; a `SourceError` by the socket. */
export interface TagsFailure {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  /** Seconds. */
  readonly retryAfter?: number;
}

/** Whether a request is for an image, and no operation. */
export function isImageRequest({ method, url = '' }: http.IncomingMessage): boolean {
  return method === 'GET' && url.startsWith('/v2/');
}

/** Answers one request for a part of an image; never rejects. */
export async function serveImage(
  source: ImageSource,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const leaving = new AbortController();
  response.once('close', () => leaving.abort(new Error('whoever asked has left')));
  try {
    await answer(source, request, response, leaving.signal);
  } catch (error) {
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const { status, code, message, retryAfter } = sourceErrorOf(error);
    response.writeHead(status, {
      'content-type': 'application/json',
      ...(retryAfter === undefined ? {} : { 'retry-after': String(Math.ceil(retryAfter)) }),
    });
    response.end(JSON.stringify({ errors: [{ code, message }] }));
  }
}

function sourceErrorOf(error: unknown): SourceError {
  return error instanceof SourceError ? error : new SourceError(500, 'UNKNOWN', (error as Error).message);
}

async function answer(
  source: ImageSource,
  request: http.IncomingMessage,
  response: http.ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  if (request.url === '/v2/') {
    response.end('{}');
    return;
  }
  const [registry, repository, kind, reference] = partsOf(request.url ?? '');
  // A name with `..` or `?` in it would lead out of the registry API.
  if (!isRepositoryName(repository)) throw new SourceError(404, 'NAME_UNKNOWN', 'that is no name of a repository');
  const key: RepositoryKey = { registry, repository };
  if (kind === 'tags') {
    await sendTags(source.tags(key, signal), response, signal);
    return;
  }
  if (kind === 'manifests') {
    const named = parseReference(reference);
    if (named === null) throw new SourceError(404, 'MANIFEST_UNKNOWN', `${reference} is no tag that can exist`);
    const { digest, mediaType, body, warning } = await source.manifest(key, named, signal);
    const headers = {
      'content-type': mediaType,
      'docker-content-digest': digest,
      ...(warning === null ? {} : { warning }),
    };
    response.writeHead(200, { ...headers, 'content-length': body.length });
    response.end(body);
    return;
  }
  const digest = parseDigest(reference);
  if (digest === null) throw new SourceError(404, 'UNSUPPORTED', 'nothing is at this path');
  if (kind === 'referrers') {
    response.end(await source.referrers(key, digest, signal));
    return;
  }
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
  const { size, body } = await source.blob({ ...key, digest }, from, signal);
  response.writeHead(from === 0 ? 200 : 206, {
    'content-type': 'application/octet-stream',
    ...(size === undefined ? {} : { 'content-length': size - from }),
    ...(size === undefined || from === 0 ? {} : { 'content-range': `bytes ${from}-${size - 1}/${size}` }),
  });
  await send(body, response, signal);
}

/** Sends a page of tags a line. The status waits for the first page; what fails later is told in a line of its own, a `TagsFailure`, that ends the list. */
async function sendTags(
  pages: AsyncIterable<readonly string[]>,
  response: http.ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const type = { 'content-type': 'application/x-ndjson' };
  try {
    for await (const page of pages) {
      if (!response.headersSent) response.writeHead(200, type);
      if (!response.write(`${JSON.stringify(page)}\n`)) await once(response, 'drain', { signal });
    }
    if (!response.headersSent) response.writeHead(200, type);
    response.end();
  } catch (error) {
    if (!response.headersSent || signal.aborted) throw error;
    const { status, code, message, retryAfter } = sourceErrorOf(error);
    const failure: TagsFailure = { status, code, message, ...(retryAfter === undefined ? {} : { retryAfter }) };
    response.end(`${JSON.stringify(failure)}\n`);
  }
}

/** @throws {SourceError} */
function partsOf(url: string): readonly [registry: string, repository: string, kind: string, reference: string] {
  try {
    const [, registry, repository, kind, reference] = PATH.exec(url) ?? [];
    if (registry !== undefined && repository !== undefined && kind !== undefined && reference !== undefined)
      return [decodeURIComponent(registry), decodeURIComponent(repository), kind, decodeURIComponent(reference)];
  } catch {
    // What cannot be decoded is nowhere either.
  }
  throw new SourceError(404, 'UNSUPPORTED', 'nothing is at this path');
}

/**
 * Sends a body as fast as it is taken, one part while the next is read. Whoever leaves frees what it comes from at once, also while no byte comes.
 */
async function send(body: ByteSource, response: http.ServerResponse, signal: AbortSignal): Promise<void> {
  const free = (): void => void body.close();
  signal.addEventListener('abort', free, { once: true });
  try {
    const parts = [CHUNK, CHUNK].map((size) => ({ bytes: Buffer.allocUnsafe(size), sent: Promise.resolve() }));
    let left = body.length ?? Number.POSITIVE_INFINITY;
    for (let turn = 0; ; turn += 1) {
      const part = parts[turn % parts.length] as (typeof parts)[number];
      await part.sent;
      signal.throwIfAborted();
      const count = await body.pull(part.bytes);
      if (count === 0) break;
      left -= count;
      // Node calls back for every write, also where the connection is gone.
      part.sent = new Promise((resolve) => response.write(part.bytes.subarray(0, count), () => resolve()));
    }
    // One that is shorter than was announced would keep its reader waiting.
    if (left > 0 && Number.isFinite(left)) response.destroy();
    else response.end();
  } finally {
    signal.removeEventListener('abort', free);
    await body.close();
  }
}
