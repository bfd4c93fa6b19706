import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { LRUCache } from 'lru-cache';
import { isIPv6, NetworkList, parseAddress } from '../kit/networks.ts';

/** First bits of an IPv6 address that name one customer's network (RFC 6177); within it the customer chooses addresses freely. */
const CLIENT_PREFIX_V6 = 64;

/** Networks of the addresses seen last: parsing an address costs more than everything else that the limits do for a small request. */
const networks = new LRUCache<string, string>({ max: 4096 });

/** `access.allow` and `access.deny`: deny wins; where `allow` names anything, nothing else may come in. */
export class NetworkRules {
  readonly #allow: NetworkList;
  readonly #deny: NetworkList;

  /** CIDRs as the configuration gives them, already checked. */
  constructor(rules: { readonly allow: readonly string[]; readonly deny: readonly string[] }) {
    this.#allow = new NetworkList(rules.allow);
    this.#deny = new NetworkList(rules.deny);
  }

  /** An address that cannot be read passes only where there are no rules. */
  allows(address: string): boolean {
    if (this.#allow.isEmpty && this.#deny.isEmpty) return true;
    if (this.#deny.contains(address)) return false;
    return this.#allow.isEmpty ? isIP(address) !== 0 : this.#allow.contains(address);
  }
}

/** What counts as one client without credentials: an IPv4 address, or the /64 of an IPv6 address. */
export function clientNetwork(address: string): string {
  let network = networks.get(address);
  if (network === undefined) {
    network = networkOf(address);
    networks.set(address, network);
  }
  return network;
}

function networkOf(address: string): string {
  const parsed = parseAddress(address);
  if (parsed === null) return 'unknown';
  if (!isIPv6(parsed)) return parsed.toString();
  const parts = parsed.parts.map((part, index) => (index < CLIENT_PREFIX_V6 / 16 ? part : 0));
  return `${new ipaddr.IPv6(parts).toString()}/${CLIENT_PREFIX_V6}`;
}
