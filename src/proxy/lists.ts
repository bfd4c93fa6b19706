import type { RegistryEntry } from '../aliases/table.ts';
import { Askers } from '../kit/askers.ts';
import { readDocument } from '../oci/document-reader.ts';
import type { TagsFilter } from '../oci/documents.ts';
import { busyError } from '../oci/errors.ts';
import { nameIn, type Page, queryOfNext, renderNext, TRAIL_MARK, TYPE_MARK } from '../oci/link.ts';
import { isOnTrail, markOf, type Trail, withMark } from '../oci/link-trail.ts';
import { OCI_INDEX, parseAccept } from '../oci/media-types.ts';
import type { Digest, RepositoryKey, What } from '../oci/names.ts';
import { fallbackTag } from '../oci/referrers-tag.ts';
import type { ListPage, Upstream } from '../upstream/upstream.ts';
import type { ManifestsByTag } from './by-tag.ts';
import { listHeaders, type Pull, type Reply, withWarning } from './reply.ts';
import { isMissing } from './repository-access.ts';
import type { Staleness } from './stale.ts';

/** A list and where it came from; `warning` of one that is stale. */
export interface ListAnswer extends Pick<Reply, 'from' | 'since'> {
  readonly list: ListPage;
  readonly stale?: Staleness | undefined;
}

/** What a client asks for of a repository's lists. The answer is the same for all who ask, by whatever way; each has it in its own words. */
export interface ListQuestion {
  /** Names it among those of its repository. */
  readonly id: string;
  /** Asks the registry. */
  ask(): Promise<ListAnswer>;
  /** The answer as this client gets it: with the repository's name and links in the shape that it used. */
  render(answer: ListAnswer): Promise<Reply> | Reply;
}

/** The list itself, in a `Page`. */
const TAGS_LIST = 'list';

/**
 * A page of tags, with the upstream's link in the shape that the client used. What a client asks for itself is made good where the upstream does
 * not page; what a link says is the upstream's own, and goes back to it unchanged.
 * @param filter which of them are shown; a page may come short, its link leads on all the same. Null: all.
 */
export function tagsQuestion(
  upstream: Upstream,
  pull: Pull,
  entry: RegistryEntry,
  what: What & { kind: 'tags' },
  filter: TagsFilter | null,
): ListQuestion {
  const key: RepositoryKey = pull.target;
  // Clients look for no other name in the answer than the one that they asked for.
  const { name = nameIn(pull.base, key) } = pull;
  const { extra, next, trail = '' } = what;
  // No tags are wanted of a repository that must exist all the same (distribution-spec, *Listing Tags*).
  const isNone = next === undefined && what.n === 0;
  const { n, last } = next === undefined ? { n: isNone ? 1 : what.n, last: what.last } : {};
  const asked = new URLSearchParams(extra);
  if (n !== undefined) asked.set('n', String(n));
  if (last !== undefined) asked.set('last', last);
  const page = next ?? pageOf(TAGS_LIST, asked);
  const request = { page, n, last, isNext: next !== undefined };
  return {
    id: idOf('tags', page, next !== undefined),
    async ask() {
      return { list: await upstream.tags(key, request, pull.signal, new Askers(pull.client)), from: 'upstream' };
    },
    async render(answer) {
      const { list } = answer;
      const isEnd = isNone || isOnTrail(trail, list.mark);
      const body = Buffer.concat([
        Buffer.from(`{"name":${JSON.stringify(name)},"tags":`),
        isEnd ? Buffer.from('[]') : await shownOf(list, entry, pull, filter),
        Buffer.from('}'),
      ]);
      let query: string | null = null;
      if (!isEnd && list.cutAfter !== null) {
        query = new URLSearchParams({ n: String(n), last: list.cutAfter }).toString();
      } else if (!isEnd) query = nextQuery(list, TAGS_LIST, page, trail);
      return replyOf(pull, answer, 'application/json', body, { path: `tags/${TAGS_LIST}`, query });
    },
  };
}

async function shownOf(
  { body }: ListPage,
  { host: registry }: RegistryEntry,
  { client, signal }: Pull,
  filter: TagsFilter | null,
): Promise<Uint8Array> {
  if (filter === null) return body;
  const chosen = await readDocument('chosenTags', body, filter, { registry, askers: new Askers(client), signal });
  if (chosen === null) throw busyError(`large documents from ${registry} that take long`);
  return chosen.body;
}

/** Which it is, whatever a client calls the registry and the repository. A registry's own link may read as another client's question, and is none. */
function idOf(kind: What['kind'], page: Page, isNext: boolean, artifactType = ''): string {
  return JSON.stringify([kind, isNext ? 'next' : 'first', page, artifactType]);
}

function pageOf(path: string, query: URLSearchParams): Page {
  return query.size === 0 ? path : `${path}?${query}`;
}

/** The query of the link to the next page, with those on the way there; null where there is none, or an empty page leads back to such a one. */
function nextQuery({ next, mark }: ListPage, own: string, page: Page, trail: Trail): string | null {
  if (next === null) return null;
  // Pages of nothing differ by their addresses alone.
  const walked = withMark(trail, mark === '' ? markOf(page) : mark);
  return isOnTrail(walked, markOf(next)) ? null : `${queryOfNext(next, own)}&${TRAIL_MARK}=${walked}`;
}

/** @param link to the next page, below the repository; null where there is none */
function replyOf(
  { base, target, ns, method }: Pull,
  { from, since, stale }: ListAnswer,
  mediaType: string,
  body: Uint8Array,
  link: { readonly path: string; readonly query: string | null },
): Reply {
  const headers: Record<string, string> = { ...withWarning(listHeaders(mediaType, body.length), stale?.warning) };
  if (link.query !== null) {
    const ofClient = ns === undefined ? '' : `&${new URLSearchParams({ ns })}`;
    headers.link = renderNext(`${base}${target.repository}/${link.path}`, `${link.query}${ofClient}`);
  }
  return {
    status: 200,
    headers,
    body: method === 'HEAD' ? null : body,
    from,
    ...(since === undefined ? {} : { since }),
    ...(stale === undefined ? {} : { reason: stale.reason }),
  };
}

const INDEX_ONLY = parseAccept(OCI_INDEX);
const EMPTY_INDEX = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] }));
const NOTHING: ListPage = { body: EMPTY_INDEX, mark: '', next: null, cutAfter: null };

export interface ReferrersSources {
  readonly upstream: Upstream;
  readonly manifests: ManifestsByTag;
  /** Whether the repository has shown that it holds the subject. */
  readonly isKnown: () => boolean;
}

/**
 * What refers to a manifest (distribution-spec, *Listing Referrers*): the upstream's list, or where it has no such API the index under the
 * fallback tag, or else an empty one: that nothing refers to it is an answer, not an error.
 */
export function referrersQuestion(
  from: ReferrersSources,
  pull: Pull,
  entry: RegistryEntry,
  what: What & { kind: 'referrers' },
): ListQuestion {
  const { upstream, manifests, isKnown } = from;
  const key: RepositoryKey = pull.target;
  const { digest, artifactType, next, trail = '' } = what;
  const asked = new URLSearchParams(what.extra);
  if (artifactType !== undefined) asked.set('artifactType', artifactType);
  const page = next ?? pageOf(digest, asked);
  return {
    id: idOf('referrers', page, next !== undefined, artifactType),
    async ask() {
      const request = { page, artifactType, isKnown: isKnown() };
      const list = await upstream.referrers(key, digest, request, pull.signal, new Askers(pull.client));
      return list === null ? fromTag(manifests, entry, pull, digest, artifactType) : { list, from: 'upstream' };
    },
    render(answer) {
      const isEnd = isOnTrail(trail, answer.list.mark);
      const list = isEnd ? NOTHING : answer.list;
      const query = nextQuery(list, digest, page, trail);
      const link = query === null ? query : withType(query, artifactType);
      const reply = replyOf(pull, answer, OCI_INDEX, list.body, { path: `referrers/${digest}`, query: link });
      if (artifactType === undefined) return reply;
      // The specification has it as a MUST where a filter was applied; here it always is, by whomever.
      return { ...reply, headers: { ...reply.headers, 'oci-filters-applied': 'artifactType' } };
    },
  };
}

/** The query of the link to a page of referrers: the type that the client wants stays known, though the upstream may not name it. */
function withType(query: string, artifactType: string | undefined): string {
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
): Promise<ListAnswer> {
  try {
    const tag = fallbackTag(digest);
    const { manifest, ...origin } = await manifests.find(entry, target, tag, INDEX_ONLY, 'GET', client);
    if (manifest.body !== null && manifest.digest !== digest) {
      const document = { registry: entry.host, askers: new Askers(client), signal };
      const reading = await readDocument('referrers', manifest.body, { artifactType }, document);
      if (reading !== null) return { list: { ...reading, next: null, cutAfter: null }, ...origin };
    }
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
  return { list: NOTHING, from: 'upstream' };
}
