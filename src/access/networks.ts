import ipaddr from 'ipaddr.js';

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Network = readonly [Address, number];

/** First bits of an IPv6 address that name one customer's network (RFC 6177); within it a client takes any address it likes. */
const CLIENT_PREFIX_V6 = 64;

/** Addresses whose network is remembered: reading one costs more than all else that a small request asks of the limits. */
const MAX_KNOWN = 4096;
const networks = new Map<string, string>();

/** `access.allow` and `access.deny`: deny wins; where `allow` names anything, nothing else may come in. */
export class NetworkRules {
  readonly #allow: readonly Network[];
  readonly #deny: readonly Network[];

  /** CIDRs as the configuration gives them, already checked. */
  constructor(rules: { readonly allow: readonly string[]; readonly deny: readonly string[] }) {
    this.#allow = rules.allow.map(parseNetwork);
    this.#deny = rules.deny.map(parseNetwork);
  }

  /** An address that cannot be read passes only where there are no rules. */
  allows(address: string): boolean {
    if (this.#allow.length === 0 && this.#deny.length === 0) return true;
    if (!ipaddr.isValid(address)) return false;
    const parsed = ipaddr.process(address);
    if (contains(this.#deny, parsed)) return false;
    return this.#allow.length === 0 || contains(this.#allow, parsed);
  }
}

/** What counts as one client where nobody logged in: an IPv4 address, or the /64 of an IPv6 address. */
export function clientNetwork(address: string): string {
  const known = networks.get(address);
  if (known !== undefined) return known;
  if (networks.size >= MAX_KNOWN) networks.clear();
  const network = networkOf(address);
  networks.set(address, network);
  return network;
}

function networkOf(address: string): string {
  if (!ipaddr.isValid(address)) return 'unknown';
  const parsed = ipaddr.process(address);
  if (!isV6(parsed)) return parsed.toString();
  const parts = parsed.parts.map((part, index) => (index < CLIENT_PREFIX_V6 / 16 ? part : 0));
  return `${new ipaddr.IPv6(parts).toString()}/${CLIENT_PREFIX_V6}`;
}

function contains(rules: readonly Network[], address: Address): boolean {
  return rules.some(([network, bits]) => network.kind() === address.kind() && address.match(network, bits));
}

/** Rules may be written for IPv4 addresses mapped into IPv6; addresses are always compared as IPv4. */
function parseNetwork(text: string): Network {
  const [network, bits] = ipaddr.parseCIDR(text);
  return isV6(network) && network.isIPv4MappedAddress() && bits >= 96
    ? [network.toIPv4Address(), bits - 96]
    : [network, bits];
}

function isV6(address: Address): address is ipaddr.IPv6 {
  return address.kind() === 'ipv6';
}
