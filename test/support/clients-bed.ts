import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type DockerRegistry, startDockerRegistry } from './docker-registry.ts';
import { startGateway, type TestGateway } from './gateway.ts';
import { GATEWAY_ADDRESS, type Namespace, openNamespace } from './namespace.ts';
import { buildImage, type TestImage, withAttestation } from './oci-image.ts';
import { ofParts } from './parts.ts';

/** What `openClientsBed` needs of the machine. */
export const CLIENTS_BED_NEEDS = [
  'linux',
  'root',
  'docker-registry',
  'skopeo',
  'unshare',
  'nsenter',
  'ip',
  'mount',
] as const;

export const DOMAIN = 'cr.example.com';
const ALIAS = `corp.${DOMAIN}`;

/** Registries of the gateway's own first table, all of which lead to the bed's one upstream. */
const REGISTRIES = ['docker.io', 'quay.io', 'ghcr.io', 'gcr.io', 'registry.k8s.io', 'mcr.microsoft.com'];
/** Names in each of them. */
const IMAGES_EACH = 10;

/** Folders of the machine that clients read, which are the bed's own there. */
const ETC = ['/etc/containers', '/etc/containerd', '/etc/docker'];

/**
 * Clients, a gateway on its usual ports and one real registry behind it, in a network that has no way out and knows no other names: what
 * arrives came through the gateway.
 */
export interface ClientsBed {
  readonly space: Namespace;
  readonly upstream: DockerRegistry;
  readonly gateway: TestGateway;
  readonly folder: string;
  /** Sixty references of six registries, each with the image that it stands for. */
  readonly unchanged: ReadonlyMap<string, TestImage>;
  /** Puts the files of `gateway client KIND` where they say; their contents by path. */
  configure(kind: string): Promise<ReadonlyMap<string, string>>;
  close(): Promise<void>;
}

export function openClientsBed(options: {
  /** Pushed besides, under each of the names, tag `1`. */
  readonly image: TestImage;
  readonly names: readonly string[];
  /** More names of the network and their addresses. */
  readonly hosts?: Readonly<Record<string, string>>;
}): Promise<ClientsBed> {
  return ofParts(async ({ keep, defer }) => {
    const folder = mkdtempSync(join(tmpdir(), 'clients-'));
    defer(() => rmSync(folder, { recursive: true, force: true }));
    const binds = Object.fromEntries(ETC.map((path) => [path, join(folder, path)]));
    for (const source of Object.values(binds)) mkdirSync(source, { recursive: true });
    const hosts = { [DOMAIN]: GATEWAY_ADDRESS, [ALIAS]: GATEWAY_ADDRESS, ...options.hosts };
    const space = await keep(openNamespace({ hosts, binds }));
    const upstream = await keep(startDockerRegistry({ within: space }));
    for (const name of options.names) await upstream.push(options.image, name, '1');
    const unchanged = new Map<string, TestImage>();
    for (let index = 0; index < IMAGES_EACH; index++) {
      const image = withAttestation(buildImage(`unchanged-${index}`, [20_000, 3_000]));
      await upstream.push(image, `team/app-${index}`, '1');
      for (const registry of REGISTRIES) unchanged.set(`${registry}/team/app-${index}:1`, image);
    }
    const gateway = await keep(
      startGateway({
        within: space,
        config: {
          domain: DOMAIN,
          tls: { mode: 'internal' },
          listen: { https: `${GATEWAY_ADDRESS}:443`, http: `${GATEWAY_ADDRESS}:80` },
        },
      }),
    );
    for (const registry of REGISTRIES) await gateway.ok('registry', 'set', registry, '--endpoint', upstream.endpoint);
    await gateway.ok('alias', 'add', 'corp', 'registry.corp:5000', '--endpoint', upstream.endpoint);
    return {
      space,
      upstream,
      gateway,
      folder,
      unchanged,
      async configure(kind) {
        const { files } = JSON.parse(await gateway.ok('client', kind, '--json')) as {
          files: { path: string; content: string }[];
        };
        for (const { path, content } of files) {
          const file = join(folder, path);
          mkdirSync(dirname(file), { recursive: true });
          writeFileSync(file, content);
        }
        return new Map(files.map(({ path, content }) => [path, content]));
      },
    };
  });
}

/** Pulls all of them, some at a time; the references that failed, each with what its client said. */
export async function pullAll(
  references: Iterable<string>,
  pull: (reference: string) => Promise<{ readonly code: number | null; readonly stderr: string }>,
): Promise<string[]> {
  const waiting = [...references];
  const failed: string[] = [];
  const worker = async (): Promise<void> => {
    for (let reference = waiting.shift(); reference !== undefined; reference = waiting.shift()) {
      const { code, stderr } = await pull(reference);
      if (code !== 0) failed.push(`${reference}: ${stderr}`);
    }
  };
  await Promise.all([worker(), worker(), worker()]);
  return failed;
}
