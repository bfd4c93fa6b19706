import type { RegistryEntry } from '../aliases/table.ts';
import { Askers } from '../kit/askers.ts';
import { readDocument } from '../oci/document-reader.ts';
import { NEXT_MARK, nameIn, renderNext, TYPE_MARK } from '../oci/link.ts';
import { OCI_INDEX, parseAccept } from '../oci/media-types.ts';
import { type Digest, digestAlgorithm, digestHex, type Extra, type RepositoryKey } from '../oci/names.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { ManifestsByTag } from './by-tag.ts';
import { listHeaders, type Pull, type Reply, withWarning } from './reply.ts';
import { isMissing } from './repository-access.ts';

/** What the client asked for of a list of tags. */
export interface TagsQuery {
  readonly n?: number;
  readonly last?: string;
  readonly extra?: Extra;
  /** The client follows a link: its query, as the upstream wrote it. */
  readonly next?: Extra;
}

/**
 * A page of tags, written anew, with the upstream's link in the shape that the client used. What a client asks for itself is made good where
 * the upstream does not page; what a link says is the upstream's own, and goes back to it unchanged.
 */
export async function serveTags(upstream: Upstream, pull: Pull, query: TagsQuery): Promise<Reply> {
  const key: RepositoryKey = pull.target;
  // Clients look for no other name in the answer than the one that they asked for.
  const { name = nameIn(pull.base, key) } = pull;
  const { extra, next } = query;
  const { n, last } = next === undefined ? query : { n: undefined, last: undefined };
  const asked = new URLSearchParams(next ?? extra);
  // No tags are wanted of a repository that must exist all the same (distribution-spec, *Listing Tags*).
  if (n !== undefined) asked.set('n', String(n === 0 ? 1 : n));
  if (last !== undefined) asked.set('last', last);
  const request = { query: asked, name, n, last, isNext: next !== undefined };
  const page = await upstream.tags(key, request, pull.signal, new Askers(pull.client));
  const body = n === 0 ? Buffer.from(JSON.stringify({ name, tags: [] })) : page.body;
  const headers: Record<string, string> = { ...listHeaders('application/json', body.length) };
  if (page.cutAfter !== null && n !== 0) {
    const query = new URLSearchParams({ n: String(n), last: page.cutAfter });
    headers.link = renderNext(pathOf(pull, 'tags/list'), withNamespace(pull, query));
  } else if (page.next !== null && n !== 0) headers.link = linkTo(pull, 'tags/list', page.next);
  return { status: 200, headers, body: bodyFor(pull, body), from: 'upstream' };
}

function pathOf({ base, target }: Pull, what: string): string {
  return `${base}${target.repository}/${what}`;
}

/** A link to the next page: the client's path and `ns`, and the upstream's own words for where to go on, marked as such. */
function linkTo(pull: Pull, what: string, next: URLSearchParams, artifactType?: string): string {
  const query = new URLSearchParams(next);
  query.delete('ns');
  query.set(NEXT_MARK, '1');
  if (artifactType !== undefined && !query.has('artifactType')) query.set(TYPE_MARK, artifactType);
  return renderNext(pathOf(pull, what), withNamespace(pull, query));
}

function withNamespace({ ns }: Pull, query: URLSearchParams): URLSearchParams {
  if (ns !== undefined) query.set('ns', ns);
  return query;
}

export interface ReferrersQuery {
  readonly digest: Digest;
  readonly artifactType?: string;
  readonly extra?: Extra;
  /** The client follows a link: its query, as the upstream wrote it. */
  readonly next?: Extra;
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
  const { digest, artifactType, next } = query;
  const asked = new URLSearchParams(next ?? query.extra);
  if (next === undefined && artifactType !== undefined) asked.set('artifactType', artifactType);
  // The specification has it as a MUST where a filter was applied; here it always is, by whomever.
  const filtered: Record<string, string> = artifactType === undefined ? {} : { 'oci-filters-applied': 'artifactType' };
  const request = { query: asked, artifactType };
  const page = await upstream.referrers(key, digest, request, pull.signal, new Askers(pull.client));
  if (page !== null) {
    const headers: Record<string, string> = { ...listHeaders(OCI_INDEX, page.body.length), ...filtered };
    if (page.next !== null) headers.link = linkTo(pull, `referrers/${digest}`, page.next, artifactType);
    return { status: 200, headers, body: bodyFor(pull, page.body), from: 'upstream' };
  }
  const { body, warning, ...origin } = await fromTag(manifests, entry, pull, digest, artifactType);
  const headers = { ...withWarning(listHeaders(OCI_INDEX, body.length), warning), ...filtered };
  return { status: 200, headers, body: bodyFor(pull, body), ...origin };
}

/** The index under the fallback tag, where it is one; an empty one where it is none, or the subject itself (GitLab takes the tag for a digest). */
async function fromTag(
  manifests: ManifestsByTag,
  entry: RegistryEntry,
  { target, client, signal }: Pull,
  digest: Digest,
  artifactType: string | undefined,
): Promise<Pick<Reply, 'from' | 'since'> & { body: Uint8Array; warning?: string | undefined }> {
  try {
    const tag = fallbackTag(digest);
    const { manifest, warning, from, since } = await manifests.find(entry, target, tag, INDEX_ONLY, 'GET', client);
    if (manifest.body !== null && manifest.digest !== digest) {
      const origin = { registry: entry.host, askers: new Askers(client), signal };
      const body = await readDocument('referrers', manifest.body, { artifactType }, origin);
      if (body !== null) return { body, warning, from, ...(since === undefined ? {} : { since }) };
    }
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  return { body: EMPTY_INDEX, from: 'upstream' };
}

/** distribution-spec, *Referrers Tag Schema*: algorithm cut to 32, hash to 64 characters. */
export function fallbackTag(digest: Digest): string {
  return `${digestAlgorithm(digest).slice(0, 32)}-${digestHex(digest).slice(0, 64)}`;
}

function bodyFor(pull: Pull, body: Uint8Array): Uint8Array | null {
  return pull.method === 'HEAD' ? null : body;
}
