import { MEDIA, type RepositoryContent } from './content.ts';
import type { FakeRegistryOptions } from './options.ts';

interface Page {
  readonly headers: Record<string, string>;
  readonly body: string;
}

export function tagsPage(
  held: RepositoryContent,
  repository: string,
  query: URLSearchParams,
  { pageSize = Number.POSITIVE_INFINITY, tagPages }: FakeRegistryOptions,
): Page {
  const last = query.get('last') ?? '';
  const n = tagPages ?? Number(query.get('n') ?? pageSize);
  const sorted = [...held.tags.keys()].sort().filter((tag) => tag > last);
  const page = sorted.slice(0, n);
  const headers: Record<string, string> = { 'content-type': 'application/json' };
  if (sorted.length > page.length) {
    headers.link = `</v2/${repository}/tags/list?last=${page.at(-1) ?? last}&n=${tagPages === undefined ? n : 0}>; rel="next"`;
  }
  return { headers, body: JSON.stringify({ name: repository, tags: page }) };
}

export function referrersPage(
  held: RepositoryContent,
  reference: string,
  url: URL,
  { filtersReferrers, pageSize = Number.POSITIVE_INFINITY }: FakeRegistryOptions,
): Page {
  const type = url.searchParams.get('artifactType');
  const filters = type !== null && filtersReferrers !== false;
  const all = held.referrersOf(reference).filter((row) => !filters || row.artifactType === type);
  const start = Number(url.searchParams.get('from') ?? 0);
  const page = all.slice(start, start + pageSize);
  const headers: Record<string, string> = { 'content-type': MEDIA.index };
  if (filters) headers['oci-filters-applied'] = 'artifactType';
  if (start + page.length < all.length) {
    const next = new URLSearchParams(url.searchParams);
    next.set('from', String(start + page.length));
    headers.link = `<${url.pathname}?${next}>; rel="next"`;
  }
  return { headers, body: JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.index, manifests: page }) };
}
