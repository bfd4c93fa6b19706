import { execFile } from 'node:child_process';
import { OperatorError } from '../../kit/operator-error.ts';
import { yamlLibrary } from '../../kit/yaml-text.ts';
import type { ClientFacts, ClientKind, Login } from '../facts.ts';
import { authority, baseUrl, basicOf } from '../facts.ts';
import { getFromGateway } from '../gateway-get.ts';
import { readToml } from '../toml.ts';
import type { ClientFiles } from './files.ts';

/** How a client's files lead to the gateway. */
export interface Way {
  /** The file that says so. */
  readonly file: string;
  /** Where the registry API begins: `https://cr.example.com/v2/` or with a registry behind it. */
  readonly base: string;
  /** Whether the registry travels in `?ns=`. */
  readonly ns: boolean;
  /** A file with what the gateway's certificate is signed by; null for the machine's own. */
  readonly ca: string | null;
  /** The value of `Authorization` that the file has; null for none. */
  readonly authorization: string | null;
}

/** A manifest that came on a way. */
export interface Pulled extends Way {
  readonly image: string;
  readonly digest: string;
}

/** How long the gateway may take to fetch a manifest that it does not have, ms. */
const PATIENCE = 60_000;
/** distribution-spec, *Pushing manifests*: registries take 4 MiB. */
const MAX_MANIFEST = 4 * 1024 * 1024;
/** What clients take of manifests. */
const ACCEPT = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
].join(', ');

/** Small images that have been where they are for years, for those who name none. */
const SAMPLES: Readonly<Record<string, string>> = {
  'docker.io': 'library/hello-world:latest',
  'registry.k8s.io': 'pause:3.9',
  'quay.io': 'prometheus/busybox:latest',
  'mcr.microsoft.com': 'hello-world:latest',
  'ghcr.io': 'linuxcontainers/alpine:latest',
};

/** An image of one of the gateway's registries to try: `docker.io/library/hello-world:latest`. @throws {OperatorError} usage */
export function sampleOf({ registries }: ClientFacts): string {
  const registry = Object.keys(SAMPLES).find((one) => registries.includes(one));
  if (registry === undefined) {
    throw new OperatorError('INPUT_INVALID', 'there is no image that this gateway is sure to have', {
      next: 'name one of its registries: --image REGISTRY/NAME:TAG',
    });
  }
  return `${registry}/${SAMPLES[registry]}`;
}

/**
 * Every way to the gateway that the files of a client have, for images of a registry; what a client reads from them is read here in the same form.
 * @throws {OperatorError} CLIENT_CHECK_FAILED where there is none
 */
export function waysOf(
  kind: ClientKind,
  files: ClientFiles,
  facts: ClientFacts,
  paths: readonly string[],
  registry: string,
): Way[] {
  const ways = paths.flatMap((path) => {
    const stored = files.read(path);
    const text = stored?.bytes.toString().replace(/^\uFEFF/, '') ?? '';
    return text === '' ? [] : wayIn(kind, path, text, facts, registry);
  });
  if (ways.length > 0) return ways;
  throw new OperatorError(
    'CLIENT_CHECK_FAILED',
    `no file of ${kind} leads ${registry} to ${baseUrl(facts)}; looked at ${paths.join(', ')}`,
  );
}

function wayIn(kind: ClientKind, path: string, text: string, facts: ClientFacts, registry: string): Way[] {
  const url = baseUrl(facts);
  const way = { file: path, base: `${url}/v2/`, ns: true, ca: null, authorization: null };
  if (path.endsWith('hosts.toml')) {
    // A registry's own folder goes before the one for all others.
    const folder = path.split('/').at(-2);
    if (folder !== '_default' && folder !== registry) return [];
    const { host } = readToml(path, text) as { host?: Record<string, HostTable> };
    const found = host?.[url];
    return found === undefined
      ? []
      : [{ ...way, ca: first(found.ca), authorization: first(found.header?.authorization) }];
  }
  if (path.endsWith('.json')) {
    const mirrors = (JSON.parse(text) as { 'registry-mirrors'?: string[] })['registry-mirrors'] ?? [];
    const ours = mirrors.some((mirror) => mirror.replace(/\/$/, '') === url);
    return ours && registry === 'docker.io'
      ? [{ ...way, ns: false, ca: certificateOf(kind, facts, authority(facts)) }]
      : [];
  }
  if (path.endsWith('registries.yaml')) {
    const { mirrors, configs } = (yamlLibrary().parse(text) ?? {}) as RegistriesYaml;
    if (mirrors?.[registry]?.endpoint?.includes(url) !== true) return [];
    const own = configs?.[authority(facts)];
    const { username, password } = own?.auth ?? {};
    const login = username === undefined || password === undefined ? null : basicOf({ username, password });
    return [{ ...way, ca: own?.tls?.ca_file ?? null, authorization: login }];
  }
  if (path.endsWith('buildkitd.toml')) {
    const { registry: tables } = readToml(path, text) as {
      registry?: Record<string, { mirrors?: string[]; ca?: string[] }>;
    };
    const mirror = tables?.[registry]?.mirrors?.find((one) => one.startsWith(authority(facts)));
    if (mirror === undefined) return [];
    return [{ ...way, base: inMirror(facts, mirror), ns: false, ca: tables?.[authority(facts)]?.ca?.[0] ?? null }];
  }
  if (path.endsWith('.conf') && path.includes('/registries')) {
    const { registry: entries = [] } = readToml(path, text) as { registry?: RegistryEntry[] };
    const hosts = [authority(facts), ...facts.aliases.map(({ host }) => authority(facts, host))];
    const mirrors = entries.find(({ prefix, location }) => (prefix || location) === registry)?.mirror ?? [];
    const mirror = mirrors.find(({ location }) => hosts.includes(location.split('/')[0] ?? ''))?.location;
    if (mirror === undefined) return [];
    const ca = certificateOf(kind, facts, mirror.split('/')[0] ?? '', path.replace(/\/registries\.conf.*/, ''));
    return [{ ...way, base: inMirror(facts, mirror), ns: false, ca }];
  }
  return [];
}

interface HostTable {
  readonly ca?: string | string[];
  readonly header?: { readonly authorization?: string | string[] };
}
interface RegistriesYaml {
  readonly mirrors?: Record<string, { endpoint?: string[] } | undefined>;
  readonly configs?: Record<
    string,
    { auth?: { username?: string; password?: string }; tls?: { ca_file?: string } } | undefined
  >;
}
interface RegistryEntry {
  readonly prefix?: string;
  readonly location?: string;
  readonly mirror?: readonly { readonly location: string }[];
}

function first(value: string | readonly string[] | undefined): string | null {
  return (typeof value === 'string' ? value : value?.[0]) ?? null;
}

function inMirror({ scheme }: ClientFacts, mirror: string): string {
  const slash = mirror.indexOf('/');
  return slash < 0
    ? `${scheme}://${mirror}/v2/`
    : `${scheme}://${mirror.slice(0, slash)}/v2/${mirror.slice(slash + 1)}/`;
}

/** Where Docker and the containers tools look for what a host's certificate is signed by. */
function certificateOf(kind: ClientKind, { ca }: ClientFacts, host: string, base = '/etc/containers'): string | null {
  if (ca === null) return null;
  return kind === 'docker' ? `/etc/docker/certs.d/${host}/ca.crt` : `${base}/certs.d/${host}/ca.crt`;
}

/**
 * Asks for an image's manifest on a way, trusting what the client trusts and saying what it says.
 * @param image with its registry: `docker.io/library/alpine:latest`
 * @param certificate where on this machine a client's path is
 * @throws {OperatorError} CLIENT_CHECK_FAILED
 */
export async function pullManifest(
  way: Way,
  image: string,
  files: ClientFiles,
  login: Login | null,
  signal: AbortSignal,
): Promise<Pulled> {
  const { registry, repository, reference } = partsOf(image);
  const query = way.ns ? `?ns=${encodeURIComponent(registry)}` : '';
  const url = new URL(`${way.base}${repository}/manifests/${reference}${query}`);
  const authority = way.ca === null ? null : files.read(way.ca);
  const fail = (why: string, next?: string) =>
    new OperatorError(
      'CLIENT_CHECK_FAILED',
      `${image} does not come as ${way.file} says (${url.origin}): ${why}`,
      next === undefined ? {} : { next },
    );
  if (way.ca !== null && authority === null) throw fail(`${way.ca}, which signs for the gateway, is not there`);
  const authorization = way.authorization ?? (login === null ? null : basicOf(login));
  const headers = { accept: ACCEPT, ...(authorization === null ? {} : { authorization }) };
  const ca = authority === null ? null : authority.bytes.toString();
  const question = { headers, ca, patience: PATIENCE, limit: MAX_MANIFEST, signal };
  const { status, digest, text } = await getFromGateway(url, question).catch((cause: Error) => {
    throw fail(cause.message);
  });
  if (status === 200 && digest !== null) return { ...way, image, digest };
  if (status === 401) throw fail('the gateway asks for credentials', 'give a user: --username NAME --password-stdin');
  throw fail(
    `it answers ${status}: ${reasonIn(text)}`,
    'gateway doctor, where the gateway runs, says what is wrong with it',
  );
}

function partsOf(image: string): {
  readonly registry: string;
  readonly repository: string;
  readonly reference: string;
} {
  const slash = image.indexOf('/');
  const name = image.slice(slash + 1);
  const at = name.includes('@') ? name.indexOf('@') : name.lastIndexOf(':');
  const [repository, reference] =
    at < 0 ? [name, 'latest'] : [name.slice(0, at).replace(/:[^/:]*$/, ''), name.slice(at + 1)];
  return { registry: image.slice(0, slash), repository, reference };
}

function reasonIn(text: string): string {
  try {
    return (JSON.parse(text) as { errors: { message: string }[] }).errors[0]?.message ?? text;
  } catch {
    return text.slice(0, 200);
  }
}

/** How each kind of client is asked to pull by its own means; the first program that is there. */
const PROGRAMS: Readonly<Partial<Record<ClientKind, readonly (readonly [string, ...string[]])[]>>> = {
  docker: [['docker', 'pull', '--quiet']],
  containerd: [
    ['crictl', 'pull'],
    ['nerdctl', 'pull', '--quiet'],
    ['ctr', 'images', 'pull', '--hosts-dir', '/etc/containerd/certs.d'],
  ],
  podman: [
    ['podman', 'pull', '--quiet'],
    ['skopeo', 'inspect', '--format', '{{.Digest}}'],
  ],
  'cri-o': [['crictl', 'pull']],
  k3s: [
    ['k3s', 'crictl', 'pull'],
    ['/var/lib/rancher/rke2/bin/crictl', 'pull'],
  ],
};

/**
 * Pulls an image with the client itself; returns the command line, null where the program is not there.
 * @throws {OperatorError} CLIENT_CHECK_FAILED
 */
export async function withProgram(kind: ClientKind, image: string, signal: AbortSignal): Promise<string | null> {
  for (const [program, ...args] of PROGRAMS[kind] ?? []) {
    const command = [...args, program === 'skopeo' ? `docker://${image}` : image];
    const line = `${program} ${command.join(' ')}`;
    const error = await run(program, command, { signal });
    if (error === null) return line;
    if (error.code === 'ENOENT') continue;
    const why = (error.stderr ?? '').trim().split('\n').at(-1);
    throw new OperatorError(
      'CLIENT_CHECK_FAILED',
      `${line} failed: ${why === undefined || why === '' ? error.message : why}`,
      {
        next: `the gateway itself gives the image as the files say: has ${kind} been restarted since?`,
      },
    );
  }
  return null;
}

type RunFailure = Error & { readonly code?: unknown; readonly stderr?: string };

function run(
  program: string,
  args: readonly string[],
  { signal }: { readonly signal: AbortSignal },
): Promise<RunFailure | null> {
  return new Promise((resolve) => {
    execFile(program, [...args], { signal, encoding: 'utf8' }, (error, _stdout, stderr) => {
      resolve(error === null ? null : Object.assign(error, { stderr }));
    });
  });
}
