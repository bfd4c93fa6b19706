import { isIP } from 'node:net';
import { registryOf } from '../aliases/lookup.ts';
import type { AliasEntry, TableSnapshot } from '../aliases/table.ts';
import { RegistryError } from '../oci/errors.ts';
import { canonicalRegistry, DOCKER_HUB, isDockerHubSite } from '../oci/known-registries.ts';

/** What a host name leads to. */
export type HostRole =
  /** The configured domain, the host of `publicUrl`, an IP address, or `localhost`. */
  { readonly kind: 'bare' } | { readonly kind: 'alias'; readonly alias: AliasEntry } | { readonly kind: 'unknown' };

const BARE: HostRole = { kind: 'bare' };
const UNKNOWN: HostRole = { kind: 'unknown' };

/** A host with an optional port as registries have it, or an IPv6 address in brackets. */
const REGISTRY =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(?::\d{1,5})?$/;
/** Longest part of a client's text that an error repeats. */
const SHOWN = 200;

/** The host that a client asked, as the request names it. */
export interface AskedHost {
  /** As `hostName` returns it. */
  readonly host: string;
  /** Empty where none was written. */
  readonly port: string;
}

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

/** The port of a Host header or `:authority`; empty where it has none. */
export function hostPort(header: string | undefined): string {
  return /:(\d+)$/.exec(header ?? '')?.[1] ?? '';
}

/** `host` is what `hostName` returned. A request without a host can only have come by address. */
export function roleOf(host: string, table: TableSnapshot): HostRole {
  if (host === table.domain || host === table.publicHost) return BARE;
  const alias = table.hosts.get(host);
  if (alias !== undefined) return { kind: 'alias', alias };
  if (host === '' || host === 'localhost' || isIP(host) !== 0) return BARE;
  return UNKNOWN;
}

/** A registry's name as a client wrote it, in its one form: in lower case, and without the dot that ends a whole DNS name (RFC 1034 §3.1). */
export function registryText(text: string): string {
  return text.toLowerCase().replace(/\.(?=$|:\d+$)/, '');
}

/** The value of `ns` in that form; undefined where it is empty or was not sent. */
export function nsOf(value: string | null | undefined): string | undefined {
  return registryText(value ?? '') || undefined;
}

/** Whether this can be a registry's name at all. */
export function isRegistryName(text: string): boolean {
  return REGISTRY.test(text);
}

/**
 * The registry that `ns` means (distribution-spec, *Registry Proxying*): a mirror's client puts there the host of the image's name. That may be a
 * host of this gateway, since a client that mirrors everything mirrors this gateway's names too: an alias host is its registry, and the gateway's
 * own name is no `ns`.
 * @throws {RegistryError} registryUnknown, hostUnknown, registryInvalid
 */
export function registryOfNs(ns: string | undefined, asked: AskedHost, table: TableSnapshot): string {
  return (ns === undefined ? null : read(ns, asked, table)) ?? requireRegistry(DOCKER_HUB, table);
}

/**
 * The registry that a path names. As in `ns`, an alias host is its registry; the gateway's own name is an error that says so.
 * @throws {RegistryError} registryUnknown, hostUnknown, registryInvalid, ownName
 */
export function registryOfPath(name: string, asked: AskedHost, table: TableSnapshot): string {
  const found = read(name, asked, table);
  if (found === null) throw new RegistryError('ownName', { facts: { host: shown(name) } });
  return found;
}

/** Null where the name is the gateway's own. */
function read(name: string, asked: AskedHost, table: TableSnapshot): string | null {
  const known = registryOf(table, name);
  // A pattern may match names of this gateway, too: these come first.
  if (known !== undefined && known.pattern === undefined) return known.host;
  if (isOwnName(name, asked, table)) return null;
  return table.hosts.get(hostName(name))?.registry ?? requireRegistry(name, table);
}

function requireRegistry(name: string, table: TableSnapshot): string {
  const known = registryOf(table, name);
  if (known !== undefined) return known.host;
  if (!isRegistryName(name)) throw new RegistryError('registryInvalid', { facts: { registry: shown(name) } });
  const host = hostName(name);
  // To add it would lead to this gateway again.
  if (host.endsWith(`.${table.domain}`)) throw hostUnknown(host);
  const facts = { registry: shown(canonicalRegistry(name)) };
  if (isDockerHubSite(host))
    throw new RegistryError('registryUnknown', {
      facts,
      next: `it is a web site; its images are those of ${DOCKER_HUB}`,
    });
  throw new RegistryError('registryUnknown', { facts });
}

/**
 * Whether a name is this gateway's own: its domain, with any port, or the very host that the client asked. `localhost` and addresses mean another
 * program on another port, and on another machine than the client's another machine: with a port, only the client's own is meant.
 */
function isOwnName(text: string, asked: AskedHost, { domain, publicHost }: TableSnapshot): boolean {
  const name = hostName(text);
  const port = hostPort(text);
  if ((name === domain || name === publicHost) && (port === '' || !isLocal(name))) return true;
  const same = name === asked.host || (isLoopback(name) && isLoopback(asked.host));
  return same && (port || HTTPS_PORT) === (asked.port || HTTPS_PORT);
}

export const HTTPS_PORT = '443';

function isLocal(host: string): boolean {
  return host === 'localhost' || isIP(host) !== 0;
}

/** RFC 6761 §6.3: `localhost` is the loopback address of either family. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '127.0.0.1';
}

export function hostUnknown(host: string): RegistryError {
  return new RegistryError('hostUnknown', { facts: { host: shown(host) } });
}

/** A client's text as an error repeats it. */
export function shown(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
