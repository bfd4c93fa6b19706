import type { RepositoryKey } from './names.ts';

/** One entry of a `Link` header (RFC 8288, *Link Serialisation*); parameter names in lower case. */
export interface Link {
  /** URI reference as written: often only a path, relative to the request. */
  readonly target: string;
  readonly params: ReadonlyMap<string, string>;
}

/**
 * Marks the query of a link that came from an upstream: all else in it is the upstream's own, whatever it means there (ghcr.io: `n=0`), and is
 * not what the client asked for. Its value is the path of the page, where that is not the list's own.
 */
export const NEXT_MARK = '_next';
/** Its value for a page that differs from the list in its query alone, as those of all known registries do. */
const OWN_PATH = '1';

/** Marks in such a link the type that the client wants of referrers, where the upstream's own query does not say it. */
export const TYPE_MARK = '_artifactType';

/** Marks in such a link the pages that lead to it: see link-trail.ts. */
export const TRAIL_MARK = '_seen';

/** What this gateway adds to the query of such a link. */
const OWN_NAMES: ReadonlySet<string> = new Set([NEXT_MARK, TYPE_MARK, TRAIL_MARK, 'ns']);

/** As long as the whole header of an answer may be. */
const MAX_LENGTH = 64 * 1024;

/** Reads every link of a header value; what is malformed ends the list and keeps what came before. */
export function parseLinks(header: string): Link[] {
  const links: Link[] = [];
  if (header.length > MAX_LENGTH) return links;
  let at = 0;
  while (at < header.length) {
    const open = skip(header, at, ' \t,');
    if (header[open] !== '<') break;
    const close = header.indexOf('>', open);
    if (close < 0) break;
    const params = new Map<string, string>();
    at = readParams(header, close + 1, params);
    links.push({ target: header.slice(open + 1, close).trim(), params });
  }
  return links;
}

/** The target of `rel="next"`; null on the last page. */
export function nextTarget(header: string | null | undefined): string | null {
  const next = parseLinks(header ?? '').find(({ params }) => {
    return (params.get('rel') ?? '').toLowerCase().split(/\s+/).includes('next');
  });
  return next?.target ?? null;
}

/**
 * A page of a list, as its registry asks for it: what stands behind `/v2/<name>/<kind>/`, with the query as it was written
 * (`list?last=v09&n=0`).
 */
export type Page = string;

export type ListKind = 'tags' | 'referrers';

/**
 * The page that a link's target is, of the same list: neither another host nor another repository can be named so. Undefined where it leads
 * elsewhere.
 * @param from.url of the answer that has the link
 * @param from.page what was asked for there
 */
export function pageAt(target: string, from: { url: URL; page: Page; kind: ListKind }): Page | undefined {
  if (!URL.canParse(target, from.url.href)) return undefined;
  const { pathname, search } = new URL(target, from.url);
  const own = pathOf(from.page);
  if (pathname === from.url.pathname) return own + search;
  // The last: what stands before is the registry's own affair, as Artifactory's links show (`/artifactory/api/docker/…/v2/…`).
  const start = pathname.lastIndexOf(`/${from.kind}/`);
  const path = start < 0 ? undefined : pathname.slice(start + from.kind.length + 2);
  if (path !== undefined && isPagePath(path)) return path + search;
  return search === '' ? undefined : own + search;
}

function pathOf(page: Page): string {
  return page.replace(/\?.*$/s, '');
}

/** Words of the registry API's paths: what has one behind a list's own is of another repository. */
const API_WORDS: ReadonlySet<string> = new Set(['tags', 'manifests', 'blobs', 'referrers', '_catalog']);

/** Whether it stays below the list, however it is decoded, and read by servers that leave out parameters of segments (`..;x`). */
function isPagePath(path: string): boolean {
  return path.split('/').every((segment, at, all) => {
    if (segment === '') return at > 0 && at === all.length - 1;
    if (!/^(?:[\w.~!$&'()*+,;=:@-]|%(?!2[ef]|5c|25)[2-7][\da-f])+$/i.test(segment)) return false;
    const name = decodeURIComponent(segment).replace(/;.*$/, '');
    return !['', '.', '..'].includes(name) && !API_WORDS.has(name);
  });
}

/** Whether two pages are the same, in whatever order their queries are. */
export function isSamePage(one: Page, other: Page): boolean {
  const [a, b] = [one, other].map((page) => {
    const query = new URLSearchParams(page.slice(pathOf(page).length));
    query.sort();
    return `${pathOf(page)}?${query}`;
  });
  return a === b;
}

/** The query of the link by which clients come to a page; `own`: the path of the list itself. */
export function queryOfNext(page: Page, own: string): string {
  const path = pathOf(page);
  const mark = path === own ? OWN_PATH : encodeURIComponent(path);
  return [...foreignParts(page.slice(path.length + 1)), `${NEXT_MARK}=${mark}`].join('&');
}

/** The page to which such a query leads; null where this gateway cannot have written it. */
export function pageOfNext(query: string, own: string): Page | null {
  const mark = new URLSearchParams(query).get(NEXT_MARK) ?? '';
  const path = mark === OWN_PATH ? own : mark;
  if (!isPagePath(path)) return null;
  const search = foreignParts(query).join('&');
  return search === '' ? path : `${path}?${search}`;
}

/** The parts of a query that are not this gateway's, as they were written. */
function foreignParts(query: string): string[] {
  return query
    .split('&')
    .filter((part) => part !== '' && ![...new URLSearchParams(part).keys()].some((name) => OWN_NAMES.has(name)));
}

/** The specification's `<name>` in a path: all that stands between `/v2/` and what is asked of a repository, a registry in front included. */
export function nameIn(base: string, { repository }: Pick<RepositoryKey, 'repository'>): string {
  return base.startsWith('/v2/') ? `${base.slice('/v2/'.length)}${repository}` : repository;
}

/** Writes the link to the next page; `path` is absolute and made of valid names only, `query` of what may stand in one. */
export function renderNext(path: string, query: string): string {
  return `<${path}?${query}>; rel="next"`;
}

function readParams(header: string, start: number, params: Map<string, string>): number {
  let at = start;
  for (;;) {
    at = skip(header, at, ' \t');
    if (header[at] !== ';') return at;
    at = skip(header, at + 1, ' \t');
    const nameEnd = scan(header, at, '=;, \t');
    const name = header.slice(at, nameEnd).toLowerCase();
    at = skip(header, nameEnd, ' \t');
    let value = '';
    if (header[at] === '=') {
      at = skip(header, at + 1, ' \t');
      if (header[at] === '"') {
        const [text, end] = quoted(header, at);
        value = text;
        at = end;
      } else {
        const end = scan(header, at, ';, \t');
        value = header.slice(at, end);
        at = end;
      }
    }
    // The first one counts (RFC 8288, *Target Attributes*).
    if (name !== '' && !params.has(name)) params.set(name, value);
  }
}

/** A quoted string from its opening quote on; an unclosed one ends with the header. */
function quoted(header: string, open: number): [string, number] {
  let text = '';
  for (let at = open + 1; at < header.length; at += 1) {
    const char = header[at];
    if (char === '"') return [text, at + 1];
    if (char === '\\') at += 1;
    text += header[at] ?? '';
  }
  return [text, header.length];
}

function skip(text: string, start: number, chars: string): number {
  let at = start;
  while (at < text.length && chars.includes(text.charAt(at))) at += 1;
  return at;
}

function scan(text: string, start: number, stops: string): number {
  let at = start;
  while (at < text.length && !stops.includes(text.charAt(at))) at += 1;
  return at;
}
