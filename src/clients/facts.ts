import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../config/config.ts';
import { bracketed } from '../kit/networks.ts';
import { isPattern } from '../oci/names.ts';
import type { Edit } from './edits.ts';

/** The clients whose configuration the gateway writes: `gateway client KIND`, `GET /client/<kind>`. */
export const CLIENT_KINDS = ['docker', 'containerd', 'podman', 'k3s', 'cri-o', 'buildkit', 'kind', 'minikube'] as const;
export type ClientKind = (typeof CLIENT_KINDS)[number];

/** A file of a client's configuration, ready to paste. */
interface ClientFile {
  readonly path: string;
  readonly content: string;
}

export interface ClientConfiguration {
  readonly client: string;
  readonly files: readonly ClientFile[];
  /** What else is to be done or known; several lines each, perhaps. */
  readonly notes: readonly string[];
}

/** What is to be in which file of a client, and what else is to be done or known. */
export interface Plan {
  readonly edits: readonly Edit[];
  readonly notes: readonly string[];
  /** Commands by which what runs takes the files into use; none where they are read at each pull. */
  readonly restart?: readonly string[];
}

/** A user of the gateway. */
export interface Login {
  readonly username: string;
  readonly password: string;
}

/** RFC 7617 §2. */
export function basicOf({ username, password }: Login): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** The machine that a configuration is for, as far as it is known. */
export interface Machine {
  /** False where a configuration is written for nowhere in particular: what follows is empty then. */
  readonly known: boolean;
  /** A file's text; null where there is none. @throws {OperatorError} CLIENT_FILE_REFUSED */
  read(path: string): string | null;
  /** The names in a folder; empty where there is none. */
  list(folder: string): readonly string[];
  /** The major and minor version of a program as it says itself; null where it is not there. */
  version(program: string): readonly [number, number] | null;
  /** Where a user's own configuration is; null for the machine's. */
  readonly home: string | null;
}

/** For a configuration that is shown and not put in place. */
export const NO_MACHINE: Machine = {
  known: false,
  read: () => null,
  list: () => [],
  version: () => null,
  home: null,
};

/** Writes the plan of one kind of client. */
export type Planner = (facts: ClientFacts, machine: Machine, login: Login | null) => Plan;

/** How clients reach the gateway; the port is null where it is the scheme's own. */
export interface PublicAddress {
  readonly scheme: 'https' | 'http';
  /** The gateway's own host name or address, without port. */
  readonly domain: string;
  readonly port: number | null;
}

/** What a client's configuration is written from. */
export interface ClientFacts extends PublicAddress {
  /** The internal CA's root, where clients have to be configured to trust it. */
  readonly ca: CaRoot | null;
  /** The rows of the table that are one registry each. */
  readonly registries: readonly string[];
  /** Its other rows, which no client's configuration can say: `*.pkg.dev`. */
  readonly patterns: readonly string[];
  readonly aliases: readonly ClientAlias[];
  /** Other names than `domain` under which the gateway answers for all registries: the configured domain where `publicUrl` has another host. */
  readonly ownNames: readonly string[];
  /** Whether clients must log in. */
  readonly credentials: boolean;
}

interface ClientAlias {
  readonly name: string;
  readonly host: string;
  readonly registry: string;
  /** Whether clients that connect to its host meet a certificate for it, as far as is known. */
  readonly certificate: boolean;
}

/** PEM; null until the gateway has started once: only then there is a root. */
interface CaRoot {
  readonly pem: string | null;
  readonly file: string;
}

/**
 * Where clients find the gateway: where the operator says, else where it listens. A TLS terminator in front of a public domain is taken to listen
 * on 443.
 */
function publicAddressOf({
  config,
  table,
  bound,
}: Pick<ClientSurroundings, 'config' | 'table' | 'bound'>): PublicAddress {
  const domain = publicHostOf(config) ?? table.domain;
  if (config.publicUrl !== null) {
    const { protocol, port } = new URL(config.publicUrl);
    return { domain, scheme: protocol === 'http:' ? 'http' : 'https', port: port === '' ? null : Number(port) };
  }
  if (config.tls.mode === 'off' && config.publicDomain) return { domain, scheme: 'https', port: null };
  const scheme = config.tls.mode === 'off' ? 'http' : 'https';
  const port = bound[scheme] ?? config.listen[scheme]?.port;
  const usual = scheme === 'https' ? 443 : 80;
  return { domain, scheme, port: port === undefined || port === usual ? null : port };
}

/** What the facts are gathered from. */
interface ClientSurroundings {
  readonly config: Pick<Config, 'tls' | 'publicDomain' | 'publicUrl' | 'listen' | 'dataDir'>;
  readonly table: {
    readonly domain: string;
    readonly registries: ReadonlyMap<string, unknown>;
    /** The aliases that a host leads to: none of those under a domain that is an IP address. */
    readonly hosts: ReadonlyMap<string, ClientAlias>;
  };
  /** Whether there is a certificate for a host; left out where that is not known: then whoever wants one is taken to have it. */
  readonly holds?: ((host: string) => boolean) | undefined;
  /** The ports that the listeners have, where the gateway runs. */
  readonly bound: { readonly https?: number | undefined; readonly http?: number | undefined };
  readonly credentials: boolean;
}

export async function gatherFacts(surroundings: ClientSurroundings): Promise<ClientFacts> {
  const { config, table, credentials, holds } = surroundings;
  const address = publicAddressOf(surroundings);
  const byText = (one: string, other: string): number => (one < other ? -1 : 1);
  return {
    ...address,
    ownNames: address.domain === table.domain ? [] : [table.domain],
    ca: config.tls.mode === 'internal' ? await caRoot(config.dataDir) : null,
    registries: [...table.registries.keys()].filter((host) => !isPattern(host)).sort(byText),
    patterns: [...table.registries.keys()].filter(isPattern).sort(byText),
    aliases: [...table.hosts.values()]
      .map(({ name, host, registry, certificate }) => ({
        name,
        host,
        registry,
        certificate: holds?.(host) ?? certificate,
      }))
      .sort((one, other) => byText(one.name, other.name)),
    credentials,
  };
}

/** The host of `publicUrl`, an IPv6 address without its brackets; undefined where there is none. */
export function publicHostOf({ publicUrl }: Pick<Config, 'publicUrl'>): string | undefined {
  return publicUrl === null ? undefined : new URL(publicUrl).hostname.replace(/^\[|\]$/g, '');
}

async function caRoot(dataDir: string): Promise<CaRoot> {
  const file = join(dataDir, 'ca.crt');
  return { file, pem: await readFile(file, 'utf8').catch(() => null) };
}

/** `cr.example.com`, `localhost:8443`, `[::1]:8443`: as image names and file names write it. */
export function authority(address: PublicAddress, host: string = address.domain): string {
  const name = bracketed(host);
  return address.port === null ? name : `${name}:${address.port}`;
}

export function baseUrl(address: PublicAddress, host: string = address.domain): string {
  return `${address.scheme}://${authority(address, host)}`;
}

/** Whether a host means the machine that asks for it (RFC 6761 §6.3, RFC 1122 §3.2.1.3). */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || /^127\.|^\[?::1\]?$/.test(host);
}

/** Every host of the gateway that an image's name may begin with, each as names write it: the bare domain first, then the aliases. */
export function ownHosts(facts: ClientFacts): string[] {
  return [facts.domain, ...facts.aliases.map(({ host }) => host)].map((host) => authority(facts, host));
}

/** What strangers to its operator may know of it: nothing of its own paths, and no name that it is not called by. */
export function publicFacts(facts: ClientFacts): ClientFacts {
  return { ...facts, ownNames: [], ca: facts.ca === null ? null : { pem: facts.ca.pem, file: 'ca.crt' } };
}

/**
 * A registry's place below the bare domain (`cr.example.com/quay.io`); a path of an image name cannot contain a port, so a registry with a
 * port is reached by its alias, and null without one.
 */
export function mirrorLocation(facts: ClientFacts, registry: string): string | null {
  if (!registry.includes(':')) return `${authority(facts)}/${registry}`;
  const alias = facts.aliases.find((one) => one.registry === registry);
  return alias === undefined ? null : authority(facts, alias.host);
}

/** The root as a file of the client's machine, or what to do for it later. */
export function caFile(facts: ClientFacts, path: string): Plan {
  if (facts.ca === null) return { edits: [], notes: [] };
  if (facts.ca.pem === null) {
    return {
      edits: [],
      notes: [`The gateway makes its root certificate at its first start: then copy ${facts.ca.file} to ${path}`],
    };
  }
  return { edits: [{ path, format: 'pem', content: facts.ca.pem }], notes: [] };
}

/** The root for alias hosts, where each host has a folder of its own for what it is trusted by. */
export function caFiles(facts: ClientFacts, folder: string, hosts: readonly string[] = ownHosts(facts)): Plan {
  return together(...hosts.map((host) => caFile(facts, `${folder}/${host}/ca.crt`)));
}

/** Commands that copy the root to where a client looks for it, one folder a host, for hosts that have no file of their own. */
export function copyRoot(facts: ClientFacts, folder: string, from: string): string[] {
  const hosts = ownHosts(facts).slice(1);
  if (facts.ca === null || hosts.length === 0) return [];
  return [
    `To pull by alias hosts too, give each the root:\n  for host in ${hosts.join(' ')}; do\n    mkdir -p ${folder}/$host && cp ${from} ${folder}/$host/ca.crt\n  done`,
  ];
}

/** For clients that have to be told every registry by its name. */
export function patternNotes({ patterns }: ClientFacts): string[] {
  if (patterns.length === 0) return [];
  return [
    `A pattern cannot be written here: of ${patterns.join(', ')} add each host that you pull from, as the others are.`,
  ];
}

/** All that several writers made, as one. */
export function together(...parts: readonly Plan[]): Plan {
  const restart = parts.flatMap((part) => part.restart ?? []);
  return {
    edits: parts.flatMap(({ edits }) => edits),
    notes: parts.flatMap(({ notes }) => notes),
    ...(restart.length === 0 ? {} : { restart }),
  };
}

export function notes(...lines: readonly string[]): Plan {
  return { edits: [], notes: lines };
}
