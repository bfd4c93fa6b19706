import { LRUCache } from 'lru-cache';
import type { TableSnapshot } from '../aliases/table.ts';
import { RegistryError } from '../oci/errors.ts';
import { DOCKER_HUB, hasMixedCase } from '../oci/known-registries.ts';
import { NEXT_MARK, nameIn, pageOfNext, TRAIL_MARK, TYPE_MARK } from '../oci/link.ts';
import { parseTrail } from '../oci/link-trail.ts';
import {
  type Extra,
  isRegistryHost,
  parseReference,
  type Reference,
  type RepositoryKey,
  requireDigest,
  requireRepository,
  type Target,
  type What,
} from '../oci/names.ts';
import {
  type AskedHost,
  hostUnknown,
  isRegistryName,
  nsOf,
  registryOfNs,
  registryOfPath,
  registryText,
  roleOf,
  shown,
} from './registry-name.ts';

/** The URL of a request, as far as routing reads it. */
export interface RequestUrl extends AskedHost {
  /** Raw path, still percent-encoded: `/v2/quay.io/org/app/manifests/1`. */
  readonly path: string;
  /** Raw query without its `?`; empty where there is none. */
  readonly query: string;
}

/** Where a pull leads, and how the client got there. */
export interface PullRoute {
  readonly target: Target;
  /** The specification's `<name>` as the client wrote it, where `base` and target make another: see `nameIn`. */
  readonly name?: string;
  /** Path in front of `<name>/tags/list` in the shape that the client used, for `Link`: `/v2/`, `/v2/quay.io/`, `/quay.io/v2/`. */
  readonly base: string;
  /** The registry that `ns` named; carried into `Link`. */
  readonly ns: string | undefined;
}

/**
 * Host, path and `ns` to Target, once; the only place that reads a pull's URL.
 * Null where the path is none of the registry API's content routes (a ping, the page, anything else).
 * @throws {RegistryError} hostUnknown, registryUnknown, ownName, pathUnknown, nameInvalid, digestInvalid; manifestUnknown for a tag that cannot exist
 */
export function resolvePull(url: RequestUrl, table: TableSnapshot): PullRoute | null {
  const split = splitPath(url.path);
  if (split === null) return null;
  const role = roleOf(url.host, table);
  if (role.kind === 'unknown') throw hostUnknown(url.host);

  const params = url.query === '' ? undefined : new URLSearchParams(url.query);
  const ns = nsOf(params?.get('ns'));
  const found = splitName(split.rest);
  if (found === null) {
    // The ping of a mirror whose client was not told that `/v2` is in its path already.
    if (parsePing(url.path) !== null) return null;
    throw pathUnknown(url.path);
  }
  let name = found.name;
  let registry: string;
  let base = '/v2/';

  if (role.kind === 'alias') {
    // The shape with the registry in front belongs to the bare domain; here a segment that looks like one is part of the name.
    if (split.registry !== undefined) throw pathUnknown(url.path);
    registry = role.alias.registry;
  } else if (split.registry !== undefined) {
    registry = registryOfPath(split.registry, url, table);
    base = `/${registry}/v2/`;
  } else {
    const first = registryText(name[0] ?? '');
    // As in image names: without a slash behind it, it is a repository.
    if (name.length > 1 && isRegistryHost(first)) {
      registry = registryOfPath(first, url, table);
      base = `/v2/${registry}/`;
      name = name.slice(1);
      // What a mirror's client makes of that path where nobody told it that `/v2` is in it already (containerd's `override_path`).
      if (name[0] === 'v2' && name.length > 1) {
        base += 'v2/';
        name = name.slice(1);
      }
    } else {
      registry = registryOfNs(ns, url, table);
    }
  }

  const namespace = { target: { registry }, ns: ns === undefined || !isRegistryName(ns) ? undefined : ns };
  try {
    const asked = found.name.join('/');
    const key = { registry, repository: repositoryOf(registry, name) };
    return {
      target: { ...key, what: whatOf(found, key, url.query, params) },
      ...(asked === nameIn(base, key) ? {} : { name: asked }),
      base,
      ns: namespace.ns,
    };
  } catch (error) {
    throw error instanceof RegistryError ? error.withHeaders(namespaceOf(namespace)) : error;
  }
}

/** Says which registry `ns` was taken for (distribution-spec, *Registry Proxying*), in errors too; nothing where it was not sent. */
export function namespaceOf({ ns, target }: { ns: string | undefined; target: Pick<Target, 'registry'> }): {
  'oci-namespace'?: string;
} {
  return ns === undefined ? {} : { 'oci-namespace': target.registry };
}

/**
 * A ping: `/v2/`, `/v2`, and the same below a registry (a mirror's URL with a path), which is returned. Null for any other path.
 */
export function parsePing(path: string): { readonly registry: string | undefined } | null {
  if (path === '/v2/' || path === '/v2') return { registry: undefined };
  const match = /^(?:\/v2)?\/([^/]+)\/v2\/?$/.exec(path);
  const first = match?.[1] === undefined ? undefined : decodeSegment(match[1]);
  return first !== undefined && isRegistryHost(first) ? { registry: registryText(first) } : null;
}

export function pathUnknown(path: string): RegistryError {
  return new RegistryError('pathUnknown', { facts: { path: shown(path) } });
}

/** Routes remembered: more than the images that a few thousand nodes pull at a time. */
const MAX_ROUTES = 2_048;
/** Longest host, path and query that are worth remembering. */
const MAX_ROUTE_LENGTH = 512;

/** Where pulls lead, remembered: clients ask for the same images again and again, and only a new table changes where they lead. */
export class Routes {
  readonly #table: () => TableSnapshot;
  readonly #found = new LRUCache<string, PullRoute>({ max: MAX_ROUTES });
  #foundIn: TableSnapshot | null = null;

  constructor(table: () => TableSnapshot) {
    this.#table = table;
  }

  /** As `resolvePull`; what it throws, and what is no pull, is not remembered. @throws {RegistryError} */
  resolve(url: RequestUrl): PullRoute | null {
    const table = this.#table();
    if (table !== this.#foundIn) {
      this.#found.clear();
      this.#foundIn = table;
    }
    // No two requests share a key: a host has no space, and a path no question mark.
    const key = `${url.host}:${url.port} ${url.path}?${url.query}`;
    const found = this.#found.get(key);
    if (found !== undefined) return found;
    const route = resolvePull(url, table);
    if (route !== null && key.length <= MAX_ROUTE_LENGTH) this.#found.set(key, route);
    return route;
  }
}

/** The two shapes: `/v2/<rest>` and `/<registry>/v2/<rest>`, rest never empty. Segments are decoded one by one, after the split. */
function splitPath(path: string): { registry: string | undefined; rest: readonly string[] } | null {
  let registry: string | undefined;
  let start = 4;
  if (!path.startsWith('/v2/')) {
    const slash = path.indexOf('/', 1);
    if (slash < 2 || !path.startsWith('/v2/', slash)) return null;
    const first = decodeSegment(path.slice(1, slash));
    if (first === undefined || !isRegistryHost(first)) return null;
    registry = registryText(first);
    start = slash + 4;
  }
  if (path.length === start) return null;
  const raw = path.slice(start).split('/');
  if (!path.includes('%', start)) return { registry, rest: raw };
  const rest: string[] = [];
  for (const [index, segment] of raw.entries()) {
    // The last one is a tag or a digest, and none with a percent sign exists.
    const decoded = decodeSegment(segment) ?? (index === raw.length - 1 ? segment : undefined);
    if (decoded === undefined) throw new RegistryError('nameInvalid', { facts: { name: shown(path.slice(start)) } });
    rest.push(decoded);
  }
  return { registry, rest };
}

/** Undefined for broken encoding and for what decodes to another path (`%2F`, `%5C`, or once more encoded). */
function decodeSegment(segment: string): string | undefined {
  if (!segment.includes('%')) return segment;
  try {
    const decoded = decodeURIComponent(segment);
    return /[/\\%\p{Cc}]/u.test(decoded) ? undefined : decoded;
  } catch {
    return undefined;
  }
}

interface Found {
  readonly name: readonly string[];
  readonly kind: 'manifests' | 'blobs' | 'referrers' | 'tags';
  readonly last: string;
}

/** Read from the end: a repository may be called `manifests` itself. */
function splitName(rest: readonly string[]): Found | null {
  const kind = rest.at(-2);
  const last = rest.at(-1);
  const name = rest.slice(0, -2);
  if (name.length === 0 || last === undefined || last === '') return null;
  if (kind === 'manifests' || kind === 'blobs' || kind === 'referrers') return { name, kind, last };
  return kind === 'tags' && last === 'list' ? { name, kind, last } : null;
}

function repositoryOf(registry: string, name: readonly string[]): string {
  const joined = name.join('/');
  if (registry === DOCKER_HUB && name.length === 1) return requireRepository(`library/${joined}`);
  return requireRepository(joined, hasMixedCase(registry));
}

function whatOf(found: Found, key: RepositoryKey, query: string, params: URLSearchParams | undefined): What {
  switch (found.kind) {
    case 'manifests':
      return { kind: 'manifest', reference: referenceOf(found.last, key) };
    case 'blobs':
      return { kind: 'blob', digest: requireDigest(found.last) };
    case 'referrers': {
      const artifactType = params?.get('artifactType') ?? params?.get(TYPE_MARK);
      return {
        kind: 'referrers',
        digest: requireDigest(found.last),
        ...(artifactType === null || artifactType === undefined ? {} : { artifactType }),
        ...(nextOf(query, params, found.last) ?? extraOf(params, ['artifactType'])),
      };
    }
    case 'tags': {
      const next = nextOf(query, params, found.last);
      if (next !== null) return { kind: 'tags', ...next };
      const n = params?.get('n');
      const last = params?.get('last');
      return {
        kind: 'tags',
        // A page size that is no number is left out, as if it had not been asked for.
        ...(n !== null && n !== undefined && /^\d{1,9}$/.test(n) ? { n: Number(n) } : {}),
        ...(last === null || last === undefined ? {} : { last }),
        ...extraOf(params, ['n', 'last']),
      };
    }
  }
}

/**
 * What has a colon can only be meant as a digest. A tag that cannot exist is one that is not there: the distribution-spec's conformance suite
 * and every registry answer so.
 * @throws {RegistryError} digestInvalid, manifestUnknown
 */
function referenceOf(text: string, key: RepositoryKey): Reference {
  const reference = parseReference(text);
  if (reference !== null) return reference;
  throw new RegistryError('manifestUnknown', { facts: { ...key, reference: shown(text) } });
}

function extraOf(params: URLSearchParams | undefined, known: readonly string[]): { extra?: Extra } {
  const own = ['ns', NEXT_MARK, TYPE_MARK, TRAIL_MARK, ...known];
  const extra = [...(params ?? [])].filter(([name]) => !own.includes(name));
  return extra.length === 0 ? {} : { extra };
}

/** The page to which an upstream's own link leads; null where the client follows none. */
function nextOf(
  query: string,
  params: URLSearchParams | undefined,
  own: string,
): { next: string; trail?: string } | null {
  const next = params?.has(NEXT_MARK) ? pageOfNext(query, own) : null;
  if (next === null) return null;
  const trail = parseTrail(params?.get(TRAIL_MARK) ?? null);
  return trail === '' ? { next } : { next, trail };
}
