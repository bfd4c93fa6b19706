import { yamlLibrary } from '../kit/yaml-text.ts';
import {
  authority,
  baseUrl,
  type ClientConfiguration,
  type ClientFacts,
  type ClientKind,
  caFile,
  copyRoot,
  mirrorLocation,
  ownHosts,
  together,
  type Written,
} from './facts.ts';
import { containerd, docker, kind, minikube } from './hosts-toml.ts';

const WRITERS: Record<ClientKind, (facts: ClientFacts) => Written> = {
  docker,
  containerd,
  podman,
  k3s,
  'cri-o': criO,
  buildkit,
  kind,
  minikube,
};

/** A client's configuration for this gateway: its files with their paths, and what else is to be done. */
export function clientConfiguration(kind: ClientKind, facts: ClientFacts): ClientConfiguration {
  return { client: kind, ...WRITERS[kind](facts) };
}

/** The same as text for a person: each file under its path, the notes as comments. */
export function configurationText({ files, notes }: ClientConfiguration): string {
  const shown = files.map(
    ({ path, content }) => `# ---- ${path}\n${content.endsWith('\n') ? content : `${content}\n`}`,
  );
  const comments = notes.map((note) => note.replace(/^/gm, '# ').replace(/ +$/gm, ''));
  const said = comments.length === 0 ? '' : `\n${comments.join('\n')}\n`;
  return `${shown.join('\n')}${said}`;
}

const REGISTRIES_CONF = '/etc/containers/registries.conf.d/50-gateway.conf';
const CONTAINERS_CERTS = '/etc/containers/certs.d';

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
      ...patternNotes(facts),
      ...copyRoot(facts, CONTAINERS_CERTS, `${CONTAINERS_CERTS}/${authority(facts)}/ca.crt`),
      ...(facts.credentials ? [`The gateway asks for credentials: podman login ${authority(facts)}`] : []),
    ],
  };
}

/** For clients that have to be told every registry by its name. */
function patternNotes({ patterns }: ClientFacts): string[] {
  if (patterns.length === 0) return [];
  return [
    `A pattern cannot be written here: of ${patterns.join(', ')} add each host that you pull from, as the others are.`,
  ];
}

/** The root for each host that a mirror names: the gateway itself, and the aliases of registries with a port. */
function trust(facts: ClientFacts, left: readonly string[]): Written[] {
  const withPort = facts.registries.filter((registry) => registry.includes(':') && !left.includes(registry));
  const hosts = [authority(facts), ...withPort.map((registry) => mirrorLocation(facts, registry))];
  return hosts.map((host) => caFile(facts, `${CONTAINERS_CERTS}/${host}/ca.crt`));
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

/**
 * k3s and RKE2 write containerd's hosts.toml from registries.yaml; the registry travels in `?ns=`. What they need to trust and to log in goes
 * by host, so each host of the gateway that a name may begin with has it.
 */
function k3s(facts: ClientFacts): Written {
  const host = {
    ...(facts.credentials ? { auth: { username: 'USER', password: 'TOKEN' } } : {}),
    ...(facts.ca === null ? {} : { tls: { ca_file: K3S_ROOT } }),
  };
  const mirrors = facts.registries.map((registry) => [registry, { endpoint: [baseUrl(facts)] }]);
  const configs = Object.keys(host).length === 0 ? [] : ownHosts(facts).map((one) => [one, host]);
  const document = {
    mirrors: Object.fromEntries(mirrors),
    ...(configs.length === 0 ? {} : { configs: Object.fromEntries(configs) }),
  };
  // Anchors would be valid, and unreadable to those who paste.
  const content = yamlLibrary().stringify(document, { aliasDuplicateObjects: false });
  return together(
    { files: [{ path: '/etc/rancher/k3s/registries.yaml', content }], notes: [] },
    caFile(facts, K3S_ROOT),
    {
      files: [],
      notes: [
        'On every node, then: systemctl restart k3s (or k3s-agent). RKE2 reads /etc/rancher/rke2/registries.yaml.',
        'k3s writes the hosts.toml of its containerd from it, and knows no "referrers" there: what verifies signatures asks the registries themselves.',
        ...patternNotes(facts),
        ...(facts.credentials ? ['Put a user of the gateway in place of USER and TOKEN: gateway user add NAME'] : []),
      ],
    },
  );
}

const BUILDKIT_ROOT = '/etc/buildkit/gateway-ca.crt';

/**
 * buildkitd.toml: a mirror is a host with an optional path, which BuildKit puts behind `/v2/`. What it trusts goes by host: FROM may name the
 * bare domain or any alias host, so each has its entry.
 */
function buildkit(facts: ClientFacts): Written {
  const blocks = facts.registries.map(
    (registry) => `[registry."${registry}"]\n  mirrors = ["${authority(facts)}/${registry}"]\n`,
  );
  const trusts = [
    ...(facts.ca === null ? [] : [`  ca = ["${BUILDKIT_ROOT}"]\n`]),
    ...(facts.scheme === 'http' ? ['  http = true\n'] : []),
  ].join('');
  if (trusts !== '') blocks.push(...ownHosts(facts).map((host) => `[registry."${host}"]\n${trusts}`));
  return together(
    { files: [{ path: '/etc/buildkit/buildkitd.toml', content: blocks.join('\n') }], notes: [] },
    caFile(facts, BUILDKIT_ROOT),
    {
      files: [],
      notes: [
        'With Docker: docker buildx create --driver docker-container --config /etc/buildkit/buildkitd.toml --use',
        ...patternNotes(facts),
        ...(facts.credentials ? [`The gateway asks for credentials: docker login ${authority(facts)}`] : []),
      ],
    },
  );
}
