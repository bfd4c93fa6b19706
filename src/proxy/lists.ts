import type { RegistryEntry } from '../aliases/table.ts';
import { Askers } from '../kit/askers.ts';
import { readDocument } from '../oci/document-reader.ts';
import { nameIn, type Page, queryOfNext, renderNext, TYPE_MARK } from '../oci/link.ts';
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
  /** The client follows a link of the upstream's. */
  readonly next?: Page;
}

/** The list itself, in a `Page`. */
const TAGS_LIST = 'list';

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
  const asked = new URLSearchParams(extra);
  // No tags are wanted of a repository that must exist all the same (distribution-spec, *Listing Tags*).
  if (n !== undefined) asked.set('n', String(n === 0 ? 1 : n));
  if (last !== undefined) asked.set('last', last);
  const request = { page: next ?? pageOf(TAGS_LIST, asked), name, n, last, isNext: next !== undefined };
  const page = await upstream.tags(key, request, pull.signal, new Askers(pull.client));
  const body = n === 0 ? Buffer.from(JSON.stringify({ name, tags: [] })) : page.body;
  const headers: Record<string, string> = { ...listHeaders('application/json', body.length) };
  if (page.cutAfter !== null && n !== 0) {
    const query = new URLSearchParams({ n: String(n), last: page.cutAfter });
    headers.link = linkTo(pull, `tags/${TAGS_LIST}`, query.toString());
  } else if (page.next !== null && n !== 0) {
    headers.link = linkTo(pull, `tags/${TAGS_LIST}`, queryOfNext(page.next, TAGS_LIST));
  }
  return { status: 200, headers, body: bodyFor(pull, body), from: 'upstream' };
}

function pageOf(path: string, query: URLSearchParams): Page {
  return query.size === 0 ? path : `${path}?${query}`;
}

/** A link to the next page, with the client's path and `ns`. */
function linkTo({ base, target, ns }: Pull, what: string, query: string): string {
  const ofClient = ns === undefined ? '' : `&${new URLSearchParams({ ns })}`;
  return renderNext(`${base}${target.repository}/${what}`, `${query}${ofClient}`);
}

export interface ReferrersQuery {
  readonly digest: Digest;
  readonly artifactType?: string;
  readonly extra?: Extra;
  /** The client follows a link of the upstream's. */
  readonly next?: Page;
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
  const asked = new URLSearchParams(query.extra);
  if (artifactType !== undefined) asked.set('artifactType', artifactType);
  // The specification has it as a MUST where a filter was applied; here it always is, by whomever.
  const filtered: Record<string, string> = artifactType === undefined ? {} : { 'oci-filters-applied': 'artifactType' };
  const request = { page: next ?? pageOf(digest, asked), artifactType };
  const page = await upstream.referrers(key, digest, request, pull.signal, new Askers(pull.client));
  if (page !== null) {
    const headers: Record<string, string> = { ...listHeaders(OCI_INDEX, page.body.length), ...filtered };
    if (page.next !== null)
      headers.link = linkTo(pull, `referrers/${digest}`, withType(page.next, digest, artifactType));
    return { status: 200, headers, body: bodyFor(pull, page.body), from: 'upstream' };
  }
  const { body, warning, ...origin } = await fromTag(manifests, entry, pull, digest, artifactType);
  const headers = { ...withWarning(listHeaders(OCI_INDEX, body.length), warning), ...filtered };
  return { status: 200, headers, body: bodyFor(pull, body), ...origin };
}

/** The query of the link to a page of referrers: the type that the client wants stays known, though the upstream may not name it. */
function withType(next: Page, digest: Digest, artifactType: string | undefined): string {
  const query = queryOfNext(next, digest);
  if (artifactType === undefined || new URLSearchParams(query).has('artifactType')) return query;
  return `${query}&${new URLSearchParams({ [TYPE_MARK]: artifactType })}`;
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
