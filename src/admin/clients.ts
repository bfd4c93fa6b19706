import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import path from 'node:path';
import { yamlLibrary } from '../kit/yaml-text.ts';
import type { ClientConfiguration, ClientKind, Operation } from './contract.ts';
import { type OperationsDeps, parseInput } from './operation.ts';

export function clientOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    client: async (input) => clientConfiguration((await parseInput('client', input)).client, await clientFacts(deps)),
  };
}

async function clientFacts(deps: OperationsDeps): Promise<ClientFacts> {
  const { config, table } = deps;
  const { registries, aliases } = table.snapshot();
  const byText = (one: string, other: string): number => (one < other ? -1 : 1);
  return {
    domain: config.domain,
    ...reached(deps),
    ca: config.tls.mode === 'internal' ? await caRoot(config.dataDir) : null,
    registries: [...registries.keys()].sort(byText),
    aliases: [...aliases.values()].sort((one, other) => byText(one.name, other.name)),
    credentials: !(config.access.anonymous ?? deps.users.count === 0),
  };
}

/** Where clients find the gateway. A TLS terminator in front of a public domain is taken to listen on 443. */
function reached(deps: OperationsDeps): Pick<ClientFacts, 'scheme' | 'port'> {
  const { config, live } = deps;
  if (config.tls.mode === 'off' && config.publicDomain) return { scheme: 'https', port: null };
  const scheme = config.tls.mode === 'off' ? 'http' : 'https';
  const bound = live?.addresses[scheme][0];
  const port = bound === undefined ? config.listen[scheme]?.port : Number(/:(\d+)$/.exec(bound)?.[1]);
  const usual = scheme === 'https' ? 443 : 80;
  return { scheme, port: port === undefined || port === usual ? null : port };
}

async function caRoot(dataDir: string): Promise<ClientFacts['ca']> {
  const file = path.join(dataDir, 'ca.crt');
  return { file, pem: await readFile(file, 'utf8').catch(() => null) };
}

/** What a client's configuration is written from. */
export interface ClientFacts {
  /** The gateway's own host name or address, without port. */
  readonly domain: string;
  /** How clients reach it; the port is null where it is the scheme's own. */
  readonly scheme: 'https' | 'http';
  readonly port: number | null;
  /** PEM of the internal CA's root, where clients have to be configured to trust it. */
  readonly ca: CaRoot | null;
  readonly registries: readonly string[];
  readonly aliases: readonly { readonly name: string; readonly host: string; readonly registry: string }[];
  /** Whether clients must log in. */
  readonly credentials: boolean;
}

/** `pem` is null until the gateway has started once: only then there is a root. */
interface CaRoot {
  readonly pem: string | null;
  readonly file: string;
}

/** What a client's writer makes. */
type Written = Omit<ClientConfiguration, 'client'>;

const WRITERS: Record<ClientKind, (facts: ClientFacts) => Written> = {
  docker,
  containerd,
  podman,
  k3s,
  'cri-o': criO,
  buildkit,
};

/** A client's configuration for this gateway: its files with their paths, and what else is to be done. */
export function clientConfiguration(kind: ClientKind, facts: ClientFacts): ClientConfiguration {
  return { client: kind, ...WRITERS[kind](facts) };
}

/**
 * Docker mirrors docker.io only (daemon.json, `registry-mirrors`); everything else is pulled by a name under the gateway.
 * `certs.d/HOST:PORT/ca.crt` is read for mirrors too.
 */
function docker(facts: ClientFacts): Written {
  const { files, notes } = caFile(facts, `/etc/docker/certs.d/${authority(facts)}/ca.crt`);
  const daemon = {
    'registry-mirrors': [baseUrl(facts)],
    ...(facts.scheme === 'http' ? { 'insecure-registries': [authority(facts)] } : {}),
  };
  const other = facts.registries.find(
    (registry) => registry !== 'docker.io' && mirrorLocation(facts, registry) !== null,
  );
  const alias = facts.aliases.find((one) => one.registry === other);
  const names = [
    ...(other === undefined ? [] : [`docker pull ${mirrorLocation(facts, other)}/NAME:TAG`]),
    ...(alias === undefined ? [] : [`docker pull ${authority(facts, alias.host)}/NAME:TAG`]),
  ];
  return {
    files: [{ path: '/etc/docker/daemon.json', content: `${JSON.stringify(daemon, null, 2)}\n` }, ...files],
    notes: [
      ...notes,
      'Keep what daemon.json has already: add these keys to it. Then: systemctl restart docker',
      ...(names.length === 0
        ? []
        : [
            `Docker mirrors docker.io only. Other registries are pulled by a name under the gateway:\n  ${names.join('\n  ')}`,
          ]),
      ...(facts.ca === null || alias === undefined
        ? []
        : [
            `For alias hosts copy ca.crt to /etc/docker/certs.d/${authority(facts, alias.host)}/ and so on, one directory a host.`,
          ]),
      ...(facts.credentials
        ? [
            `The gateway asks for credentials: docker login ${authority(facts)}\nDocker sends its docker.io login, not this one, to a mirror: with credentials required, pull ${authority(facts)}/docker.io/library/NAME:TAG instead.`,
          ]
        : []),
    ],
  };
}

const HOSTS_DIR = '/etc/containerd/certs.d';

/**
 * containerd's `hosts.toml` (containerd docs/hosts.md): `_default` is for every registry that has no directory of its own, and
 * the registry travels in `?ns=`, so one file serves them all.
 */
function containerd(facts: ClientFacts): Written {
  const root = `${HOSTS_DIR}/_default/gateway-ca.crt`;
  const { files, notes } = caFile(facts, root);
  const trust = facts.ca === null ? '' : `  ca = "${root}"\n`;
  const single = facts.registries.find((registry) => registry !== 'docker.io') ?? 'docker.io';
  return {
    files: [
      {
        path: `${HOSTS_DIR}/_default/hosts.toml`,
        content: `[host."${baseUrl(facts)}"]\n  capabilities = ["pull", "resolve"]\n${trust}`,
      },
      ...files,
    ],
    notes: [
      ...notes,
      `config.toml must name the directory, then: systemctl restart containerd\n  containerd 2: [plugins."io.containerd.cri.v1.images".registry]\n  containerd 1: [plugins."io.containerd.grpc.v1.cri".registry]\n    config_path = "${HOSTS_DIR}"`,
      `ctr reads it with: ctr images pull --hosts-dir ${HOSTS_DIR} docker.io/library/alpine:latest`,
      `For one registry alone, use ${HOSTS_DIR}/${single}/hosts.toml instead, with:\n  [host."${facts.scheme}://${mirrorLocation(facts, single)?.replace('/', '/v2/') ?? baseUrl(facts)}"]\n    capabilities = ["pull", "resolve"]\n    override_path = true${facts.ca === null ? '' : `\n    ca = "${root}"`}`,
      ...(facts.credentials
        ? [
            `The gateway asks for credentials; give them to the host in hosts.toml:\n  [host."${baseUrl(facts)}".header]\n    authorization = "Basic <base64 of USER:TOKEN>"`,
          ]
        : []),
    ],
  };
}

const REGISTRIES_CONF = '/etc/containers/registries.conf.d/50-gateway.conf';

/** containers-registries.conf(5), version 2: each registry gets the gateway as its mirror, and itself as the fallback. */
function registriesConf(facts: ClientFacts): { content: string; left: string[] } {
  const left: string[] = [];
  const blocks = facts.registries.flatMap((registry) => {
    const location = mirrorLocation(facts, registry);
    if (location === null) {
      left.push(registry);
      return [];
    }
    const insecure = facts.scheme === 'http' ? 'insecure = true\n' : '';
    return [
      `[[registry]]\nprefix = "${registry}"\nlocation = "${registry}"\n\n[[registry.mirror]]\nlocation = "${location}"\n${insecure}`,
    ];
  });
  return { content: blocks.join('\n'), left };
}

function containers(facts: ClientFacts, after: string): Written {
  const { content, left } = registriesConf(facts);
  const trusted = trust(facts, left);
  return {
    files: [{ path: REGISTRIES_CONF, content }, ...trusted.flatMap(({ files }) => files)],
    notes: [
      ...trusted.flatMap(({ notes }) => notes),
      after,
      ...left.map(
        (registry) =>
          `${registry} has a port and no alias, so no name for it can be written here: add one with gateway alias add`,
      ),
      ...(facts.credentials ? [`The gateway asks for credentials: podman login ${authority(facts)}`] : []),
    ],
  };
}

/** The root for each host that a mirror names: the gateway itself, and the aliases of registries with a port. */
function trust(facts: ClientFacts, left: readonly string[]): ReturnType<typeof caFile>[] {
  const withPort = facts.registries.filter((registry) => registry.includes(':') && !left.includes(registry));
  const hosts = [authority(facts), ...withPort.map((registry) => mirrorLocation(facts, registry))];
  return hosts.map((host) => caFile(facts, `/etc/containers/certs.d/${host}/ca.crt`));
}

function podman(facts: ClientFacts): Written {
  return containers(
    facts,
    'Podman, Buildah and Skopeo read it at their next start. Without root: ~/.config/containers/ in place of /etc/containers/',
  );
}

function criO(facts: ClientFacts): Written {
  const written = containers(facts, 'Then: systemctl reload crio');
  if (!facts.credentials) return written;
  return {
    ...written,
    notes: [
      ...written.notes.slice(0, -1),
      `The gateway asks for credentials: podman login --authfile /var/lib/kubelet/config.json ${authority(facts)}\nand name that file in /etc/crio/crio.conf.d/: [crio.image] global_auth_file = "/var/lib/kubelet/config.json"`,
    ],
  };
}

const K3S_ROOT = '/etc/rancher/k3s/gateway-ca.crt';

/** k3s and RKE2 write containerd's hosts.toml from registries.yaml; the registry travels in `?ns=`. */
function k3s(facts: ClientFacts): Written {
  const { files, notes } = caFile(facts, K3S_ROOT);
  const host = {
    ...(facts.credentials ? { auth: { username: 'USER', password: 'TOKEN' } } : {}),
    ...(facts.ca === null ? {} : { tls: { ca_file: K3S_ROOT } }),
  };
  const document = {
    mirrors: Object.fromEntries(facts.registries.map((registry) => [registry, { endpoint: [baseUrl(facts)] }])),
    ...(Object.keys(host).length === 0 ? {} : { configs: { [authority(facts)]: host } }),
  };
  return {
    files: [{ path: '/etc/rancher/k3s/registries.yaml', content: yamlLibrary().stringify(document) }, ...files],
    notes: [
      ...notes,
      'On every node, then: systemctl restart k3s (or k3s-agent). RKE2 reads /etc/rancher/rke2/registries.yaml.',
      ...(facts.credentials ? ['Put a user of the gateway in place of USER and TOKEN: gateway user add NAME'] : []),
    ],
  };
}

const BUILDKIT_ROOT = '/etc/buildkit/gateway-ca.crt';

/** buildkitd.toml: a mirror is a host with an optional path, which BuildKit puts behind `/v2/`. */
function buildkit(facts: ClientFacts): Written {
  const { files, notes } = caFile(facts, BUILDKIT_ROOT);
  const blocks = facts.registries.map(
    (registry) => `[registry."${registry}"]\n  mirrors = ["${authority(facts)}/${registry}"]\n`,
  );
  if (facts.ca !== null) blocks.push(`[registry."${authority(facts)}"]\n  ca = ["${BUILDKIT_ROOT}"]\n`);
  if (facts.scheme === 'http') blocks.push(`[registry."${authority(facts)}"]\n  http = true\n`);
  return {
    files: [{ path: '/etc/buildkit/buildkitd.toml', content: blocks.join('\n') }, ...files],
    notes: [
      ...notes,
      'With Docker: docker buildx create --driver docker-container --config /etc/buildkit/buildkitd.toml --use',
      ...(facts.credentials ? [`The gateway asks for credentials: docker login ${authority(facts)}`] : []),
    ],
  };
}

/** `cr.example.com`, `localhost:8443`, `[::1]:8443`: as image names and file names write it. */
function authority(facts: ClientFacts, host: string = facts.domain): string {
  const name = isIP(host) === 6 ? `[${host}]` : host;
  return facts.port === null ? name : `${name}:${facts.port}`;
}

function baseUrl(facts: ClientFacts, host: string = facts.domain): string {
  return `${facts.scheme}://${authority(facts, host)}`;
}

/** A registry's place below the bare domain (`cr.example.com/quay.io`); a path of an image name cannot contain a port, so a registry with a port is reached by its alias. */
function mirrorLocation(facts: ClientFacts, registry: string): string | null {
  if (!registry.includes(':')) return `${authority(facts)}/${registry}`;
  const alias = facts.aliases.find((one) => one.registry === registry);
  return alias === undefined ? null : authority(facts, alias.host);
}

/** The root as a file of the client's machine, or what to do for it later. */
function caFile(facts: ClientFacts, path: string): { files: { path: string; content: string }[]; notes: string[] } {
  if (facts.ca === null) return { files: [], notes: [] };
  if (facts.ca.pem === null) {
    return {
      files: [],
      notes: [`The gateway makes its root certificate at its first start: then copy ${facts.ca.file} to ${path}`],
    };
  }
  return { files: [{ path, content: facts.ca.pem }], notes: [] };
}
