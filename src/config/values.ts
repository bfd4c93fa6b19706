import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { normaliseHostName } from '../kit/host-name.ts';
import { isGlobalIP, Network, parseAddress } from '../kit/networks.ts';

/** An address to listen on. */
export interface ListenAddress {
  /** Undefined: every address of the machine. */
  readonly host: string | undefined;
  /** 0 picks a free one (tests). */
  readonly port: number;
}

/** A value that is refused, in words; what is secret is not repeated. */
export class BadValue extends Error {
  override readonly name = 'BadValue';
}

/** Names under these never lead to a public host (RFC 2606, RFC 6761, RFC 6762, RFC 8375, ICANN on .internal). */
const PRIVATE_SUFFIXES = ['localhost', 'test', 'internal', 'local', 'home.arpa'];

const SIZE_UNITS: Record<string, number> = { '': 1, b: 1, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40 };
const TIME_UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `20GiB`, `1.5 MiB`, `4096` → bytes. */
export function parseSize(raw: unknown): number {
  const match = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text(raw, 'a size such as 20GiB'));
  const unit = SIZE_UNITS[match?.[2]?.toLowerCase() ?? '-'];
  const bytes = Math.round(Number(match?.[1]) * (unit ?? Number.NaN));
  if (!Number.isSafeInteger(bytes)) {
    const hint = /^\d+(\.\d+)? ?[kmgt]b?$/i.test(String(raw))
      ? '; units count by 1024 and are written KiB, MiB, GiB, TiB'
      : '';
    throw new BadValue(`${quoted(raw)} is not a size${hint || '; write it like 512MiB, 20GiB or plain bytes'}`);
  }
  return bytes;
}

/** `500ms`, `20s`, `1m`, `12h`, `7d`, `0` → milliseconds. */
export function parseDuration(raw: unknown): number {
  const written = text(raw, 'a duration such as 20s');
  if (written === '0') return 0;
  const match = /^(\d+(?:\.\d+)?) ?(ms|s|m|h|d)$/i.exec(written);
  const ms = Math.round(Number(match?.[1]) * (TIME_UNITS[match?.[2]?.toLowerCase() ?? ''] ?? Number.NaN));
  if (!Number.isSafeInteger(ms)) {
    throw new BadValue(`${quoted(raw)} is not a duration; write a number with ms, s, m, h or d, like 500ms, 20s or 7d`);
  }
  return ms;
}

/** A duration of some length; `off` is null. */
export function parseScrub(raw: unknown): number | null {
  if (raw === 'off' || raw === false) return null;
  const period = parseDuration(raw);
  if (period === 0) throw new BadValue('write how long a round may take, like 30d, or off');
  return period;
}

export function parseBoolean(raw: unknown): boolean {
  if (typeof raw === 'boolean') return raw;
  const written = text(raw, 'true or false').toLowerCase();
  if (['true', 'yes', 'on', '1'].includes(written)) return true;
  if (['false', 'no', 'off', '0'].includes(written)) return false;
  throw new BadValue(`${quoted(raw)} is neither true nor false`);
}

export function parseInteger(least: number, most: number): (raw: unknown) => number {
  return (raw) => {
    const written = text(raw, 'a whole number');
    const value = Number(written);
    if (!/^\d+$/.test(written) || value < least || value > most) {
      throw new BadValue(`${quoted(raw)} is not a whole number from ${least} to ${most}`);
    }
    return value;
  };
}

/** `true`, `false`, or networks: a list of CIDRs, or text with commas. */
export function parseAnonymous(raw: unknown): boolean | readonly string[] {
  try {
    return parseBoolean(raw);
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
  }
  if (!Array.isArray(raw)) text(raw, 'true, false or a list of networks');
  return nonEmpty(parseList(parseCidr), 'write true, false or networks such as 10.0.0.0/8')(raw);
}

/** `auto`, or a value. */
export function parseAuto<T>(parse: (raw: unknown) => T): (raw: unknown) => T | 'auto' {
  return (raw) => {
    if (raw === 'auto') return 'auto';
    try {
      return parse(raw);
    } catch (error) {
      if (error instanceof BadValue) throw new BadValue(`${error.message}; or write auto`);
      throw error;
    }
  };
}

/** A list, or text with commas. */
export function parseList<T>(item: (raw: unknown) => T): (raw: unknown) => T[] {
  return (raw) => {
    const parts: unknown[] = Array.isArray(raw)
      ? raw
      : text(raw, 'a list')
          .split(',')
          .map((part) => part.trim());
    const values: T[] = [];
    const refusals: string[] = [];
    for (const part of parts) {
      if (part === '') continue;
      try {
        values.push(item(part));
      } catch (error) {
        if (!(error instanceof BadValue)) throw error;
        refusals.push(error.message);
      }
    }
    if (refusals.length > 0) throw new BadValue(refusals.join('; '));
    return values;
  };
}

/** Refuses 0 and the empty list, which would mean nothing or everything; `hint` says what to write. */
export function nonEmpty<T>(parse: (raw: unknown) => T, hint: string): (raw: unknown) => T {
  const strict = (raw: unknown): T => {
    const value = parse(raw);
    if (value === 0 || (Array.isArray(value) && value.length === 0))
      throw new BadValue(`must not be empty or 0; ${hint}`);
    return value;
  };
  return Object.assign(strict, { [INNER]: parse });
}

/** Where `nonEmpty` keeps what it was given. */
const INNER = Symbol('inner');

/** What reads the values of a key that must not be empty; any other as it is. */
export function wrapped(parse: (raw: unknown) => unknown): (raw: unknown) => unknown {
  return (parse as { readonly [INNER]?: typeof parse })[INNER] ?? parse;
}

export function parseChoice<const T extends string>(choices: readonly T[]): (raw: unknown) => T {
  return (raw) => {
    // YAML 1.1 habits: an unquoted `off` may arrive as false.
    const written = raw === false ? 'off' : raw;
    const found = choices.find((choice) => choice === written);
    if (found === undefined) throw new BadValue(`${quoted(raw)} is none of: ${choices.join(', ')}`);
    return found;
  };
}

/** `:443`, `127.0.0.1:8443`, `[::1]:8443`, `localhost:8443`; `off` is null. */
export function parseListen(raw: unknown): ListenAddress | null {
  if (raw === 'off' || raw === false) return null;
  const forms = 'write :443, 127.0.0.1:8443, "[::1]:8443" or off';
  const written = text(raw, 'an address to listen on');
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(written);
  if (match === null) throw new BadValue(`${quoted(raw)} is not an address to listen on; ${forms}`);
  const port = Number(match[3]);
  if (port > 65_535) throw new BadValue(`${quoted(raw)} has a port above 65535`);
  const host = match[1] ?? match[2] ?? '';
  const sound = match[1] !== undefined ? isIP(host) === 6 : host === '' || host === 'localhost' || isIP(host) === 4;
  if (!sound) throw new BadValue(`${quoted(raw)} names no IP address; ${forms}`);
  return { host: host === '' ? undefined : host, port };
}

/** `10.0.0.0/8`, `2001:db8::/32`, or one address → CIDR in its canonical form. */
export function parseCidr(raw: unknown): string {
  const written = text(raw, 'a network such as 10.0.0.0/8');
  if (Network.parse(written) === null) {
    throw new BadValue(`${quoted(raw)} is not a network; write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7`);
  }
  const [address = '', bits] = written.split('/');
  return `${ipaddr.parse(address).toString()}/${bits === undefined ? (isIP(address) === 4 ? 32 : 128) : Number(bits)}`;
}

/** A DNS server as `host:port`; the port is 53 where none is given. */
export function parseResolver(raw: unknown): string {
  const written = text(raw, 'the address of a DNS server');
  if (isIP(written) === 4) return `${written}:53`;
  if (isIP(written) === 6) return `[${written}]:53`;
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(written);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (isIP(host) !== (match?.[1] === undefined ? 4 : 6) || !(port >= 1 && port <= 65_535)) {
    throw new BadValue(`${quoted(raw)} is not the IP address and port of a DNS server; write it like 1.1.1.1:53`);
  }
  return written;
}

/** A DNS server by address or name, with a port: 53 where none is given. */
export function parseNameServer(raw: unknown): string {
  const written = text(raw, 'the address of a DNS server');
  const match = /^([^:[\]]+?)(?::(\d{1,5}))?$/.exec(written);
  const name = match?.[1] ?? '';
  if (match === null || isIP(name) !== 0) return parseResolver(raw);
  const port = Number(match[2] ?? 53);
  const result = normaliseHostName(name);
  if ('problem' in result || port < 1 || port > 65_535) {
    throw new BadValue(
      `${quoted(raw)} is not a DNS server; write it like ns1.example.com, 192.0.2.53 or [2001:db8::53]:53`,
    );
  }
  return `${result.host}:${port}`;
}

/** Text that nobody is to see again. */
export function parseSecret(raw: unknown): string {
  return text(raw, 'a secret');
}

/** The base of an HTTP API, without a slash at the end. Not encrypted only on this machine, since secrets go there. */
export function parseApi(raw: unknown): string {
  const written = text(raw, 'the URL of an API');
  if (!URL.canParse(written)) throw new BadValue(`${quoted(raw)} is not a URL; write it like https://api.example.com`);
  const url = new URL(written);
  const here = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  if (url.protocol !== 'https:' && !(here && url.protocol === 'http:')) {
    throw new BadValue(`${quoted(raw)} does not start with https://`);
  }
  if (url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    throw new BadValue('has more than scheme, host, port and path; write it like https://api.example.com');
  }
  return written.replace(/\/+$/, '');
}

/** The proxy's URL as given; its password is not repeated in a refusal. */
export function parseProxy(raw: unknown): string {
  const schemes = ['http:', 'https:', 'socks5:', 'socks5h:'];
  const written = text(raw, 'the URL of a proxy');
  if (!URL.canParse(written)) throw new BadValue('is not a URL; write it like http://proxy.example:3128');
  const url = new URL(written);
  if (!schemes.includes(url.protocol)) {
    throw new BadValue(`has the scheme ${url.protocol}//; a proxy has http://, https://, socks5:// or socks5h://`);
  }
  if (url.hostname === '') throw new BadValue('names no host; write it like socks5://127.0.0.1:1080');
  if ((url.pathname !== '' && url.pathname !== '/') || url.search !== '' || url.hash !== '') {
    throw new BadValue('has a path or a query; a proxy is only scheme, host and port');
  }
  return written;
}

/** The URL of a shared database as given. What is wrong with it is said without repeating it: it may hold a password. */
export function parseDatabase(raw: unknown): string {
  const written = text(raw, 'the URL of a database');
  const form = 'write it like postgres://gateway@db.example/gateway';
  if (!URL.canParse(written)) throw new BadValue(`is not a URL; ${form}`);
  const url = new URL(written);
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') {
    throw new BadValue(`has the scheme ${url.protocol}//; ${form}; leave it out for SQLite in dataDir`);
  }
  if (url.searchParams.has('password')) {
    throw new BadValue('has a password in its query; name a file that holds it by GATEWAY_DATABASE_PASSWORD_FILE');
  }
  return written;
}

/** Where other gateways reach this one, `host:port`. */
export function parseNodeAddress(raw: unknown): string {
  const written = text(raw, 'a host and a port');
  const form = 'write it like gw1.internal:7443 or 10.0.0.5:7443';
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(written);
  const port = Number(match?.[3]);
  if (match === null || !(port >= 1 && port <= 65_535)) {
    throw new BadValue(`${quoted(raw)} is not a host with its port; ${form}`);
  }
  if (match[1] !== undefined) {
    if (isIP(match[1]) === 6) return written;
    throw new BadValue(`${quoted(raw)} has no IPv6 address in its brackets; ${form}`);
  }
  const host = match[2] ?? '';
  if (isIP(host) !== 0) return written;
  const result = normaliseHostName(host);
  if ('problem' in result) throw new BadValue(`${quoted(raw)} ${result.problem}; ${form}`);
  return `${result.host}:${port}`;
}

/** Scheme, host and port, without a slash at the end: `https://cr.example.com:8443`. */
export function parsePublicUrl(raw: unknown): string {
  const written = text(raw, 'the URL that clients use');
  if (!URL.canParse(written)) throw new BadValue('is not a URL; write it like https://cr.example.com');
  const url = new URL(written);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new BadValue(`has the scheme ${url.protocol}//; clients use https:// or http://`);
  }
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    throw new BadValue('has more than scheme, host and port; write it like https://cr.example.com:8443');
  }
  return url.origin;
}

export function parseEmail(raw: unknown): string {
  const written = text(raw, 'an e-mail address');
  if (!/^[^\s@,;<>]+@[^\s@,;<>]+\.[^\s@,;<>]+$/.test(written))
    throw new BadValue(`${quoted(raw)} is not an e-mail address`);
  return written;
}

export function parseDirectory(raw: unknown): string {
  const written = text(raw, 'the URL of an ACME directory');
  const url = URL.canParse(written) ? new URL(written) : undefined;
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') {
    throw new BadValue(`${quoted(raw)} is not the URL of an ACME directory; it starts with https://`);
  }
  return written;
}

/** Text that may hold anything, such as a path or an identifier. */
export function parseText(what: string): (raw: unknown) => string {
  return (raw) => text(raw, what);
}

/** RFC 8555 §7.3.4: the MAC key as the CA shows it, in base64url. */
export function parseMacKey(raw: unknown): string {
  const written = text(raw, 'a key');
  if (!/^[A-Za-z0-9_-]+={0,2}$/.test(written)) throw new BadValue('is not base64url text, as CAs give the HMAC key');
  return written;
}

/** The gateway's domain in its stored form; an IP address is allowed and written without brackets. */
export function parseDomain(raw: unknown): string {
  if (typeof raw !== 'string') throw new BadValue('is not text; write a host name such as cr.example.com');
  const bare = raw.startsWith('[') && raw.endsWith(']') ? raw.slice(1, -1) : raw;
  const address = parseAddress(bare);
  if (address !== null) return address.toString();
  if (/^[^:/]+:\d+$/.test(raw))
    throw new BadValue(`"${raw}" has a port; ports are set with listen.https and listen.http`);
  const result = normaliseHostName(raw);
  if ('problem' in result) throw new BadValue(`"${raw}" ${result.problem}`);
  if (new URL(`http://${result.host}`).hostname !== result.host) throw new BadValue(`"${raw}" reads as an IP address`);
  return result.host;
}

/** Whether a public CA could certify it: not localhost, no name of a private zone, no address that is not globally reachable. */
export function isPublicDomain(domain: string): boolean {
  if (isIP(domain) !== 0) return isGlobalIP(domain);
  return !PRIVATE_SUFFIXES.some((suffix) => domain === suffix || domain.endsWith(`.${suffix}`));
}

/** Numbers and booleans of YAML are taken as the text they were written as. */
function text(raw: unknown, what: string): string {
  if (typeof raw === 'number' && Number.isFinite(raw)) return String(raw);
  if (typeof raw !== 'string') throw new BadValue(`is ${kindOf(raw)}; it must be ${what}`);
  const trimmed = raw.trim();
  if (trimmed === '') throw new BadValue(`is empty; it must be ${what}`);
  return trimmed;
}

function kindOf(raw: unknown): string {
  if (Array.isArray(raw)) return 'a list';
  if (raw === null) return 'empty';
  return typeof raw === 'object' ? 'a mapping' : String(raw);
}

function quoted(raw: unknown): string {
  const written = typeof raw === 'string' ? raw : (JSON.stringify(raw) ?? String(raw));
  return `"${written.length > 80 ? `${written.slice(0, 80)}…` : written}"`;
}

/** Which blobs clients are sent to the shared store for: none, open ones, or (`all`) those too that only credentials opened. */
export function parseRedirect(raw: unknown): boolean | 'all' {
  if (raw === 'all') return 'all';
  try {
    return parseBoolean(raw);
  } catch {
    throw new BadValue(`${quoted(raw)} is none of: false, true, all`);
  }
}

/** As S3 names buckets, and stores like it: they are part of a host name. */
export function parseBucket(raw: unknown): string {
  const written = text(raw, 'the name of a bucket');
  if (!/^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/.test(written)) {
    throw new BadValue(`${quoted(raw)} is not the name of a bucket: 3 to 63 of a-z, 0-9, dots and hyphens`);
  }
  return written;
}

/** Of keys in a bucket. */
export function parsePrefix(raw: unknown): string {
  const written = text(raw, 'what keys begin with');
  if (!/^[A-Za-z0-9!_.*'()/-]{0,200}$/.test(written) || written.startsWith('/') || written.includes('//')) {
    throw new BadValue(`${quoted(raw)} is not what keys can begin with; write it like gateway/`);
  }
  return written;
}

/** Scheme, host and port of a service. */
export function parseEndpoint(raw: unknown): string {
  const written = text(raw, 'the URL of the store');
  if (!URL.canParse(written)) throw new BadValue('is not a URL; write it like https://minio.example.com:9000');
  const url = new URL(written);
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new BadValue(`has the scheme ${url.protocol}//; a store has https:// or http://`);
  }
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    throw new BadValue(
      'has more than scheme, host and port; credentials come from the environment or the files of AWS',
    );
  }
  return url.origin;
}
