import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DockerRegistry, startDockerRegistry } from './docker-registry.ts';
import { type Dockerd, startDockerd, writeTrust } from './dockerd.ts';
import { startGateway, type TestGateway } from './gateway.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from './namespace.ts';
import type { TestImage } from './oci-image.ts';
import { ofParts } from './parts.ts';
import { type Pulled, skopeoPull } from './skopeo.ts';

/** What `startDockerBed` needs of the machine. */
export const DOCKER_BED_NEEDS = [
  'linux',
  'root',
  'docker-registry',
  'skopeo',
  'dockerd',
  'docker',
  'unshare',
  'nsenter',
  'ip',
  'mount',
] as const;

export interface DockerBedOptions {
  readonly domain: string;
  /** Hosts of the gateway besides the domain. */
  readonly hosts: readonly string[];
  /** The host that dockerd has as its mirror. */
  readonly mirror: string;
  /** Image, repository and tag of what the upstream holds. */
  readonly images: readonly (readonly [TestImage, string, string])[];
  /** Registries of the gateway that lead to the upstream. */
  readonly registries: readonly string[];
  /** Of the gateway, besides where it listens. */
  readonly config?: Record<string, unknown>;
}

/** A real registry, a gateway on its usual ports before it, and Docker that trusts it, in a network of their own. */
export interface DockerBed {
  readonly space: Namespace;
  readonly upstream: DockerRegistry;
  readonly gateway: TestGateway;
  readonly daemon: Dockerd;
  /** By skopeo, under the gateway's own CA. */
  pull(image: string): Promise<Pulled>;
  /** Takes the CA away from Docker for one host, or gives it back. */
  distrust(host: string): void;
  trust(host: string): void;
  close(): Promise<void>;
}

export function startDockerBed(options: DockerBedOptions): Promise<DockerBed> {
  return ofParts(async ({ keep, defer }) => {
    const hosts = [options.domain, ...options.hosts];
    const etcDocker = mkdtempSync(join(tmpdir(), 'etc-docker-'));
    defer(() => rmSync(etcDocker, { recursive: true, force: true }));
    const space = await keep(
      openNamespace({
        hosts: Object.fromEntries(hosts.map((host) => [host, GATEWAY_ADDRESS])),
        binds: { '/etc/docker': etcDocker },
      }),
    );
    const upstream = await keep(startDockerRegistry({ within: space }));
    for (const [image, repository, tag] of options.images) await upstream.push(image, repository, tag);
    const gateway = await keep(
      startGateway({
        within: space,
        config: {
          domain: options.domain,
          tls: { mode: 'internal' },
          listen: { https: `${GATEWAY_ADDRESS}:443`, http: `${GATEWAY_ADDRESS}:80` },
          ...options.config,
        },
      }),
    );
    for (const registry of options.registries) {
      await gateway.ok('registry', 'set', registry, '--endpoint', upstream.endpoint);
    }
    const ca = readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8');
    writeTrust(etcDocker, hosts, ca);
    const daemon = await keep(startDockerd({ within: space, registryMirrors: [`https://${options.mirror}`] }));
    return {
      space,
      upstream,
      gateway,
      daemon,
      pull: (image) => skopeoPull({ image, ca, within: space }),
      distrust: (host) => rmSync(join(etcDocker, 'certs.d', host), { recursive: true }),
      trust: (host) => writeTrust(etcDocker, [host], ca),
    };
  });
}
