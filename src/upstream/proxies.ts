import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { Network, parseAddress } from '../kit/networks.ts';
import { bareHost, isInsideName } from './addresses.ts';

/** A proxy to go out through. `resolves`: names are resolved there, so that none is looked up here. */
export interface ProxyServer {
  readonly kind: 'http' | 'https' | 'socks5';
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

/** A proxy that does not bring us where we want to go; the message names the proxy, so that nobody blames the registry. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
  readonly code = 'EPROXY';
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Which proxy a URL goes through: the registry's own, else the configured one, else what the environment says; null for none. */
export class ProxyChoice {
  readonly #configured: string | null;
  readonly #environment: Environment;
  readonly #parsed = new Map<string, ProxyServer | null>();

  constructor(configured: string | null, environment: Environment = process.env) {
    this.#configured = configured;
    this.#environment = environment;
  }

  for(url: URL, ofRegistry: string | null): ProxyServer | null {
    const said = ofRegistry ?? this.#configured ?? proxyFromEnvironment(url, this.#environment);
    if (said === null) return null;
    let proxy = this.#parsed.get(said);
    if (proxy === undefined) {
      proxy = parseProxy(said);
      this.#parsed.set(said, proxy);
    }
    // A proxy that cannot be read is never gone around: the operator may have no other way out, or must not use it.
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
  const literal = isIP(host) !== 0;
  if (literal ? ipaddr.parse(host).range() === 'loopback' : isInsideName(host) && /(^|\.)localhost$/.test(host))
    return true;
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => names(entry.toLowerCase(), host, port, literal));
}

function names(entry: string, host: string, port: string, literal: boolean): boolean {
  if (entry === '*') return true;
  if (literal && entry.includes('/')) return isInNetwork(host, entry);
  const parts = /^(\[[^\]]+\]|[^:]+|[0-9a-f:]{2,}?)(?::(\d+))?$/.exec(entry);
  const name = bareHost(parts !== null && isIP(entry) === 0 ? (parts[1] ?? '') : entry);
  const onlyPort = parts !== null && isIP(entry) === 0 ? parts[2] : undefined;
  if (onlyPort !== undefined && onlyPort !== port) return false;
  if (literal) return isIP(name) !== 0 && ipaddr.parse(name).toString() === ipaddr.parse(host).toString();
  const domain = name.replace(/^\*?\./, '');
  return host === domain ? !/^\*?\./.test(name) || domain === host : host.endsWith(`.${domain}`);
}

function isInNetwork(host: string, cidr: string): boolean {
  const address = parseAddress(host);
  return address !== null && Network.parse(cidr)?.contains(address) === true;
}
