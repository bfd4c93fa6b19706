import type { RegistryEntry } from '../aliases/table.ts';
import { renderNext } from '../oci/link.ts';
import { OCI_INDEX, parseAccept } from '../oci/media-types.ts';
import { type Digest, digestAlgorithm, digestHex, type Extra, type RepositoryKey } from '../oci/names.ts';
import type { ListPage, Upstream } from '../upstream/upstream.ts';
import type { ManifestsByTag } from './by-tag.ts';
import { listHeaders, type Pull, type Reply } from './reply.ts';
import { isMissing } from './repository-access.ts';

/** What the client asked for of a list of tags. */
export interface TagsQuery {
  readonly n?: number;
  readonly last?: string;
  readonly extra?: Extra;
}

/**
 * A page of tags, passed on with its link rewritten to the shape that the client used. What the client asked for is made good where
 * the upstream does not page (distribution before version 3): no more than `n`, in order, after `last`.
 */
export async function serveTags(upstream: Upstream, pull: Pull, query: TagsQuery): Promise<Reply> {
  const key: RepositoryKey = pull.target;
  const { n, last } = query;
  const asked = new URLSearchParams(query.extra);
  // No tags are wanted of a repository that must exist all the same (distribution-spec, *Listing Tags*).
  if (n !== undefined) asked.set('n', String(n === 0 ? 1 : n));
  if (last !== undefined) asked.set('last', last);
  const page = paged(await upstream.tags(key, asked, pull.signal), key, n, last);
  const headers: Record<string, string> = { ...listHeaders(page.mediaType, page.body.length) };
  if (page.next !== null) headers.link = linkTo(pull, 'tags/list', page.next);
  return { status: 200, headers, body: pull.method === 'HEAD' ? null : page.body, from: 'upstream' };
}

/** The link to the next page, in the client's shape: the path it used, its `ns`, and the upstream's own words for where to go on. */
function linkTo(pull: Pull, what: string, next: URLSearchParams): string {
  const query = new URLSearchParams(next);
  query.delete('ns');
  if (pull.ns !== undefined) query.set('ns', pull.ns);
  return renderNext(`${pull.base}${pull.target.repository}/${what}`, query);
}

function paged(page: ListPage, key: RepositoryKey, n: number | undefined, last: string | undefined): ListPage {
  const { mediaType } = page;
  if (n === 0) return { body: encode({ name: key.repository, tags: [] }), mediaType, next: null };
  const list = readTags(page.body);
  if (list === null) return page;
  const startsOver = last !== undefined && list.tags.includes(last);
  const tooMany = n !== undefined && list.tags.length > n;
  const unpaged = startsOver || tooMany;
  // What the upstream pages comes in its own order, which its links follow.
  if (!unpaged && (page.next !== null || isOrdered(list.tags))) return page;
  const rest = [...list.tags].sort().filter((tag) => last === undefined || !unpaged || tag > last);
  const tags = n === undefined ? rest : rest.slice(0, n);
  const end = tags.at(-1);
  const more = tags.length < rest.length && end !== undefined;
  return {
    body: encode({ ...list.rest, tags }),
    mediaType,
    next: more ? new URLSearchParams({ n: String(n), last: end }) : null,
  };
}

function readTags(body: Uint8Array): { tags: readonly string[]; rest: object } | null {
  const list = readObject(body);
  if (list === null || !('tags' in list) || !Array.isArray(list.tags)) return null;
  return list.tags.every((tag) => typeof tag === 'string') ? { tags: list.tags, rest: list } : null;
}

/** In one of the orders that the specification's versions call lexical. */
function isOrdered(tags: readonly string[]): boolean {
  const inOrder = (keys: readonly string[]) => keys.every((key, at) => at === 0 || (keys[at - 1] ?? '') <= key);
  return inOrder(tags) || inOrder(tags.map((tag) => tag.toLowerCase()));
}

function encode(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}

export interface ReferrersQuery {
  readonly digest: Digest;
  readonly artifactType?: string;
  readonly extra?: Extra;
}

const INDEX_ONLY = parseAccept(OCI_INDEX);
const EMPTY_INDEX = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }));

/**
 * What refers to a manifest (distribution-spec, *Listing Referrers*): the upstream's list, or where it has no such API the index under the
 * fallback tag, or else an empty one: that nothing refers to it is an answer, not an error.
 */
export async function serveReferrers(
  upstream: Upstream,
  manifests: ManifestsByTag,
  pull: Pull,
  entry: RegistryEntry,
  query: ReferrersQuery,
): Promise<Reply> {
  const key: RepositoryKey = pull.target;
  const { digest, artifactType } = query;
  const asked = new URLSearchParams(query.extra);
  if (artifactType !== undefined) asked.set('artifactType', artifactType);
  const page = await upstream.referrers(key, digest, asked, pull.signal);
  if (page !== null) {
    const headers: Record<string, string> = { ...listHeaders(page.mediaType, page.body.length) };
    if (page.next !== null) headers.link = linkTo(pull, `referrers/${digest}`, page.next);
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
  manifests: ManifestsByTag,
  entry: RegistryEntry,
  key: RepositoryKey,
  digest: Digest,
): Promise<{ body: Uint8Array; from: Reply['from'] }> {
  try {
    const tag = fallbackTag(digest);
    const { manifest, from } = await manifests.find(entry, key, tag, INDEX_ONLY, 'GET');
    if (manifest.body !== null && readIndex(manifest.body) !== null) return { body: manifest.body, from };
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  return { body: EMPTY_INDEX, from: 'upstream' };
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

function readIndex(body: Uint8Array): { manifests: unknown[] } | null {
  const index = readObject(body);
  if (index === null || !('manifests' in index)) return null;
  return Array.isArray(index.manifests) ? (index as { manifests: unknown[] }) : null;
}

/** The JSON object that a body is; null where it is none. */
function readObject(body: Uint8Array): object | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

function bodyFor(pull: Pull, body: Uint8Array): Uint8Array | null {
  return pull.method === 'HEAD' ? null : body;
}
