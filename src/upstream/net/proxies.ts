import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Network, parseAddress } from '../../kit/networks.ts';
import { bareHost } from './reach.ts';

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

/** A failure of the proxy, not of the registry behind it; the message names the proxy. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
  readonly code = 'EPROXY';
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
  const domain = name.replace(/^\*?\./, '');
  return host === domain || host.endsWith(`.${domain}`);
}

function isInNetwork(host: string, cidr: string): boolean {
  const address = parseAddress(host);
  return address !== null && Network.parse(cidr)?.contains(address) === true;
}
