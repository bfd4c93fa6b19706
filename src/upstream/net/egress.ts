import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { isGlobalAddress, Network, parseAddress } from '../../kit/networks.ts';
import { RedirectError } from '../failures.ts';

// Where outgoing connections may lead, and through which proxy.

/**
 * Which addresses a connection may lead to.
 * - `operator`: the operator named this host, so any address.
 * - `inside`: a registry in a private network pointed here (a redirect, a token realm), so private and public addresses.
 * - `public`: a registry on the internet pointed here, so public addresses only: it must not lead requests into our network (SSRF).
 */
export type Reach = 'operator' | 'inside' | 'public';

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

/**
 * Where clouds serve their metadata besides link-local addresses: Alibaba's, Oracle's and Azure's (a public address, reached from within
 * alone), Amazon's and Google's over IPv6.
 */
const METADATA = new Set(['100.100.100.200', '192.0.0.192', '168.63.129.16', 'fd00:ec2::254', 'fd20:ce::254']);

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
  // RFC 6052 §2.1, `64:ff9b::/96`: a NAT64 gateway leads to the IPv4 address in the last 32 bits, so that one is judged.
  const judged = parsed.range() === 'rfc6052' ? ipaddr.fromByteArray(parsed.toByteArray().slice(12)) : parsed;
  if (METADATA.has(judged.toString())) return 'metadata';
  const range = judged.range();
  return range === 'unicast' && !isGlobalAddress(judged) ? 'unassigned' : range;
}

// Redirects, and whatever else an upstream points to

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
    throw new RedirectError(`${what} that is not https`, `${url.protocol}//${url.host}`);
  }
  if (url.username !== '' || url.password !== '')
    throw new RedirectError(`${what} with a password in its URL`, url.host);
}

/** How far a request to `url` may reach that is made on behalf of an endpoint which the operator named. */
export function reachOf(url: URL, endpoint: URL, connections: { isInside(url: URL): boolean }): Reach {
  if (url.origin === endpoint.origin) return 'operator';
  return connections.isInside(endpoint) ? 'inside' : 'public';
}

// Proxies

/** A proxy for outgoing connections. */
export interface ProxyServer {
  readonly kind: 'http' | 'https' | 'socks5';
  /** It gets host names and resolves them itself. */
  readonly resolves: boolean;
  readonly host: string;
  readonly port: number;
  readonly username: string | null;
  readonly password: string | null;
  /** Equal for equal proxies; holds the credentials, never log it. */
  readonly key: string;
}

const DEFAULT_PORT: Readonly<Record<string, number>> = {
  'http:': 80,
  'https:': 443,
  'socks5:': 1080,
  'socks5h:': 1080,
};

/** Reads `http://`, `https://`, `socks5://` (resolves here), `socks5h://` (resolves there), with credentials; null for anything else. */
export function parseProxy(text: string): ProxyServer | null {
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  // `socks:` and `socks5:` mean the same to most programs that read ALL_PROXY.
  const protocol = url.protocol === 'socks:' ? 'socks5:' : url.protocol;
  const defaultPort = DEFAULT_PORT[protocol];
  if (defaultPort === undefined || url.hostname === '') return null;
  return {
    kind: protocol === 'http:' ? 'http' : protocol === 'https:' ? 'https' : 'socks5',
    resolves: protocol !== 'socks5:',
    host: bareHost(url.hostname),
    port: url.port === '' ? defaultPort : Number(url.port),
    username: url.username === '' ? null : decodeURIComponent(url.username),
    password: url.username === '' ? null : decodeURIComponent(url.password),
    key: url.href,
  };
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Chooses the proxy for a URL: the registry's own, else the configured one, else the environment's. */
export class ProxyChoice {
  readonly #configured: string | null;
  readonly #environment: Environment;
  readonly #parsed = new Map<string, ProxyServer | null>();

  constructor(configured: string | null, environment: Environment = process.env) {
    this.#configured = configured;
    this.#environment = environment;
  }

  /** Null where none is to be used. @throws {Error} for a proxy that cannot be read */
  for(url: URL, ofRegistry: string | null): ProxyServer | null {
    const text = ofRegistry ?? this.#configured ?? proxyFromEnvironment(url, this.#environment);
    if (text === null) return null;
    let proxy = this.#parsed.get(text);
    if (proxy === undefined) {
      proxy = parseProxy(text);
      this.#parsed.set(text, proxy);
    }
    // Connecting directly instead might break the operator's rules, or not work at all.
    if (proxy === null) throw new Error('the configured proxy is no http://, https://, socks5:// or socks5h:// URL');
    return proxy;
  }
}

/** `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case, as curl and Go read them. */
export function proxyFromEnvironment(url: URL, environment: Environment): string | null {
  const read = (name: string): string | null => environment[name.toLowerCase()] || environment[name] || null;
  const proxy = read(url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY') ?? read('ALL_PROXY');
  if (proxy === null || isExempt(url, read('NO_PROXY') ?? '')) return null;
  return proxy.includes('://') ? proxy : `http://${proxy}`;
}

/**
 * Whether `NO_PROXY` names the host: `*`, a domain (itself and what is under it), `.domain`, an address, a CIDR; each with an
 * optional port. This machine itself is never reached through a proxy, as in Go.
 */
function isExempt(url: URL, list: string): boolean {
  const host = bareHost(url.hostname).replace(/\.$/, '');
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
  const isAddress = isIP(host) !== 0;
  if (isAddress ? ipaddr.parse(host).range() === 'loopback' : /(^|\.)localhost$/.test(host)) return true;
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => matches(entry.toLowerCase(), host, port, isAddress));
}

/** Whether one entry of `NO_PROXY` names the host; `isAddress`: the host is an IP address. */
function matches(entry: string, host: string, port: string, isAddress: boolean): boolean {
  if (entry === '*') return true;
  if (isAddress && entry.includes('/')) return isInNetwork(host, entry);
  const hostAndPort = /^(\[[^\]]+\]|[^:]+|[0-9a-f:]{2,}?)(?::(\d+))?$/.exec(entry);
  const name = bareHost(hostAndPort !== null && isIP(entry) === 0 ? (hostAndPort[1] ?? '') : entry);
  const onlyPort = hostAndPort !== null && isIP(entry) === 0 ? hostAndPort[2] : undefined;
  if (onlyPort !== undefined && onlyPort !== port) return false;
  if (isAddress) return isIP(name) !== 0 && ipaddr.parse(name).toString() === ipaddr.parse(host).toString();
  const domain = name.replace(/^\*?\./, '').replace(/\.$/, '');
  return host === domain || host.endsWith(`.${domain}`);
}

function isInNetwork(host: string, cidr: string): boolean {
  const address = parseAddress(host);
  return address !== null && Network.parse(cidr)?.contains(address) === true;
}
