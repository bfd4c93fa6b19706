import { createHash } from 'node:crypto';
import { readBounded } from '../kit/bounded.ts';
import { type Digest, digestAlgorithm, parseDigest } from '../oci/digest.ts';
import { nextQuery } from '../oci/link.ts';
import { essence, parseAccept } from '../oci/media-types.ts';
import type { Reference } from '../oci/target.ts';
import { InvalidResponseError } from './failures.ts';
import { bytesOf, discard, header, headerList, statusError, type UpstreamResponse } from './responses.ts';
import type { ListPage, UpstreamManifest } from './upstream.ts';

/** distribution-spec: registries take manifests of at least 4 MiB, clients read no more. */
const MANIFEST_LIMIT = 4 * 1024 * 1024;
/** The longest lists that registries send as one page are of some 100,000 tags. */
const LIST_LIMIT = 8 * 1024 * 1024;

/** The registry does not support HEAD: GET must be used. */
const HEAD_REFUSED = new Set([400, 405, 501]);

export function manifestHeaders(accept: string | undefined): Record<string, string> {
  // ghcr.io answers MANIFEST_UNKNOWN for an index where Accept lacks its type, so for a client without Accept all types are named.
  return { accept: accept ?? parseAccept(undefined).header };
}

/** Reads the response to a HEAD; null where it does not say what clients need, so that a GET must be sent. */
export async function readManifestHead(response: UpstreamResponse, endpoint: URL): Promise<UpstreamManifest | null> {
  if (response.status !== 200) {
    if (!HEAD_REFUSED.has(response.status)) throw await statusError(response, endpoint);
    discard(response.body);
    return null;
  }
  discard(response.body);
  const mediaType = essence(header(response.headers, 'content-type') ?? '');
  if (mediaType === '') return null;
  return {
    mediaType,
    digest: parseDigest(header(response.headers, 'docker-content-digest') ?? '') ?? undefined,
    size: bytesOf(header(response.headers, 'content-length')),
    body: null,
  };
}

/** Reads a manifest whole and checks it against the digest that was requested, or else against `Docker-Content-Digest`. */
export async function readManifest(
  response: UpstreamResponse,
  endpoint: URL,
  reference: Reference,
): Promise<UpstreamManifest> {
  if (response.status !== 200) throw await statusError(response, endpoint);
  const body = await readBounded(response.body, MANIFEST_LIMIT);
  const claimed = parseDigest(header(response.headers, 'docker-content-digest') ?? '');
  const wanted = reference.kind === 'digest' ? reference.digest : claimed;
  const algorithm = wanted === null ? 'sha256' : digestAlgorithm(wanted);
  const digest = `${algorithm}:${createHash(algorithm).update(body).digest('hex')}` as Digest;
  if (wanted !== null && digest !== wanted)
    throw new InvalidResponseError(`a manifest whose digest is ${digest} instead of ${wanted}`);
  const mediaType = essence(header(response.headers, 'content-type') ?? '') || ownMediaType(body);
  if (mediaType === '') throw new InvalidResponseError('a manifest without a media type');
  return { mediaType, digest, size: body.length, body };
}

export async function readList(response: UpstreamResponse, endpoint: URL): Promise<ListPage> {
  if (response.status !== 200) throw await statusError(response, endpoint);
  const body = await readBounded(response.body, LIST_LIMIT);
  const filtersApplied = header(response.headers, 'oci-filters-applied');
  return {
    body,
    mediaType: essence(header(response.headers, 'content-type') ?? '') || 'application/json',
    next: nextQuery(headerList(response.headers, 'link')),
    ...(filtersApplied === undefined ? {} : { filtersApplied }),
  };
}

/** The `mediaType` that a manifest carries itself. */
function ownMediaType(body: Buffer): string {
  try {
    const { mediaType } = JSON.parse(body.toString('utf8')) as { mediaType?: unknown };
    return typeof mediaType === 'string' ? essence(mediaType) : '';
  } catch {
    return '';
  }
}
