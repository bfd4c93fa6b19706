import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { parseProxy } from '../config/values.ts';
import { parseAuthorities } from '../kit/authorities.ts';
import { normaliseHostName } from '../kit/host-name.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Credentials } from '../oci/credentials.ts';
import { canonicalRegistry, isDockerHubSite } from '../oci/known-registries.ts';
import { isPattern, isRepositoryName } from '../oci/names.ts';
import { applyNamed, type NamedCredentialsChange, parseCredentials, sameNamed } from './registry-credentials.ts';
import type { RegistryEntry, TableSnapshot } from './table.ts';

/** RFC 1035 §2.3.4, without the final dot. */
const MAX_HOST = 253;
/** No registry API answers at docker.io itself. */
const DEFAULT_ENDPOINTS: Readonly<Record<string, string>> = { 'docker.io': 'https://registry-1.docker.io' };

/**
 * An alias as a person typed it: a DNS label, or a full host name, lower-cased, IDN in punycode.
 * The full name of a label under the domain is the same alias as the label.
 * @throws {OperatorError} usage, `NAME_INVALID`
 */
export function parseAliasName(text: string, domain: string): { name: string; host: string } {
  const refuse = (
    problem: string,
    next = 'use a label such as k8s-gcr, or a full host name such as hub.corp.example',
  ) => new OperatorError('NAME_INVALID', `the alias "${shown(text)}" ${problem}`, { next });
  if (isIP(text.replace(/^\[|\]$/g, '')) !== 0) throw refuse('is an IP address; an alias is a name');
  const result = normaliseHostName(text);
  if ('problem' in result) throw refuse(result.problem);
  const full = result.host;
  if (full === domain) throw refuse('is the domain of this gateway itself');
  if (full === 'localhost') throw refuse('always leads to the gateway itself');
  const suffix = `.${domain}`;
  const name = full.endsWith(suffix) ? full.slice(0, -suffix.length) : full;
  if (name !== full && name.includes('.')) {
    throw refuse(
      `has more than one label under the domain ${domain}, where a wildcard DNS record does not reach`,
      `use one label, such as ${name.replaceAll('.', '-')}`,
    );
  }
  const host = aliasHost(name, domain);
  if (host.length > MAX_HOST)
    throw refuse(`makes the host name ${host.length} characters long, and ${MAX_HOST} are the most`);
  return { name, host };
}

/** The host that an alias (as stored) has under this domain. */
export function aliasHost(name: string, domain: string): string {
  return name.includes('.') ? name : `${name}.${domain}`;
}

/** Whether an alias has no host of its own: a label has none below a domain that is an IP address. Its registry is pulled by prefix all the same. */
export function isHostless(name: string, domain: string): boolean {
  return isIP(domain) !== 0 && !name.includes('.');
}

/** Labels that a pattern has to end with: `*.dev` would be half the internet. */
const PATTERN_LABELS = 2;

/**
 * A registry as image names start with it: a host with a dot, or with a port, or `localhost`; lower-cased, IDN in punycode. Or a pattern of
 * such hosts, in which `*` stands for one label: `*.pkg.dev`, `*.dkr.ecr.*.amazonaws.com`.
 * @throws {OperatorError} usage, `REGISTRY_INVALID`
 */
export function parseRegistryHost(text: string): string {
  const refuse = (problem: string) =>
    new OperatorError('REGISTRY_INVALID', `the registry "${shown(text)}" ${problem}`, {
      next: 'write it as image names start: quay.io, or registry.corp.example:5000',
    });
  if (text.includes('://')) throw refuse('is a URL; a registry is only the host (URLs are given with --endpoint)');
  if (text.includes('/')) throw refuse('has a path; a registry is only the host, with a port if need be');
  if (isPattern(text)) return parsePattern(text, refuse);
  const whole = hostWithPort(text, refuse);
  if (isDockerHubSite(whole)) throw refuse('is a web site; its images are those of the registry docker.io');
  if (!whole.includes('.') && !whole.includes(':') && whole !== 'localhost') {
    throw refuse('has neither a dot nor a port, so image names cannot tell it from a part of their path');
  }
  return whole;
}

function parsePattern(text: string, refuse: (problem: string) => OperatorError): string {
  const labels = text.split('.');
  if (labels.some((label) => label !== '*' && isPattern(label)))
    throw refuse('has a star beside other characters; a star stands for a whole label, as in *.pkg.dev');
  if (labels.slice(-PATTERN_LABELS).some(isPattern) || labels.length <= PATTERN_LABELS)
    throw refuse('would match hosts of anybody; a pattern ends with a whole domain, as in *.pkg.dev');
  // The rest is checked as any host is: with a label in the place of each star.
  const STAND_IN = 'star-of-a-pattern';
  const whole = hostWithPort(labels.map((label) => (label === '*' ? STAND_IN : label)).join('.'), refuse);
  return whole.replaceAll(STAND_IN, '*');
}

/** The row of a table that a registry's name means: one of that very name, else that of the registry's one name. */
export function registryKey(text: string, registries: TableSnapshot['registries']): string {
  const host = parseRegistryHost(text);
  return registries.has(host) ? host : canonicalRegistry(host);
}

/** A host in its one stored form, with its port if it has one. */
function hostWithPort(text: string, refuse: (problem: string) => OperatorError): string {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(.*))?$/s.exec(text);
  if (match === null) throw refuse('is no host with an optional port; an IPv6 address stands in brackets');
  const [, hostPart = '', port] = match;
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65_535)) {
    throw refuse('has no port from 1 to 65535 after the colon');
  }
  const host = plainHost(hostPart, refuse);
  return port === undefined ? host : `${host}:${Number(port)}`;
}

function plainHost(text: string, refuse: (problem: string) => OperatorError): string {
  if (text.startsWith('[')) {
    const address = text.slice(1, -1);
    if (isIP(address) !== 6) throw refuse('has no IPv6 address in its brackets');
    return `[${ipaddr.parse(address).toString()}]`;
  }
  if (isIP(text) === 4) return text;
  const result = normaliseHostName(text);
  if ('problem' in result) throw refuse(result.problem);
  return result.host;
}

/**
 * A URL under which `/v2/` is found, or, where its path begins with that, a project: `https://harbor.example/v2/proxy-hub`. Trailing slashes
 * are dropped.
 * @throws {OperatorError} usage, `ENDPOINT_INVALID`; a password in it is not repeated.
 */
export function parseEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const secret = url !== undefined && (url.username !== '' || url.password !== '');
  const refuse = (problem: string) =>
    new OperatorError('ENDPOINT_INVALID', `the endpoint ${secret ? `at ${url.host}` : `"${shown(text)}"`} ${problem}`, {
      next: 'write it like https://registry-1.docker.io or http://10.0.0.5:5000',
    });
  if (url === undefined) throw refuse(text === '' ? 'is empty' : 'is not a URL');
  if (url.protocol !== 'https:' && url.protocol !== 'http:') throw refuse('does not start with https:// or http://');
  if (secret) throw refuse('has a user or password in it; give those with --username and --password-stdin');
  if (text.includes('?')) throw refuse('has a query');
  if (text.includes('#')) throw refuse('has a fragment');
  // Slashes too many around it are as people join URLs; within it they name nothing.
  const path = url.pathname.replace(/^\/+(v2\/+)?/, (_, api) => (api ? '/v2/' : '/')).replace(/\/+$/, '');
  const trimmed = `${url.origin}${path}`;
  const project = /^\/v2\/(.+)$/.exec(path)?.[1];
  // A path that begins with /v2/ is a part of each repository's name there (src/upstream/endpoint-url.ts). A pattern's star is a host's.
  if (project !== undefined && !isRepositoryName(project.replaceAll('*', 'star')))
    throw refuse(`has the project "${project}" behind /v2/, which can be no part of a repository's name`);
  if (project === undefined && trimmed.endsWith('/v2'))
    throw refuse('ends with /v2, which the gateway adds itself: leave it out');
  return trimmed;
}

/** Parses each, and drops repetitions. @throws {OperatorError} usage */
export function parseEndpoints(texts: readonly string[]): string[] {
  return [...new Set(texts.map(parseEndpoint))];
}

/** The endpoints of a registry for which none were given. */
export function defaultEndpoints(registry: string): string[] {
  return [DEFAULT_ENDPOINTS[registry] ?? `https://${registry}`];
}

/**
 * A host that may be sent a registry's credentials: a name or an address, with a port where only that one is meant.
 * @throws {OperatorError} usage, `REALM_INVALID`
 */
export function parseRealm(text: string): string {
  const refuse = (problem: string) =>
    new OperatorError('REALM_INVALID', `the realm "${shown(text)}" ${problem}`, {
      next: 'write the host alone, as in auth.example.com or auth.example.com:8443',
    });
  if (text.includes('://') || text.includes('/')) throw refuse('is a URL; a realm is only the host');
  return hostWithPort(text, refuse);
}

/** Parses each, and drops repetitions. @throws {OperatorError} usage */
function parseRealms(texts: readonly string[]): string[] {
  return [...new Set(texts.map(parseRealm))];
}

/** @throws {OperatorError} usage, `PROXY_INVALID`; the URL is not repeated, since it may hold a password. */
export function parseRegistryProxy(text: string): string {
  try {
    return parseProxy(text);
  } catch (error) {
    throw new OperatorError('PROXY_INVALID', `the proxy ${(error as Error).message}`, {
      next: 'write it like http://proxy.example:3128 or socks5h://127.0.0.1:1080',
    });
  }
}

/** The certificates of a PEM text alone. @throws {OperatorError} usage, `CA_INVALID` */
export function parseCa(text: string): string {
  try {
    return parseAuthorities(text);
  } catch (error) {
    throw new OperatorError('CA_INVALID', `the authority's file ${(error as Error).message}`, {
      next: 'give a PEM file with the certificate of the authority that signs for that registry',
      cause: error,
    });
  }
}

function shown(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

/** What is left out stays as it is; null takes it away. */
export interface RegistrySettings {
  readonly endpoints?: readonly string[] | undefined;
  readonly proxy?: string | null | undefined;
  readonly credentials?: Credentials | null | undefined;
  /** One of those for some of its repositories. */
  readonly named?: NamedCredentialsChange | undefined;
  readonly public?: boolean | undefined;
  readonly realms?: readonly string[] | undefined;
  readonly ca?: string | null | undefined;
}

export function newRegistry(host: string): RegistryEntry {
  return {
    host,
    endpoints: defaultEndpoints(host),
    proxy: null,
    credentials: null,
    named: [],
    public: false,
    realms: [],
    ca: null,
  };
}

export function applySettings(entry: RegistryEntry, settings: RegistrySettings): RegistryEntry {
  const { endpoints, proxy, credentials, named, public: open, realms, ca } = settings;
  const { host } = entry;
  if (isPattern(host) && (credentials || named)) {
    throw new OperatorError(
      'CREDENTIALS_INVALID',
      `${host} is a pattern: whoever owns a host that matches it would be sent them`,
      {
        next: 'give them to a registry of its own: gateway registry set HOST --username U --password-stdin',
      },
    );
  }
  // Without its pattern: what is set is a row of its own.
  return {
    host,
    endpoints: endpoints === undefined || endpoints.length === 0 ? entry.endpoints : endpointsOf(host, endpoints),
    proxy: proxy === undefined ? entry.proxy : proxy === null ? null : parseRegistryProxy(proxy),
    credentials:
      credentials === undefined ? entry.credentials : credentials === null ? null : parseCredentials(credentials),
    named: named === undefined ? entry.named : applyNamed(entry, named),
    public: open ?? entry.public,
    realms: realms === undefined ? entry.realms : parseRealms(realms),
    ca: ca === undefined ? entry.ca : ca === null ? null : parseCa(ca),
  };
}

/** Those of a pattern have it where the host belongs, and no others have stars. @throws {OperatorError} usage, `ENDPOINT_INVALID` */
function endpointsOf(host: string, texts: readonly string[]): string[] {
  const endpoints = parseEndpoints(texts);
  const wrong = endpoints.find((endpoint) =>
    isPattern(host) ? !endpoint.includes(host) : isPattern(new URL(endpoint).host),
  );
  if (wrong === undefined) return endpoints;
  if (!isPattern(host)) {
    throw new OperatorError(
      'ENDPOINT_INVALID',
      `the endpoint ${wrong} has a star in its host, and ${host} is no pattern`,
    );
  }
  throw new OperatorError('ENDPOINT_INVALID', `the endpoint ${wrong} is the same for every host that matches ${host}`, {
    next: `write the pattern where the host belongs: https://${host}, or https://mirror.example/${host}`,
  });
}

export function sameList(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((item, index) => item === other[index]);
}

export function sameRegistry(one: RegistryEntry, other: RegistryEntry | undefined): boolean {
  return (
    other !== undefined &&
    sameList(one.endpoints, other.endpoints) &&
    one.proxy === other.proxy &&
    one.public === other.public &&
    sameList(one.realms, other.realms) &&
    one.ca === other.ca &&
    one.credentials?.username === other.credentials?.username &&
    one.credentials?.password === other.credentials?.password &&
    sameNamed(one.named, other.named)
  );
}

export function withoutPassword(proxy: string): string {
  const url = new URL(proxy);
  if (url.password === '') return proxy;
  url.password = '';
  return url.href.replace(/\/$/, '');
}
