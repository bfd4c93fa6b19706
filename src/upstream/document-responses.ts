import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, inflateRaw, zstdDecompress } from 'node:zlib';
import { readBounded, TooLargeError } from '../kit/http.ts';
import { type DocumentOrigin, readDocument } from '../oci/document-reader.ts';
import { nextQuery } from '../oci/link.ts';
import { isWebPage, OCI_INDEX } from '../oci/media-types.ts';
import { type Digest, parseDigest, type Reference } from '../oci/names.ts';
import { isManifestDigest } from '../oci/schema1.ts';
import { canHaveSize } from '../oci/transfer.ts';
import { InvalidResponseError } from './failures.ts';
import {
  blobContradiction,
  bytesOf,
  compressionOf,
  discard,
  header,
  headerList,
  mediaTypeOf,
  statusError,
  type UpstreamResponse,
} from './responses.ts';
import type { ListPage, TagsRequest, UpstreamManifest } from './upstream.ts';

// What a registry answers in one piece: manifests, lists of tags, indexes of referrers. A 200 is believed only if it can be what was asked for.

/** distribution-spec: registries take manifests of at least 4 MiB, clients read no more. */
const MANIFEST_LIMIT = 4 * 1024 * 1024;
/** The longest lists that registries send as one page are of some 100,000 tags. */
const LIST_LIMIT = 8 * 1024 * 1024;
/** Encodings around one document. A proxy that compresses what is compressed already makes two. */
const MAX_ENCODINGS = 3;

/** @throws {InvalidResponseError} */
function requireNoWebPage(response: UpstreamResponse): void {
  if (!isWebPage(mediaTypeOf(response))) return;
  discard(response.body);
  throw new InvalidResponseError('a web page');
}

type Decoder = (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>;

const DECODERS: Readonly<Record<string, Decoder>> = {
  gzip: promisify(gunzip) as Decoder,
  'x-gzip': promisify(gunzip) as Decoder,
  // RFC 9110 §8.4.1.2 means the zlib format; some servers send the bare one.
  deflate: (bytes, options) => inflateEither(bytes, options),
  br: promisify(brotliDecompress) as Decoder,
  zstd: promisify(zstdDecompress) as Decoder,
};

async function inflateEither(bytes: Buffer, options: { maxOutputLength: number }): Promise<Buffer> {
  // The first byte of the zlib format (RFC 1950 §2.2) names its method, 8, in the lower half.
  const decode = ((bytes[0] ?? 0) & 0x0f) === 8 ? inflate : inflateRaw;
  return await (promisify(decode) as Decoder)(bytes, options);
}

/**
 * Reads a document whole and plain. No encoding was asked for, but some servers and proxies compress all the same; what they name that is no
 * compression (`aws-chunked`, `utf-8`) is left to the checks of the content.
 * @throws {TooLargeError} where it is larger than `limit`, compressed or not; {InvalidResponseError} for what cannot be decoded
 */
async function readPlain(response: UpstreamResponse, limit: number): Promise<Buffer> {
  const encodings = headerList(response.headers, 'content-encoding').toLowerCase().split(',');
  const decoders = encodings.map((name) => DECODERS[name.trim()]).filter((decoder) => decoder !== undefined);
  if (decoders.length > MAX_ENCODINGS) {
    discard(response.body);
    throw new InvalidResponseError(`a document in more than ${MAX_ENCODINGS} encodings`);
  }
  let bytes = await readBounded(response.body, limit);
  // The last one named was put around the others (RFC 9110 §8.4).
  for (const decode of decoders.reverse()) {
    try {
      bytes = await decode(bytes, { maxOutputLength: limit });
    } catch (error) {
      if ((error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE')
        throw new TooLargeError(`more than ${limit} bytes`);
      throw new InvalidResponseError('a document that is not compressed as its header says', { cause: error });
    }
  }
  return bytes;
}

// Manifests

/**
 * Reads the response to a HEAD; null where it does not say what clients need, or says what cannot be true of a manifest or of this one, so that
 * a GET decides.
 */
export async function readManifestHead(
  response: UpstreamResponse,
  endpoint: URL,
  reference: Reference,
): Promise<UpstreamManifest | null> {
  if (response.status !== 200) throw await statusError(response, endpoint);
  discard(response.body);
  const mediaType = mediaTypeOf(response);
  const digest = claimedDigest(response);
  const size = claimedSize(response);
  if (mediaType === '' || isWebPage(mediaType) || digest === null || size === null) return null;
  // No manifest is empty, and none of a length that nobody would read.
  if (size === 0 || (size ?? 0) > MANIFEST_LIMIT) return null;
  if (reference.kind === 'digest' && (digest ?? reference.digest) !== reference.digest) return null;
  // Where its bytes are kept, the digest says the length too.
  if (size === undefined && digest === undefined) return null;
  return { mediaType, digest, size, body: null, named: [] };
}

/** `Docker-Content-Digest`; undefined where it is not sent, null where it is none. */
function claimedDigest({ headers }: UpstreamResponse): Digest | undefined | null {
  const text = header(headers, 'docker-content-digest');
  return text === undefined ? undefined : parseDigest(text);
}

/** `Content-Length`; undefined where it is not sent, null where it is none, or that of an encoded body. */
function claimedSize({ headers }: UpstreamResponse): number | undefined | null {
  if (compressionOf(headers) !== undefined) return null;
  const text = header(headers, 'content-length');
  return text === undefined ? undefined : (bytesOf(text) ?? null);
}

/** Reads the response to a HEAD of a blob; null where it says what cannot be true of this one, so that a GET must be sent. */
export async function readBlobHead(
  response: UpstreamResponse,
  endpoint: URL,
  digest: Digest,
): Promise<{ readonly size: number | undefined } | null> {
  if (response.status !== 200) throw await statusError(response, endpoint);
  discard(response.body);
  const size = claimedSize(response) ?? null;
  if (size === null || claimedDigest(response) === null || blobContradiction(response, digest) !== null) return null;
  return canHaveSize(digest, size) ? { size } : null;
}

/**
 * Reads a manifest whole: an object in JSON, whose digest is the one that was requested, or else the one in `Docker-Content-Digest`.
 * @throws {InvalidResponseError} where it is none
 */
export async function readManifest(
  response: UpstreamResponse,
  endpoint: URL,
  reference: Reference,
  origin: DocumentOrigin,
): Promise<UpstreamManifest> {
  if (response.status !== 200) throw await statusError(response, endpoint);
  requireNoWebPage(response);
  const body = await readPlain(response, MANIFEST_LIMIT);
  const claimed = parseDigest(header(response.headers, 'docker-content-digest') ?? '');
  const wanted = reference.kind === 'digest' ? reference.digest : claimed;
  if (wanted !== null && !isManifestDigest(body, wanted))
    throw new InvalidResponseError(`a manifest whose digest is ${digestOf(body)} instead of ${wanted}`);
  const digest = wanted ?? digestOf(body);
  const said = mediaTypeOf(response);
  const reading = await readDocument('manifest', body, { mediaType: said }, origin);
  if (reading === null) throw new InvalidResponseError('a manifest that is no JSON');
  const mediaType = said || reading.mediaType;
  if (mediaType === '') throw new InvalidResponseError('a manifest without a media type');
  return { mediaType, digest, size: body.length, body, named: reading.named };
}

function digestOf(body: Uint8Array): Digest {
  return `sha256:${createHash('sha256').update(body).digest('hex')}` as Digest;
}

// Lists

/** Reads a page of tags, written anew. @throws {InvalidResponseError} for what is no such list */
export async function readTags(
  response: UpstreamResponse,
  endpoint: URL,
  request: TagsRequest,
  origin: DocumentOrigin,
): Promise<ListPage> {
  if (response.status !== 200) throw await statusError(response, endpoint);
  requireNoWebPage(response);
  const next = nextQuery(headerList(response.headers, 'link'));
  const { name, n, last } = request;
  const bytes = await readPlain(response, LIST_LIMIT);
  const reading = await readDocument('tags', bytes, { name, n, last, hasNext: next !== null }, origin);
  if (reading === null) throw new InvalidResponseError('a list of tags that is none');
  const { body, cutAfter } = reading;
  return { body, next, cutAfter };
}

/** Statuses of registries without a referrers API. */
const NO_REFERRERS_API = new Set([400, 404, 405, 406, 410, 501]);

/**
 * Reads an index of referrers, written anew. Null for whatever else a registry without such an API answers, and for all that a web host says
 * to which it redirects (ghcr.io: 303 to a web page): the caller falls back to the tag scheme.
 */
export async function readReferrers(
  response: UpstreamResponse,
  endpoint: URL,
  origin: DocumentOrigin,
): Promise<ListPage | null> {
  const isRegistry = response.url.origin === endpoint.origin || response.url.pathname.startsWith('/v2/');
  if (response.status !== 200) {
    if (isRegistry && !isWebPage(mediaTypeOf(response)) && isFailure(response.status))
      throw await statusError(response, endpoint);
    discard(response.body);
    return null;
  }
  const type = mediaTypeOf(response);
  if (!['', OCI_INDEX, 'application/json'].includes(type)) {
    discard(response.body);
    return null;
  }
  const bytes = await readPlain(response, LIST_LIMIT).catch((error: unknown) => {
    if (error instanceof InvalidResponseError) return null;
    throw error;
  });
  const body = bytes && (await readDocument('referrers', bytes, { artifactType: undefined }, origin));
  if (body === null) return null;
  const filters = header(response.headers, 'oci-filters-applied');
  const next = nextQuery(headerList(response.headers, 'link'));
  return {
    body,
    next,
    cutAfter: null,
    filtered: filters?.split(',').some((one) => one.trim() === 'artifactType') === true,
  };
}

/** Whether a status is the answer of a registry that has the API and does not give the list now, or not to us. */
function isFailure(status: number): boolean {
  return status >= 400 && !NO_REFERRERS_API.has(status);
}
