import type { RepositoryKey } from './names.ts';

/** One entry of a `Link` header (RFC 8288, *Link Serialisation*); parameter names in lower case. */
export interface Link {
  /** URI reference as written: often only a path, relative to the request. */
  readonly target: string;
  readonly params: ReadonlyMap<string, string>;
}

/**
 * Marks the query of a link that came from an upstream: all else in it is the upstream's own, whatever it means there (ghcr.io: `n=0`), and is
 * not what the client asked for.
 */
export const NEXT_MARK = '_next';

/** Marks in such a link the type that the client wants of referrers, where the upstream's own query does not say it. */
export const TYPE_MARK = '_artifactType';

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

/**
 * Query of the `rel="next"` target: all that a later request for the next page must carry. Null on the last page.
 * Only the query is taken, so a page link can never lead to another host or path.
 */
export function nextQuery(header: string | null | undefined): URLSearchParams | null {
  if (header === null || header === undefined) return null;
  for (const { target, params } of parseLinks(header)) {
    const relations = (params.get('rel') ?? '').toLowerCase().split(/\s+/);
    if (!relations.includes('next')) continue;
    const question = target.indexOf('?');
    return new URLSearchParams(question < 0 ? '' : target.slice(question + 1).replace(/#.*$/, ''));
  }
  return null;
}

/** The specification's `<name>` in a path: all that stands between `/v2/` and what is asked of a repository, a registry in front included. */
export function nameIn(base: string, { repository }: Pick<RepositoryKey, 'repository'>): string {
  return base.startsWith('/v2/') ? `${base.slice('/v2/'.length)}${repository}` : repository;
}

/** Writes the link to the next page; `path` is absolute and made of valid names only. */
export function renderNext(path: string, query: URLSearchParams): string {
  const text = query.toString();
  return `<${path}${text === '' ? '' : `?${text}`}>; rel="next"`;
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
