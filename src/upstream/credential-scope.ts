import { registeredDomain } from '../kit/registered-domain.ts';
import { bareHost } from './net/egress.ts';
import type { Route } from './upstream.ts';

/**
 * Suffixes under which a cloud gives each customer a name of its own, and which the public suffix list lacks. Alibaba's registries and their
 * token servers are below one name for each region, its customers' buckets and functions below others.
 */
const CLOUD_SUFFIXES = ['azurecr.io', 'azurecr.cn', 'azurecr.us', 'pkg.dev', 'jfrog.io', 'aliyuncs.com'];

/** Which hosts belong to a registry, as far as its credentials are concerned. */
export type CredentialScope = Pick<Route, 'host' | 'endpoints' | 'realms'>;

/**
 * Whether a token endpoint may be sent a registry's credentials: it is on the registry's own registrable domain, or the operator named it with
 * `--realm`. Where there is no such domain (addresses, single labels), it must be the same host. The operator wrote the registry's host
 * and its endpoints; what a registry names itself proves nothing.
 */
export function isOwnRealm(url: URL, scope: CredentialScope): boolean {
  const host = hostOf(url);
  return isNamed(url, scope) || ownHosts(scope).includes(host) || isOwnDomain(host, scope);
}

/**
 * The authorities of a registry's own (`--ca`) that are trusted for a URL: those hosts alone that may be sent its credentials as a realm, so its
 * endpoints, its own registrable domain and what `--realm` names. They vouch for no other host that it points to.
 */
export function authoritiesFor(url: URL, scope: CredentialScope & Pick<Route, 'ca'>): string | null {
  return scope.ca && isOwnRealm(url, scope) ? scope.ca : null;
}

/**
 * Whether a host that a redirect led to may be sent a registry's credentials when it asks for them. Stricter than for a realm: on an address,
 * another port is another service.
 */
export function isOwnTarget(url: URL, endpoint: URL, scope: CredentialScope): boolean {
  return url.origin === endpoint.origin || isNamed(url, scope) || isOwnDomain(hostOf(url), scope);
}

function isNamed(url: URL, { realms }: CredentialScope): boolean {
  return realms.some((realm) => {
    const named = new URL(`${url.protocol}//${realm}`);
    // A realm without a port means every port of its host; the default port is one that was written, too.
    return named.hostname === url.hostname && (!/:\d+$/.test(realm) || named.port === url.port);
  });
}

function isOwnDomain(host: string, scope: CredentialScope): boolean {
  const domain = registrableDomain(host);
  return domain !== null && ownHosts(scope).some((own) => registrableDomain(own) === domain);
}

function ownHosts({ host, endpoints }: CredentialScope): string[] {
  return [new URL(`https://${host}`), ...endpoints.map((text) => new URL(text))].map(hostOf);
}

/** `localhost` and the two addresses that it has (RFC 6761 §6.3) are one host. Other loopback addresses are not it. */
function hostOf(url: URL): string {
  const host = bareHost(url.hostname);
  return host === '127.0.0.1' || host === '::1' ? 'localhost' : host;
}

/** The part of a name that one owner registered; null for addresses, single labels and public suffixes. */
export function registrableDomain(host: string): string | null {
  const suffix = CLOUD_SUFFIXES.find((one) => host.endsWith(`.${one}`));
  if (suffix === undefined) return registeredDomain(host);
  const labels = host.slice(0, -suffix.length - 1).split('.');
  return `${labels.at(-1)}.${suffix}`;
}
