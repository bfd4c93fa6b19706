import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/**
 * How far a connection may reach. `operator`: the operator named this host, anything goes. `inside`: a registry within a
 * private network pointed here. `public`: a registry on the internet pointed here, and must not lead into our network.
 */
export type Reach = 'operator' | 'inside' | 'public';

/** Where a registry in a private network may point to as well. Link-local (cloud metadata) and multicast are never among them. */
const INSIDE = new Set([
  'unicast',
  'private',
  'loopback',
  'uniqueLocal',
  'carrierGradeNat',
  'reserved',
  'benchmarking',
]);

/** Names that mean this machine or this network, whatever a resolver elsewhere makes of them (RFC 6761, 6762, 8375). */
const INSIDE_NAME = /(^|\.)(localhost|local|internal|home\.arpa)$/;

export function mayReach(reach: Reach, address: string): boolean {
  if (reach === 'operator') return true;
  const range = rangeOf(address);
  return reach === 'inside' ? INSIDE.has(range) : range === 'unicast';
}

/** What can be checked without resolving: literal addresses and names that are never public. For proxies that resolve there. */
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
  if (!ipaddr.isValid(address)) return 'invalid';
  // An IPv4 address may come dressed as IPv6 in several ways; each is judged by what it reaches.
  const parsed = ipaddr.parse(address);
  if (parsed.kind() === 'ipv4') return parsed.range();
  const v6 = parsed as ipaddr.IPv6;
  if (v6.isIPv4MappedAddress()) return v6.toIPv4Address().range();
  const range = v6.range();
  if (range === 'rfc6052') return ipaddr.fromByteArray(v6.toByteArray().slice(12)).range();
  return range;
}
