import { type DocumentOrigin, readDocument } from '../oci/document-reader.ts';
import { isSamePage, type ListKind, nextTarget, type Page, pageAt } from '../oci/link.ts';
import { isWebPage, OCI_INDEX } from '../oci/media-types.ts';
import { type Digest, parseDigest, type Reference } from '../oci/names.ts';
import { isManifestDigest, manifestDigest } from '../oci/schema1.ts';
import { canHaveSize } from '../oci/transfer.ts';
import { compressionIn, readPlain } from './content-encoding.ts';
import { InvalidResponseError } from './failures.ts';
import type { ReferrersAbsence } from './referrers-api.ts';
import {
  blobContradiction,
  bytesOf,
  cutOff,
  discard,
  header,
  headerList,
  mediaTypeOf,
  statusError,
  type UpstreamResponse,
} from './responses.ts';
import type { ListPage, ReferrersRequest, TagsRequest, UpstreamManifest } from './upstream.ts';

// What a registry answers in one piece: manifests, lists of tags, indexes of referrers. A 200 is believed only if it can be what was asked for.

/** distribution-spec: registries take manifests of at least 4 MiB, clients read no more. */
const MANIFEST_LIMIT = 4 * 1024 * 1024;
/** The longest lists that registries send as one page are of some 100,000 tags. */
const LIST_LIMIT = 8 * 1024 * 1024;

/** @throws {InvalidResponseError} */
function requireNoWebPage(response: UpstreamResponse): void {
  if (!isWebPage(mediaTypeOf(response))) return;
  discard(response.body);
  throw new InvalidResponseError('a web page');
}

/** Reads a document whole and plain. @throws {TooLargeError} {InvalidResponseError} */
function readWhole({ body, headers }: UpstreamResponse, limit: number): Promise<Buffer> {
  return readPlain(body, headerList(headers, 'content-encoding'), limit);
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
  // What a tag names can only be told by its digest. Where its bytes are kept, the digest says the length too.
  if (digest === undefined && (reference.kind === 'tag' || size === undefined)) return null;
  return { mediaType, digest, size, body: null, named: [] };
}

/** `Docker-Content-Digest`; undefined where it is not sent, null where it is none. */
function claimedDigest({ headers }: UpstreamResponse): Digest | undefined | null {
  const text = header(headers, 'docker-content-digest');
  return text === undefined ? undefined : parseDigest(text);
}

/** `Content-Length`; undefined where it is not sent, null where it is none, or that of an encoded body. */
function claimedSize({ headers }: UpstreamResponse): number | undefined | null {
  if (compressionIn(headerList(headers, 'content-encoding')) !== undefined) return null;
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
  const body = await readWhole(response, MANIFEST_LIMIT);
  const claimed = parseDigest(header(response.headers, 'docker-content-digest') ?? '');
  const wanted = reference.kind === 'digest' ? reference.digest : claimed;
  const said = mediaTypeOf(response);
  if (wanted !== null && !isManifestDigest(body, wanted))
    throw new InvalidResponseError(`a manifest whose digest is ${manifestDigest(body, said)} instead of ${wanted}`);
  const digest = wanted ?? manifestDigest(body, said);
  const reading = await readDocument('manifest', body, { mediaType: said }, origin);
  if (reading === null) throw new InvalidResponseError('a manifest that is no JSON');
  const mediaType = said || reading.mediaType;
  if (mediaType === '') throw new InvalidResponseError('a manifest without a media type');
  return { mediaType, digest, size: body.length, body, named: reading.named };
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
  const { page, ...asked } = request;
  const next = nextPage(response, page, 'tags');
  const bytes = await readWhole(response, LIST_LIMIT);
  const reading = await readDocument('tags', bytes, { ...asked, hasNext: next !== null }, origin);
  if (reading === null) throw new InvalidResponseError('a list of tags that is none');
  return { ...reading, next };
}

/** A link must fit into the URL of a client's request, beside what else is in it. */
const MAX_NEXT = 4096;

/**
 * Where the next page is; null on the last, and where some registries lead to the page itself: whoever followed would do so for ever.
 * @throws {InvalidResponseError} where a client could not go there: the list must not end in silence
 */
function nextPage({ headers, body, url }: UpstreamResponse, page: Page, kind: ListKind): Page | null {
  const target = nextTarget(headerList(headers, 'link'));
  if (target === null) return null;
  const next = pageAt(target, { url, page, kind });
  if (next !== undefined && next.length <= MAX_NEXT) return isSamePage(next, page) ? null : next;
  cutOff(body);
  throw new InvalidResponseError(
    next === undefined
      ? 'a link to a next page that is outside the list'
      : 'a link to a next page that is longer than any URL',
  );
}

/**
 * Whether a registry that may have the API does not give the list now: it is at fault (501 says that it has none, RFC 9110 §15.6.2), or asks for
 * fewer requests. A 401 or 403 is none: some registries deny what they do not have, and one that denies the repository denies its tags, too.
 */
function isFailure({ status }: UpstreamResponse): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501);
}

/**
 * Reads an index of referrers, written anew, only of the type that is asked for. A word for whatever else: a registry without such an API answers
 * with a 404, a 405, a 403, a web page, a manifest, a redirect to a web host and all that this one says (ghcr.io: 303 to a page that is not there).
 * The caller falls back to the tag scheme.
 */
export async function readReferrers(
  response: UpstreamResponse,
  endpoint: URL,
  { page, artifactType }: ReferrersRequest,
  origin: DocumentOrigin,
): Promise<ListPage | ReferrersAbsence> {
  const isRegistry = response.url.origin === endpoint.origin || response.url.pathname.startsWith('/v2/');
  if (isRegistry && isFailure(response)) throw await statusError(response, endpoint);
  if (response.status !== 200 || !['', OCI_INDEX, 'application/json'].includes(mediaTypeOf(response))) {
    discard(response.body);
    const { status } = response;
    const isPage = status === 200 && isWebPage(mediaTypeOf(response));
    return !isRegistry || isPage || [404, 405, 501].includes(status) ? 'no api' : 'no list';
  }
  const bytes = await readWhole(response, LIST_LIMIT).catch((error: unknown) => {
    if (error instanceof InvalidResponseError) return null;
    throw error;
  });
  const filters = headerList(response.headers, 'oci-filters-applied').toLowerCase();
  // distribution-spec, *Listing Referrers*: what the registry does not say it has chosen, it has not.
  const isFiltered = filters.split(',').some((filter) => filter.trim() === 'artifacttype');
  const question = { artifactType: isFiltered ? undefined : artifactType };
  const reading = bytes && (await readDocument('referrers', bytes, question, origin));
  if (reading === null) return 'no list';
  return { ...reading, next: nextPage(response, page, 'referrers'), cutAfter: null };
}
