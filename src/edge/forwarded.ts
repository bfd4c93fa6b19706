import type { IncomingHttpHeaders } from 'node:http';
import { NetworkList, parseAddress } from '../kit/networks.ts';

/** What the connection and, where its peer is trusted, `X-Forwarded-*` say about the client. */
export interface Client {
  /** IPv4 also where it came mapped into IPv6. */
  readonly address: string;
  /** `X-Forwarded-Host` of a trusted proxy; undefined: the request's own host counts. */
  readonly host: string | undefined;
  /** `X-Forwarded-Proto: https` of a trusted proxy. */
  readonly https: boolean;
}

/** Believes `X-Forwarded-*` from the configured networks only (`trustedProxies`). */
export class ForwardedHeaders {
  readonly #trusted: NetworkList;

  /** CIDRs or single addresses, already checked by the configuration. */
  constructor(trustedProxies: readonly string[]) {
    this.#trusted = new NetworkList(trustedProxies);
  }

  read(peer: string, headers: IncomingHttpHeaders): Client {
    if (!this.trusts(peer)) return { address: peer, host: undefined, https: false };
    return {
      address: this.#clientOf(peer, headers['x-forwarded-for']),
      host: first(headers['x-forwarded-host']),
      https: first(headers['x-forwarded-proto'])?.toLowerCase() === 'https',
    };
  }

  trusts(address: string): boolean {
    return this.#trusted.contains(address);
  }

  /** From the right, the first address that is no trusted proxy: what lies left of it anyone may have written. */
  #clientOf(peer: string, header: string | string[] | undefined): string {
    const hops = (Array.isArray(header) ? header.join(',') : (header ?? '')).split(',');
    let client = peer;
    for (const hop of hops.reverse()) {
      const address = hop.trim();
      if (parseAddress(address) === null) break;
      client = plainAddress(address);
      if (!this.trusts(client)) break;
    }
    return client;
  }
}

/** An address as a person writes it: `::ffff:192.0.2.1` is `192.0.2.1`. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') ? (parseAddress(address)?.toString() ?? address) : address;
}

function first(header: string | string[] | undefined): string | undefined {
  const value = (Array.isArray(header) ? header[0] : header)?.split(',')[0]?.trim();
  return value === '' ? undefined : value;
}
