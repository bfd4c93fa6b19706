import { createHash } from 'node:crypto';
import { readBounded } from '../kit/bounded.ts';
import { type Digest, digestAlgorithm, parseDigest } from '../oci/digest.ts';
import { nextQuery } from '../oci/link.ts';
import { essence, parseAccept } from '../oci/media-types.ts';
import type { Reference } from '../oci/target.ts';
import { NonsenseError } from './failures.ts';
import { bytesOf, discard, header, headerList } from './headers.ts';
import type { Answer } from './request.ts';
import { statusError } from './status.ts';
import type { ListPage, UpstreamManifest } from './upstream.ts';

/** distribution-spec: registries take manifests of at least 4 MiB, clients read no more. */
const MANIFEST_LIMIT = 4 * 1024 * 1024;
/** The longest lists that registries give out in one page are some 100,000 tags. */
const LIST_LIMIT = 8 * 1024 * 1024;

/** HEAD is unknown, or does not say what clients need: ask by GET. */
const HEAD_REFUSED = new Set([400, 405, 501]);

export function manifestHeaders(accept: string | undefined): Record<string, string> {
  // ghcr.io answers MANIFEST_UNKNOWN for an index that Accept does not name; where a client names nothing, everything is named.
  return { accept: accept ?? parseAccept(undefined).header };
}

/** Reads the answer to a HEAD; null where only a GET can tell. */
export async function readManifestHead(answer: Answer, endpoint: URL): Promise<UpstreamManifest | null> {
  if (answer.status !== 200) {
    if (!HEAD_REFUSED.has(answer.status)) throw await statusError(answer, endpoint);
    discard(answer.body);
    return null;
  }
  discard(answer.body);
  const mediaType = essence(header(answer.headers, 'content-type') ?? '');
  if (mediaType === '') return null;
  return {
    mediaType,
    digest: parseDigest(header(answer.headers, 'docker-content-digest') ?? '') ?? undefined,
    size: bytesOf(header(answer.headers, 'content-length')),
    body: null,
  };
}

/** Reads a manifest whole and checks it against the digest that was asked for, or that the registry claims. */
export async function readManifest(answer: Answer, endpoint: URL, reference: Reference): Promise<UpstreamManifest> {
  if (answer.status !== 200) throw await statusError(answer, endpoint);
  const body = await readBounded(answer.body, MANIFEST_LIMIT);
  const claimed = parseDigest(header(answer.headers, 'docker-content-digest') ?? '');
  const wanted = reference.kind === 'digest' ? reference.digest : claimed;
  const algorithm = wanted === null ? 'sha256' : digestAlgorithm(wanted);
  const digest = `${algorithm}:${createHash(algorithm).update(body).digest('hex')}` as Digest;
  if (wanted !== null && digest !== wanted)
    throw new NonsenseError(`a manifest whose digest is ${digest} instead of ${wanted}`);
  const mediaType = essence(header(answer.headers, 'content-type') ?? '') || ownMediaType(body);
  if (mediaType === '') throw new NonsenseError('a manifest without a media type');
  return { mediaType, digest, size: body.length, body };
}

export async function readList(answer: Answer, endpoint: URL): Promise<ListPage> {
  if (answer.status !== 200) throw await statusError(answer, endpoint);
  const body = await readBounded(answer.body, LIST_LIMIT);
  const filtersApplied = header(answer.headers, 'oci-filters-applied');
  return {
    body,
    mediaType: essence(header(answer.headers, 'content-type') ?? '') || 'application/json',
    next: nextQuery(headerList(answer.headers, 'link')),
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
