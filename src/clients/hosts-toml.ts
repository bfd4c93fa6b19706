import type { Edit, TomlTable } from './edits.ts';
import {
  authority,
  baseUrl,
  basicOf,
  type ClientFacts,
  caFile,
  isLoopback,
  type Login,
  type Plan,
  together,
} from './facts.ts';

/**
 * `hosts.toml` of containerd (its docs/hosts.md), which Docker reads too where it keeps images in containerd's store. `_default` is for every
 * registry without a folder of its own, and the registry travels in `?ns=`, so one file serves them all. One that the gateway refuses, or a
 * gateway that is gone, sends the client on to the registry itself.
 */

/**
 * What the gateway is asked for. `push` is never among them. `referrers` is known from containerd 2.2 on; earlier ones take a file with
 * that word for broken and pull past the gateway, without it later ones ask the registry itself for signatures and attestations.
 */
type Capability = 'pull' | 'resolve' | 'referrers';
export const EVERY_VERSION: readonly Capability[] = ['pull', 'resolve'];
export const WITH_REFERRERS: readonly Capability[] = [...EVERY_VERSION, 'referrers'];

/**
 * How long a gateway that does not answer may hold up a connection before the registry itself is asked; containerd would wait 30 s. Enough for a
 * first packet that is lost twice: it is repeated after 1 s and again after 2 s (RFC 6298 §2, §5.5).
 */
const DIAL_TIMEOUT = '3s';

export const quoted = (capabilities: readonly Capability[]) => `[${capabilities.map((one) => `"${one}"`).join(', ')}]`;

/** The tables of one host; `ca` is a path on the client's machine. */
export function hostTables(
  url: string,
  {
    capabilities,
    ca,
    login,
    more = {},
  }: { capabilities: readonly Capability[]; ca: string | null; login: Login | null; more?: TomlTable['values'] },
): TomlTable[] {
  const host = {
    capabilities: [...capabilities],
    dial_timeout: DIAL_TIMEOUT,
    ...more,
    ...(ca === null ? {} : { ca }),
  };
  const header = login === null ? [] : [{ path: ['host', url, 'header'], values: { authorization: basicOf(login) } }];
  return [{ path: ['host', url], values: host }, ...header];
}

/** What a person has to fill in where the gateway asks for credentials and none were given. */
function headerHint(facts: ClientFacts, login: Login | null): { hint?: string } {
  if (!facts.credentials || login !== null) return {};
  return { hint: `\n# [host."${baseUrl(facts)}".header]\n#   authorization = "Basic <base64 of USER:TOKEN>"\n` };
}

/** A folder `certs.d` as the client sees it, and as it is called where the file is written. */
interface CertsFolder {
  readonly seen: string;
  readonly written: string;
  /** Folders in it beside `_default` whose registry is to be mirrored as well: they keep their registry from `_default`. */
  readonly also?: readonly string[];
}

/** `_default/hosts.toml` with the root beside it, and the same host in the files of registries that have one of their own. */
export function hostsFiles(
  facts: ClientFacts,
  folder: CertsFolder,
  capabilities: readonly Capability[],
  login: Login | null,
): Plan {
  const name = '_default/gateway-ca.crt';
  const ca = facts.ca === null ? null : `${folder.seen}/${name}`;
  const edits = ['_default', ...(folder.also ?? [])].map(
    (one): Edit => ({
      path: `${folder.written}/${one}/hosts.toml`,
      format: 'toml',
      ahead: 'host',
      tables: hostTables(baseUrl(facts), { capabilities, ca, login }),
      ...(login === null ? {} : { secret: true }),
      ...headerHint(facts, login),
    }),
  );
  return together({ edits, notes: [] }, caFile(facts, `${folder.written}/${name}`));
}

export function headerNote(facts: ClientFacts, login: Login | null): string[] {
  if (!facts.credentials || login !== null) return [];
  return [
    `The gateway asks for credentials. Clients send a login only to the host that it is for, never to a mirror: the gateway has its own
in hosts.toml. Take the # away, put printf %s USER:TOKEN | base64 -w0 there, and let nobody else read the file: chmod 600.`,
  ];
}

/** Names under the gateway are hosts of their own, and clients send each only the login that was made for it. */
export function loginNote(
  facts: ClientFacts,
  command: string,
  lead = 'To pull by names under the gateway, log in',
): string[] {
  if (!facts.credentials) return [];
  const hosts = facts.aliases.map(({ host }) => authority(facts, host));
  const more =
    hosts.length === 0 ? '' : `\nEvery alias host that you pull by wants its own login: ${command} ${hosts[0]}`;
  return [`${lead}: ${command} ${authority(facts)}${more}`];
}

/** A node in a container or a virtual machine has a loopback of its own. */
export function fromNodes({ domain }: ClientFacts): string[] {
  if (!isLoopback(domain)) return [];
  return [
    `Inside a node ${domain} is the node itself: give the gateway a domain or address that nodes can reach (GATEWAY_DOMAIN, GATEWAY_LISTEN_HTTPS).`,
  ];
}
