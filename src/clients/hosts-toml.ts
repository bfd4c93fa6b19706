import {
  authority,
  baseUrl,
  type ClientFacts,
  caFile,
  copyRoot,
  mirrorLocation,
  together,
  type Written,
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
const EVERY_VERSION: readonly Capability[] = ['pull', 'resolve'];
const WITH_REFERRERS: readonly Capability[] = [...EVERY_VERSION, 'referrers'];

/**
 * How long a gateway that does not answer may hold up a request before the registry itself is asked; containerd would wait 30 s. A pull connects up to
 * three times (for the tag, its referrers, and the manifests and layers), and is to go on within 5 s. Enough for a first packet that is lost: it is
 * repeated after 1 s (RFC 6298 §2).
 */
export const DIAL_TIMEOUT = '1500ms';

const quoted = (capabilities: readonly Capability[]) => `[${capabilities.map((one) => `"${one}"`).join(', ')}]`;

/** The table of one host; `ca` is a path on the client's machine. */
function hostTable(
  url: string,
  capabilities: readonly Capability[],
  ca: string | null,
  more: readonly string[] = [],
): string {
  const lines = [
    `capabilities = ${quoted(capabilities)}`,
    `dial_timeout = "${DIAL_TIMEOUT}"`,
    ...more,
    ...(ca === null ? [] : [`ca = "${ca}"`]),
  ];
  return `[host."${url}"]\n${lines.map((line) => `  ${line}\n`).join('')}`;
}

/**
 * `_default/hosts.toml` with the root beside it.
 * @param seen the folder `certs.d` as the client sees it
 * @param folder the same as it is called where the file is written
 */
function hostsFiles(facts: ClientFacts, capabilities: readonly Capability[], seen: string, folder = seen): Written {
  const name = '_default/gateway-ca.crt';
  const ca = facts.ca === null ? null : `${seen}/${name}`;
  const file = { path: `${folder}/_default/hosts.toml`, content: hostTable(baseUrl(facts), capabilities, ca) };
  return together({ files: [file], notes: [] }, caFile(facts, `${folder}/${name}`));
}

function headerNote(facts: ClientFacts): string[] {
  if (!facts.credentials) return [];
  return [
    `The gateway asks for credentials. Clients send a login only to the host that it is for, never to a mirror: give the gateway its own in hosts.toml (mode 0600):\n  [host."${baseUrl(facts)}".header]\n    authorization = "Basic <base64 of USER:TOKEN>"`,
  ];
}

const DOCKER_CERTS = '/etc/docker/certs.d';

/**
 * Docker mirrors docker.io by `registry-mirrors`, whichever store it keeps images in; with containerd's store it reads `hosts.toml` as well,
 * for every registry, at each pull. Both are written: each Docker takes from them what it knows.
 */
export function docker(facts: ClientFacts): Written {
  const ownCa = `${DOCKER_CERTS}/${authority(facts)}/ca.crt`;
  const daemon = {
    'registry-mirrors': [baseUrl(facts)],
    ...(facts.scheme === 'http' ? { 'insecure-registries': [authority(facts)] } : {}),
  };
  const hosts = hostsFiles(facts, WITH_REFERRERS, DOCKER_CERTS);
  const trusted = caFile(facts, ownCa);
  const other = facts.registries.find(
    (registry) => registry !== 'docker.io' && mirrorLocation(facts, registry) !== null,
  );
  const alias = facts.aliases.find((one) => one.registry === other);
  const names = [
    ...(other === undefined ? [] : [`docker pull ${mirrorLocation(facts, other)}/NAME:TAG`]),
    ...(alias === undefined ? [] : [`docker pull ${authority(facts, alias.host)}/NAME:TAG`]),
  ];
  const notes = [
    `Docker 29 and later, with the containerd image store (what new installations have; docker info then says
"driver-type: io.containerd.snapshotter.v1"): ${DOCKER_CERTS}/_default/hosts.toml mirrors every registry, names
unchanged, from the next pull on, without a restart. It needs the word "referrers": without it each layer comes through the
gateway, and then the pull fails where the registry itself cannot be reached. Keep it to this one host: with two or more,
Docker passes registry-mirrors over.`,
    `Docker 28 with the containerd image store: the same file without that word, which it does not know; it passes the whole
file over for it:
  capabilities = ${quoted(EVERY_VERSION)}`,
    `Docker with the classic image store (before 29, and installations that were upgraded): daemon.json mirrors docker.io
and nothing else. Keep what it has already and add these keys, then: systemctl restart docker`,
    ...(names.length === 0
      ? []
      : [`It pulls from other registries by a name under the gateway:\n  ${names.join('\n  ')}`]),
    ...copyRoot(facts, DOCKER_CERTS, ownCa),
    ...headerNote(facts),
    ...(facts.credentials
      ? [
          `The classic store sends its docker.io login to a mirror, not this one: there, docker login ${authority(facts)}\nand pull ${authority(facts)}/docker.io/library/NAME:TAG`,
        ]
      : []),
  ];
  const daemonJson = { path: '/etc/docker/daemon.json', content: `${JSON.stringify(daemon, null, 2)}\n` };
  return together(hosts, { files: [daemonJson], notes: [] }, trusted, { files: [], notes });
}

const CONTAINERD_CERTS = '/etc/containerd/certs.d';

export function containerd(facts: ClientFacts): Written {
  const single = facts.registries.find((registry) => registry !== 'docker.io') ?? 'docker.io';
  const singleUrl = `${facts.scheme}://${mirrorLocation(facts, single)?.replace('/', '/v2/') ?? authority(facts)}`;
  const ca = facts.ca === null ? null : `${CONTAINERD_CERTS}/_default/gateway-ca.crt`;
  const alone = hostTable(singleUrl, EVERY_VERSION, ca, ['override_path = true']);
  return together(hostsFiles(facts, EVERY_VERSION, CONTAINERD_CERTS), {
    files: [],
    notes: [
      `It is read at each pull. config.toml must name the folder (containerd 2.2 and later look there by themselves), then:
systemctl restart containerd
  containerd 2: [plugins."io.containerd.cri.v1.images".registry]
  containerd 1: [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "${CONTAINERD_CERTS}"`,
      `containerd 2.2 and later: add "referrers", so that signatures and attestations are asked of the gateway too:
  capabilities = ${quoted(WITH_REFERRERS)}
Earlier ones (1.6, 1.7, 2.0, 2.1) do not know that word: they log "unknown capability", pass the whole file over and pull past
the gateway. dial_timeout is known from 2.1 on; earlier ones wait 30 s for a gateway that does not answer.`,
      `ctr reads it with: ctr images pull --hosts-dir ${CONTAINERD_CERTS} docker.io/library/alpine:latest
nerdctl by itself: nerdctl pull alpine`,
      `For one registry alone, use ${CONTAINERD_CERTS}/${single}/hosts.toml instead, with:\n${alone.trimEnd().replace(/^/gm, '  ')}`,
      ...headerNote(facts),
    ],
  });
}

const KIND_CERTS = '/etc/registry-gateway/kind/certs.d';

/** kind's nodes run containerd; they are given the folder of `hosts.toml`. */
export function kind(facts: ClientFacts): Written {
  const cluster = [
    'kind: Cluster',
    'apiVersion: kind.x-k8s.io/v1alpha4',
    'nodes:',
    '- role: control-plane',
    '  extraMounts:',
    `  - hostPath: ${KIND_CERTS}`,
    `    containerPath: ${CONTAINERD_CERTS}`,
    '    readOnly: true',
  ];
  return together(
    { files: [{ path: 'kind-cluster.yaml', content: `${cluster.join('\n')}\n` }], notes: [] },
    hostsFiles(facts, EVERY_VERSION, CONTAINERD_CERTS, KIND_CERTS),
    {
      files: [],
      notes: [
        'Give every node that kind-cluster.yaml lists the same extraMounts, then: kind create cluster --config kind-cluster.yaml',
        `kind 0.27 and later have nodes that read ${CONTAINERD_CERTS}; for earlier ones add to kind-cluster.yaml:\n  containerdConfigPatches:\n  - |-\n    [plugins."io.containerd.grpc.v1.cri".registry]\n      config_path = "${CONTAINERD_CERTS}"`,
        ...fromNodes(facts),
        ...headerNote(facts),
      ],
    },
  );
}

const MINIKUBE_FILES = '~/.minikube/files';

/** What lies below `~/.minikube/files` is copied to the same place of each node at its start; a node runs containerd or Docker. */
export function minikube(facts: ClientFacts): Written {
  return together(
    hostsFiles(facts, EVERY_VERSION, CONTAINERD_CERTS, `${MINIKUBE_FILES}${CONTAINERD_CERTS}`),
    hostsFiles(facts, WITH_REFERRERS, DOCKER_CERTS, `${MINIKUBE_FILES}${DOCKER_CERTS}`),
    {
      files: [],
      notes: [
        `minikube copies them to its nodes at: minikube start --container-runtime=containerd (the first) or --container-runtime=docker (the second, which mirrors every registry where the node has Docker 29 or later with the containerd image store)`,
        `Nodes with an earlier Docker mirror docker.io alone: minikube start --registry-mirror=${baseUrl(facts)}${facts.ca === null ? '' : `, with the root in ${MINIKUBE_FILES}${DOCKER_CERTS}/${authority(facts)}/ca.crt`}`,
        ...fromNodes(facts),
        ...headerNote(facts),
      ],
    },
  );
}

/** A node in a container or a virtual machine has a loopback of its own. */
function fromNodes({ domain }: ClientFacts): string[] {
  if (domain !== 'localhost' && !domain.endsWith('.localhost') && !/^127\.|^::1$/.test(domain)) return [];
  return [
    `Inside a node ${domain} is the node itself: give the gateway a domain or address that nodes can reach (GATEWAY_DOMAIN, GATEWAY_LISTEN_HTTPS).`,
  ];
}
