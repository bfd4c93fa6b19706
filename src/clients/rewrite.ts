import { didYouMean } from '../kit/did-you-mean.ts';
import { canonicalRegistry, DOCKER_HUB, hasMixedCase } from '../oci/known-registries.ts';
import { isRegistryHost, isRepositoryName, isTag, patternExpression } from '../oci/names.ts';
import { authority, type ClientFacts } from './facts.ts';

/** What the rewriting of references needs to know of the gateway. */
export type RewriteFacts = Pick<
  ClientFacts,
  'scheme' | 'domain' | 'port' | 'ownNames' | 'aliases' | 'registries' | 'patterns'
>;

/** Why a reference stays as it is. */
export type NotRewritten =
  /** It goes through this gateway already. */
  | 'own'
  /** Its registry is not in the table. */
  | 'unknown-registry'
  /** Its registry has a port, which the path of an image name cannot hold, and no alias that could stand for it. */
  | 'needs-alias'
  /** Its registry or repository is a variable or a template: `${REGISTRY}/app`, `{{ .Values.image }}`. */
  | 'variable'
  /** `scratch`, the empty image that no registry has. */
  | 'scratch'
  /** 64 hexadecimal digits, `sha256:` before them or not: a local image's ID. */
  | 'image-id'
  /** No image reference. */
  | 'malformed';

/** What an image reference becomes through this gateway. */
export type Rewriting =
  | {
      readonly kind: 'rewritten';
      readonly from: string;
      /** What to write in its place. */
      readonly to: string;
      /** As the table names it. */
      readonly registry: string;
      /** Whether an alias's host took the registry's place, or the gateway's domain went before the whole name. */
      readonly by: 'alias' | 'prefix';
    }
  | {
      readonly kind: 'kept';
      readonly from: string;
      readonly why: NotRewritten;
      /** The registry that the reference names, where it names one. */
      readonly registry?: string;
      /** The registry of the table that was most likely meant. */
      readonly near?: string;
      /** The same for a person, in English: one sentence without its full stop. */
      readonly message: string;
    };

/** Transports that tools write before a reference (containers-transports(5), Helm, BuildKit); they stay. */
const TRANSPORT = /^(?:docker|oci|docker-image):\/\//;
/** What shells, Make, Compose, Helm, Kustomize and CI systems put in place of text: `${X}`, `$X`, `$(X)`, `{{ x }}`, `%X%`, `<x>`. */
const VARIABLE = /[$%<>]|\{\{|\}\}/;
/** A digest of any algorithm (distribution-spec, *Digest*). */
const DIGEST = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}$/;
const IMAGE_ID = /^[0-9a-f]{64}$/;
const HOST =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i;

/**
 * What an image reference becomes through this gateway: the host of its registry's alias in place of the registry where there is an alias with a
 * certificate, else the gateway's domain before the whole name. Tag and digest stay as they are, variables in them too.
 */
export function rewriteReference(reference: string, facts: RewriteFacts): Rewriting {
  const kept = (why: NotRewritten, message: string, more: { registry?: string; near?: string | undefined } = {}) => {
    const { registry, near } = more;
    return {
      kind: 'kept' as const,
      from: reference,
      why,
      message,
      ...(registry === undefined ? {} : { registry }),
      ...(near === undefined ? {} : { near }),
    };
  };
  const transport = TRANSPORT.exec(reference)?.[0] ?? '';
  const { name, version } = split(reference.slice(transport.length));
  if (name === 'scratch' && version === '') return kept('scratch', 'scratch is the empty image, which no registry has');
  if (IMAGE_ID.test(name) || (name === 'sha256' && IMAGE_ID.test(version.slice(1))))
    return kept('image-id', `${shown(name)} is the ID of a local image`);
  const parsed = parse(name);
  if (parsed === 'variable')
    return kept('variable', `${shown(name)} has variables without a value; what it names is not known`);
  if (parsed === null || !isVersion(version)) return kept('malformed', `${shown(reference)} is no image reference`);
  const { host, repository } = parsed;

  // A row of the table comes first: the domain may be localhost, and so may a registry at another port.
  const registry = registryIn(host, facts);
  if (registry === undefined) {
    if (isOwn(host, facts)) return kept('own', `${shown(reference)} goes through this gateway already`);
    const near = didYouMean(host, facts.registries);
    const meant = near === undefined ? '' : `; did you mean ${near}?`;
    return kept('unknown-registry', `${shown(host)} is not among this gateway's registries${meant}`, {
      registry: host,
      near,
    });
  }
  if (!isRepositoryName(hasMixedCase(registry) ? repository.toLowerCase() : repository))
    return kept('malformed', `${shown(reference)} is no image reference`);
  const place = placeOf(registry, facts);
  if (place === null)
    return kept('needs-alias', `${registry} has a port, which no image name can hold behind a host, and no alias`, {
      registry,
    });
  return {
    kind: 'rewritten',
    from: reference,
    to: `${transport}${place.prefix}/${withLibrary(registry, repository)}${version}`,
    registry,
    by: place.by,
  };
}

/**
 * What a name that goes through this gateway is upstream: `quay.cr.example.com/org/app` and `cr.example.com/quay.io/org/app` are `quay.io/org/app`. Null for
 * one that does not begin with a host of this gateway's.
 */
export function upstreamReference(reference: string, facts: RewriteFacts): string | null {
  const name = reference.replace(TRANSPORT, '');
  const slash = name.indexOf('/');
  const host = name.slice(0, Math.max(0, slash)).toLowerCase();
  if (!isRegistryHost(host) || registryIn(host, facts) !== undefined || !isOwn(host, facts)) return null;
  const rest = name.slice(slash + 1);
  const bare = host.replace(/:\d+$/, '');
  const alias = facts.aliases.find((one) => bare === one.host || host === one.host);
  if (alias !== undefined) return `${alias.registry}/${withLibrary(alias.registry, rest)}`;
  const first = rest.slice(0, Math.max(0, rest.indexOf('/')));
  return isRegistryHost(first) ? rest : `${DOCKER_HUB}/${withLibrary(DOCKER_HUB, rest)}`;
}

/**
 * What stands before a registry's repositories in names through this gateway: `quay.cr.example.com`, else `cr.example.com/quay.io`. Null where there is
 * no such name.
 */
export function placeOf(
  registry: string,
  facts: Pick<RewriteFacts, 'scheme' | 'domain' | 'port' | 'aliases'>,
): { readonly by: 'alias' | 'prefix'; readonly prefix: string } | null {
  const alias = facts.aliases.find((one) => one.registry === registry && one.certificate);
  const hasPort = registry.includes(':');
  // RFC 6761 §6.3 leads names below localhost to this machine, and the resolvers of most programs know localhost alone.
  const isFound = alias !== undefined && !alias.host.endsWith('.localhost');
  if (alias !== undefined && (isFound || hasPort)) return { by: 'alias', prefix: authority(facts, alias.host) };
  return hasPort ? null : { by: 'prefix', prefix: `${authority(facts)}/${registry}` };
}

/** The registry of the table that a host of image names means; undefined where it means none. */
export function registryIn(host: string, { registries, patterns }: RewriteFacts): string | undefined {
  const name = host.toLowerCase();
  if (registries.includes(name)) return name;
  const canonical = canonicalRegistry(name.replace(/:443$/, ''));
  if (registries.includes(canonical)) return canonical;
  return patterns.some((pattern) => patternExpression(pattern).test(canonical)) ? canonical : undefined;
}

/** Whether names that begin with this host lead to the gateway. On a local name only its own port does: other ports are other programs. */
function isOwn(host: string, facts: RewriteFacts): boolean {
  const name = host.toLowerCase();
  const own = [facts.domain, ...facts.ownNames, ...facts.aliases.map((alias) => alias.host)];
  if (own.some((one) => name === authority(facts, one))) return true;
  const bare = name.replace(/:\d+$/, '');
  return bare !== 'localhost' && !/^[\d.]+$|^\[/.test(bare) && own.includes(bare);
}

/** The name, and behind it the tag and the digest as they are written, `:` and `@` included. */
function split(text: string): { readonly name: string; readonly version: string } {
  const at = text.indexOf('@');
  const tagged = at < 0 ? text : text.slice(0, at);
  // A tag begins behind the last slash; a colon before it is a host's port.
  const colon = tagged.indexOf(':', lastSlash(tagged) + 1);
  const end = colon < 0 ? tagged.length : colon;
  return { name: text.slice(0, end), version: text.slice(end) };
}

/** The last slash outside of a variable: `${TAG:-a/b}` has slashes of its own. */
function lastSlash(text: string): number {
  const open = text.search(/:(?:\$|\{\{)/);
  return (open < 0 ? text : text.slice(0, open)).lastIndexOf('/');
}

function isVersion(version: string): boolean {
  if (version === '' || VARIABLE.test(version)) return true;
  const match = /^(?::([^@]*))?(?:@(.*))?$/s.exec(version);
  const [, tag, digest] = match ?? [];
  return match !== null && (tag === undefined || isTag(tag)) && (digest === undefined || DIGEST.test(digest));
}

/** Host and repository of a name; docker.io where it names no host (the rule of Docker's image names). */
function parse(name: string): { readonly host: string; readonly repository: string } | 'variable' | null {
  if (VARIABLE.test(name)) return 'variable';
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const [host, repository] = isRegistryHost(first) ? [first, name.slice(slash + 1)] : [DOCKER_HUB, name];
  if (!HOST.test(host) || !isRepositoryName(repository.toLowerCase())) return null;
  return { host, repository };
}

function withLibrary(registry: string, repository: string): string {
  return registry === DOCKER_HUB && !repository.includes('/') ? `library/${repository}` : repository;
}

/** Longest text that a message repeats. */
const SHOWN = 120;

function shown(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
