import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { parseAddress } from '../kit/networks.ts';

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
  const parsed = parseAddress(address);
  if (parsed === null) return 'invalid';
  const range = parsed.range();
  // RFC 6052 §2.1, `64:ff9b::/96`: a NAT64 gateway leads to the IPv4 address in the last 32 bits, so that one is judged.
  if (range === 'rfc6052') return ipaddr.fromByteArray(parsed.toByteArray().slice(12)).range();
  return range;
}
