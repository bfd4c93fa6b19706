import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { LRUCache } from 'lru-cache';

export type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** Bits before the IPv4 address in an IPv4-mapped IPv6 address, `::ffff:192.0.2.1` (RFC 4291 §2.5.5.2). */
const MAPPED_PREFIX = 96;

/**
 * An IP address as the sockets and headers write it; null where the text is none. An IPv4-mapped IPv6 address becomes the IPv4 address
 * that it stands for, so that a dual-stack listener and an IPv4 listener see the same client.
 */
export function parseAddress(text: string): Address | null {
  // Node's check: ipaddr.js alone also takes octal, hexadecimal and shortened forms, which other programs read differently.
  return isIP(text) === 0 ? null : ipaddr.process(text);
}

/** Whether an address of either family is an IPv6 address. */
export function isIPv6(address: Address): address is ipaddr.IPv6 {
  return address.kind() === 'ipv6';
}

/**
 * Whether an address is globally reachable: one that any machine of the internet can connect to, and that a CA may certify. None of IANA's
 * special-purpose registries is (RFC 6890: private, CGN, documentation, benchmarks …), nor what leads elsewhere through a translator or a tunnel
 * (NAT64, 6to4, Teredo), nor IPv6 outside of 2000::/3, which nobody has been given yet (RFC 4291 §2.4).
 */
export function isGlobalAddress(address: Address): boolean {
  return address.range() === 'unicast' && (!isIPv6(address) || (address.parts[0] ?? 0) >> 13 === 1);
}

/** The same of a text; false too for one that is no address. */
export function isGlobalIP(text: string): boolean {
  const address = parseAddress(text);
  return address !== null && isGlobalAddress(address);
}

/** How URLs, Host headers and image names write a host: IPv6 addresses in brackets. */
export function bracketed(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host;
}

/**
 * The IPv4 address that an IPv6 address stands for where a gateway between the two families wrote it: NAT64 (RFC 6052, RFC 8215), stateless
 * translation (RFC 6145), 6to4 (RFC 3056) and Teredo (RFC 4380, which inverts its bits). Null for every other.
 */
export function embeddedIPv4(address: ipaddr.IPv6): ipaddr.IPv4 | null {
  const { parts } = address;
  const at = (index: number, inverted = 0): ipaddr.IPv4 => {
    const [high, low] = [(parts[index] ?? 0) ^ inverted, (parts[index + 1] ?? 0) ^ inverted];
    return new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff]);
  };
  switch (address.range()) {
    case 'rfc6052': {
      // A prefix shorter than the usual 96 bits has its IPv4 address elsewhere, and nothing in these.
      const last = at(6);
      return last.toString() === '0.0.0.0' ? null : last;
    }
    case 'rfc6145':
      return at(6);
    case '6to4':
      return at(1);
    case 'teredo':
      return at(6, 0xffff);
    default:
      return null;
  }
}

/** A network in CIDR notation (RFC 4632), or a single address. */
export class Network {
  readonly #address: Address;
  readonly #bits: number;
  /** Holds every IPv4 address beside the IPv6 addresses that it names. */
  readonly #allIPv4: boolean;

  private constructor(address: Address, bits: number) {
    const mapped = isIPv6(address) && address.isIPv4MappedAddress();
    this.#address = mapped && bits >= MAPPED_PREFIX ? address.toIPv4Address() : address;
    this.#bits = mapped && bits >= MAPPED_PREFIX ? bits - MAPPED_PREFIX : bits;
    // `::ffff:0:0/90` contains the whole mapped range. `::/0` does too, but whoever writes it means IPv6 and has `0.0.0.0/0` for the rest.
    this.#allIPv4 = mapped && bits < MAPPED_PREFIX;
  }

  /** `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`, `::ffff:10.0.0.0/104`; null where the text is none of these. */
  static parse(text: string): Network | null {
    const [address = '', bits, ...rest] = text.split('/');
    const family = isIP(address);
    if (family === 0 || rest.length > 0) return null;
    const width = family === 4 ? 32 : 128;
    const length = bits === undefined ? width : Number(bits);
    if (bits !== undefined && (!/^\d{1,3}$/.test(bits) || length > width)) return null;
    return new Network(ipaddr.parse(address), length);
  }

  contains(address: Address): boolean {
    if (this.#allIPv4 && !isIPv6(address)) return true;
    return address.kind() === this.#address.kind() && address.match(this.#address, this.#bits);
  }
}

/** Addresses for which a list remembers its answer: to parse an address costs more than everything else that a small request needs it for. */
const REMEMBERED = 1024;

/** A list of networks, such as `access.allow` or `trustedProxies`. */
export class NetworkList {
  readonly #networks: readonly Network[];
  /** Null for an empty list, which contains nothing. */
  readonly #answers: LRUCache<string, boolean> | null;

  /** @throws {Error} where a text is no network; the configuration has checked its own. */
  constructor(texts: readonly string[]) {
    this.#networks = texts.map((text) => {
      const network = Network.parse(text);
      if (network === null) throw new Error(`"${text}" is not a network`);
      return network;
    });
    this.#answers = texts.length === 0 ? null : new LRUCache({ max: REMEMBERED });
  }

  get isEmpty(): boolean {
    return this.#answers === null;
  }

  /** False too for a text that is no address. */
  contains(address: string): boolean {
    if (this.#answers === null) return false;
    let answer = this.#answers.get(address);
    if (answer === undefined) {
      const parsed = parseAddress(address);
      answer = parsed !== null && this.#networks.some((network) => network.contains(parsed));
      this.#answers.set(address, answer);
    }
    return answer;
  }
}
