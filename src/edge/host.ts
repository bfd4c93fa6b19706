import { isIP } from 'node:net';
import type { AliasEntry, TableSnapshot } from '../aliases/table.ts';

/** What a host name stands for. */
export type HostRole =
  /** The configured domain, an IP address, or `localhost`. */
  { readonly kind: 'bare' } | { readonly kind: 'alias'; readonly alias: AliasEntry } | { readonly kind: 'unknown' };

const BARE: HostRole = { kind: 'bare' };
const UNKNOWN: HostRole = { kind: 'unknown' };

/**
 * A Host header or `:authority` without its port and trailing dot, in lower case; an IPv6 address without its brackets.
 * Empty where none was sent (HTTP/1.0).
 */
export function hostName(header: string | undefined): string {
  if (header === undefined) return '';
  let host = header.trim();
  if (host.startsWith('[')) {
    const end = host.indexOf(']');
    return end < 0 ? host : host.slice(1, end).toLowerCase();
  }
  const colon = host.indexOf(':');
  if (colon >= 0) host = host.slice(0, colon);
  if (host.endsWith('.')) host = host.slice(0, -1);
  return host.toLowerCase();
}

/** `host` is what `hostName` returned. A request without a host can only have come by address. */
export function roleOf(host: string, table: TableSnapshot): HostRole {
  if (host === table.domain) return BARE;
  const alias = table.hosts.get(host);
  if (alias !== undefined) return { kind: 'alias', alias };
  if (host === '' || host === 'localhost' || isIP(host) !== 0) return BARE;
  return UNKNOWN;
}
