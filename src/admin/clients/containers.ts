import type { ClientConfiguration } from '../rows.ts';
import { authority, type ClientFacts, caFile, mirrorLocation } from './facts.ts';

const REGISTRIES = '/etc/containers/registries.conf.d/50-gateway.conf';

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

function containers(facts: ClientFacts, after: string): Omit<ClientConfiguration, 'client'> {
  const { content, left } = registriesConf(facts);
  const trusted = trust(facts, left);
  return {
    files: [{ path: REGISTRIES, content }, ...trusted.flatMap(({ files }) => files)],
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

export function podman(facts: ClientFacts): Omit<ClientConfiguration, 'client'> {
  return containers(
    facts,
    'Podman, Buildah and Skopeo read it at their next start. Without root: ~/.config/containers/ in place of /etc/containers/',
  );
}

export function criO(facts: ClientFacts): Omit<ClientConfiguration, 'client'> {
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
