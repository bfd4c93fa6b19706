import { renderNext } from '../oci/link.ts';
import type { Extra, RepositoryKey } from '../oci/target.ts';
import type { ListPage, Upstream } from '../upstream/upstream.ts';
import { listHeaders } from './headers.ts';
import type { Pull, Reply } from './reply.ts';

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
export async function serveTags(
  upstream: Upstream,
  pull: Pull,
  key: RepositoryKey,
  query: TagsQuery,
  signal: AbortSignal,
): Promise<Reply> {
  const { n, last } = query;
  const asked = new URLSearchParams(query.extra);
  // No tags are wanted of a repository that must exist all the same (distribution-spec, *Listing Tags*).
  if (n !== undefined) asked.set('n', String(n === 0 ? 1 : n));
  if (last !== undefined) asked.set('last', last);
  const page = paged(await upstream.tags(key, asked, signal), key, n, last);
  const headers: Record<string, string> = { ...listHeaders(page.mediaType, page.body.length) };
  if (page.next !== null) headers.link = linkTo(pull, key, 'tags/list', page.next);
  return { status: 200, headers, body: pull.method === 'HEAD' ? null : page.body, from: 'upstream' };
}

/** The link to the next page, in the client's shape: the path it used, its `ns`, and the upstream's own words for where to go on. */
export function linkTo(pull: Pull, key: RepositoryKey, what: string, next: URLSearchParams): string {
  const query = new URLSearchParams(next);
  query.delete('ns');
  if (pull.ns !== undefined) query.set('ns', pull.ns);
  return renderNext(`${pull.base}${key.repository}/${what}`, query);
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
  try {
    const list: unknown = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
    if (typeof list !== 'object' || list === null || !('tags' in list) || !Array.isArray(list.tags)) return null;
    if (!list.tags.every((tag) => typeof tag === 'string')) return null;
    return { tags: list.tags, rest: list };
  } catch {
    return null;
  }
}

/** In one of the orders that the specification's versions call lexical. */
function isOrdered(tags: readonly string[]): boolean {
  const inOrder = (keys: readonly string[]) => keys.every((key, at) => at === 0 || (keys[at - 1] ?? '') <= key);
  return inOrder(tags) || inOrder(tags.map((tag) => tag.toLowerCase()));
}

function encode(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}
