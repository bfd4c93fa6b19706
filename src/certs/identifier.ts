import { isIPv6, parseAddress } from '../kit/networks.ts';

/** What a certificate is ordered for, as an ACME order names it (RFC 8555 §9.7.7, RFC 8738 §3). */
export interface Identifier {
  readonly type: 'dns' | 'ip';
  readonly value: string;
}

/** @param host a host name (or `*.…`), or an IP address in its canonical text (RFC 5952) */
export function identifierOf(host: string): Identifier {
  return { type: isAddress(host) ? 'ip' : 'dns', value: host };
}

/** Whether a host is an IP address: its certificate has an `iPAddress` name, and there is no DNS record for it. */
export function isAddress(host: string): boolean {
  return parseAddress(host) !== null;
}

/**
 * The server name (SNI) by which a CA asks for the TLS-ALPN-01 certificate of a host: since an address is no server name, its reverse name
 * (RFC 8738 §6): `7.113.0.203.in-addr.arpa`.
 */
export function alpnServerName(host: string): string {
  const address = parseAddress(host);
  if (address === null) return host;
  const bytes = address.toByteArray();
  if (!isIPv6(address)) return `${bytes.reverse().join('.')}.in-addr.arpa`;
  const nibbles = bytes.flatMap((byte) => [byte >> 4, byte & 15]);
  return `${nibbles
    .reverse()
    .map((nibble) => nibble.toString(16))
    .join('.')}.ip6.arpa`;
}
