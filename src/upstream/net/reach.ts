import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { parseAddress } from '../../kit/networks.ts';

/**
 * Which addresses a connection may lead to.
 * - `operator`: the operator named this host, so any address.
 * - `inside`: a registry in a private network pointed here (a redirect, a token realm), so private and public addresses.
 * - `public`: a registry on the internet pointed here, so public addresses only: it must not lead requests into our network (SSRF).
 */
export type Reach = 'operator' | 'inside' | 'public';

/** A host with no address that the request may be sent to, though an upstream pointed to it. */
export class ForbiddenAddressError extends Error {
  override readonly name = 'ForbiddenAddressError';
  readonly code = 'EADDRFORBIDDEN';
}

/** A redirect that is not followed; the message says why, without the signature that its URL may carry. */
export class RedirectError extends Error {
  override readonly name = 'RedirectError';
}

/** Ranges (as ipaddr.js names them) that `inside` allows. Link-local, where clouds serve their metadata, and multicast are never among them. */
const INSIDE_RANGES = new Set([
  'unicast',
  'private',
  'loopback',
  'uniqueLocal',
  'carrierGradeNat',
  'reserved',
  'benchmarking',
]);

/** Names that mean this machine or this network, whatever a resolver elsewhere answers for them (RFC 6761, 6762, 8375). */
const INSIDE_NAME = /(^|\.)(localhost|local|internal|home\.arpa)$/;

export function mayReach(reach: Reach, address: string): boolean {
  if (reach === 'operator') return true;
  const range = rangeOf(address);
  return reach === 'inside' ? INSIDE_RANGES.has(range) : range === 'unicast';
}

/** What can be checked without resolving, for proxies that resolve themselves: literal addresses, and names that are never public. */
export function mayName(reach: Reach, host: string): boolean {
  if (reach === 'operator') return true;
  const name = bareHost(host);
  if (isIP(name) !== 0) return mayReach(reach, name);
  return reach === 'inside' || !isInsideName(name);
}

export function isInsideName(host: string): boolean {
  const name = bareHost(host).replace(/\.$/, '');
  return INSIDE_NAME.test(name) || !name.includes('.');
}

export function isInsideAddress(address: string): boolean {
  return rangeOf(address) !== 'unicast';
}

/** Host of a URL as the socket layer wants it: IPv6 without brackets, lower case. */
export function bareHost(host: string): string {
  return host.replace(/^\[|\]$/g, '').toLowerCase();
}

function rangeOf(address: string): string {
  const parsed = parseAddress(address);
  if (parsed === null) return 'invalid';
  const range = parsed.range();
  // RFC 6052 §2.1, `64:ff9b::/96`: a NAT64 gateway leads to the IPv4 address in the last 32 bits, so that one is judged.
  if (range === 'rfc6052') return ipaddr.fromByteArray(parsed.toByteArray().slice(12)).range();
  return range;
}

/** Registries redirect once, to a CDN; registry.k8s.io and cr.l5d.io twice. */
export const MAX_REDIRECTS = 5;

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

export function isRedirect(status: number): boolean {
  return REDIRECTS.has(status);
}

/**
 * The URL that a `Location` names (RFC 9110 §10.2.2: absolute or relative), checked as `checkTarget` does.
 * @throws {RedirectError}
 */
export function follow(location: string | undefined, from: URL, endpoint: URL): URL {
  if (location === undefined || !URL.canParse(location, from.href)) throw new RedirectError('a redirect without a URL');
  const url = new URL(location, from);
  checkTarget(url, endpoint, 'a redirect');
  url.hash = '';
  return url;
}

/**
 * What an upstream points to is hostile until checked: plain http only where the operator's endpoint is plain http itself, and no user info.
 * @throws {RedirectError} for a URL that must not be requested
 */
export function checkTarget(url: URL, endpoint: URL, what: string): void {
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && endpoint.protocol === 'http:')) {
    throw new RedirectError(`${what} to ${url.protocol}//${url.host}, which is not https`);
  }
  if (url.username !== '' || url.password !== '')
    throw new RedirectError(`${what} to ${url.host} with a password in its URL`);
}

/** How far a request to `url` may reach that is made on behalf of an endpoint which the operator named. */
export function reachOf(url: URL, endpoint: URL, connections: { isInside(url: URL): boolean }): Reach {
  if (url.origin === endpoint.origin) return 'operator';
  return connections.isInside(endpoint) ? 'inside' : 'public';
}
