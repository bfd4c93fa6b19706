import type { RegistryEntry } from '../aliases/table.ts';
import { type Digest, digestAlgorithm, digestHex } from '../oci/digest.ts';
import { OCI_INDEX, parseAccept } from '../oci/media-types.ts';
import type { Extra, RepositoryKey } from '../oci/target.ts';
import type { Upstream } from '../upstream/upstream.ts';
import { isMissing } from './access.ts';
import { listHeaders } from './headers.ts';
import type { Manifests } from './manifests.ts';
import type { Pull, Reply } from './reply.ts';
import { linkTo } from './tags.ts';

export interface ReferrersQuery {
  readonly digest: Digest;
  readonly artifactType?: string;
  readonly extra?: Extra;
}

const INDEX_ONLY = parseAccept(OCI_INDEX);
const EMPTY = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }));

/**
 * What refers to a manifest (distribution-spec, *Listing Referrers*): the upstream's list, or where it has no such API the index under the
 * fallback tag, or else an empty one: that nothing refers to it is an answer, not an error.
 */
export async function serveReferrers(
  upstream: Upstream,
  manifests: Manifests,
  pull: Pull,
  entry: RegistryEntry,
  key: RepositoryKey,
  query: ReferrersQuery,
  signal: AbortSignal,
): Promise<Reply> {
  const { digest, artifactType } = query;
  const asked = new URLSearchParams(query.extra);
  if (artifactType !== undefined) asked.set('artifactType', artifactType);
  const page = await upstream.referrers(key, digest, asked, signal);
  if (page !== null) {
    const headers: Record<string, string> = { ...listHeaders(page.mediaType, page.body.length) };
    if (page.next !== null) headers.link = linkTo(pull, key, `referrers/${digest}`, page.next);
    if (page.filtersApplied !== undefined) headers['oci-filters-applied'] = page.filtersApplied;
    return { status: 200, headers, body: bodyFor(pull, page.body), from: 'upstream' };
  }
  const { body, from } = await fromTag(manifests, entry, key, digest);
  const filtered = artifactType === undefined ? null : filter(body, artifactType);
  const list = filtered ?? body;
  const headers: Record<string, string> = { ...listHeaders(OCI_INDEX, list.length) };
  if (filtered !== null) headers['oci-filters-applied'] = 'artifactType';
  return { status: 200, headers, body: bodyFor(pull, list), from };
}

async function fromTag(
  manifests: Manifests,
  entry: RegistryEntry,
  key: RepositoryKey,
  digest: Digest,
): Promise<{ body: Uint8Array; from: Reply['from'] }> {
  try {
    const tag = fallbackTag(digest);
    const { answer, from } = await manifests.find(entry, key, { kind: 'tag', tag }, INDEX_ONLY, 'GET');
    if (answer.body !== null && isIndex(answer.body)) return { body: answer.body, from };
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  return { body: EMPTY, from: 'upstream' };
}

/** distribution-spec, *Referrers Tag Schema*: algorithm cut to 32, hash to 64 characters. */
export function fallbackTag(digest: Digest): string {
  return `${digestAlgorithm(digest).slice(0, 32)}-${digestHex(digest).slice(0, 64)}`;
}

function filter(body: Uint8Array, artifactType: string): Buffer | null {
  const index = readIndex(body);
  if (index === null) return null;
  const manifests = index.manifests.filter(
    (row) => typeof row === 'object' && row !== null && 'artifactType' in row && row.artifactType === artifactType,
  );
  return Buffer.from(JSON.stringify({ ...index, manifests }));
}

function isIndex(body: Uint8Array): boolean {
  return readIndex(body) !== null;
}

function readIndex(body: Uint8Array): { manifests: unknown[] } | null {
  try {
    const index: unknown = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
    if (typeof index !== 'object' || index === null || !('manifests' in index)) return null;
    return Array.isArray(index.manifests) ? (index as { manifests: unknown[] }) : null;
  } catch {
    return null;
  }
}

function bodyFor(pull: Pull, body: Uint8Array): Uint8Array | null {
  return pull.method === 'HEAD' ? null : body;
}
