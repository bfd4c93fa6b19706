import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Bench, ONE_THREAD, type Peer, peer, registryAlone } from './peers.ts';
import { freePort, Server } from './process.ts';

/** Where a proxy fetches what it does not have: the same files, plain and over TLS with the certificate of this run. */
export interface Upstream {
  readonly url: string;
  readonly tlsPort: number;
}

/** A pull-through proxy, and how it is started on an empty directory of its own below `bench.dir`. */
export interface PullThrough {
  readonly name: string;
  readonly start: (bench: Bench, directory: string, upstream: Upstream) => Promise<Peer>;
}

/** Debian's, which every run has. */
export const DOCKER_REGISTRY: PullThrough = {
  name: '(b) registry',
  start: (bench, directory, { url }) => registryAlone(bench, directory, url),
};

/** Those of the proxies that people use whose programs are on PATH: `registry` 3, zot and crproxy. */
export function otherProxies(): PullThrough[] {
  const proxies: PullThrough[] = [];
  // Debian's docker-registry is version 2 of the same program, and elsewhere it has the name of version 3.
  const [registry] = /\bv?3\.[\w.-]+/.exec(versionOf('registry', '--version') ?? '') ?? [];
  if (registry !== undefined) {
    proxies.push({
      name: `registry ${registry}`,
      start: (bench, directory, { url }) => registryAlone(bench, directory, url, 'registry'),
    });
  }
  if (versionOf('zot', '--version') !== null) proxies.push({ name: 'zot', start: zot });
  if (versionOf('crproxy', '--help') !== null) proxies.push({ name: 'crproxy, no cache', start: crproxy });
  return proxies;
}

/** What the program prints of itself; null where it is not on PATH. */
function versionOf(program: string, option: string): string | null {
  try {
    return execFileSync(program, [option], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    // It runs, but does not know the option or exits otherwise than with 0.
    return '';
  }
}

/** Its `sync` extension, which fetches a whole image when its manifest is asked for. */
async function zot(bench: Bench, directory: string, { url }: Upstream): Promise<Peer> {
  const dir = join(bench.dir, directory);
  mkdirSync(dir, { recursive: true });
  const port = await freePort();
  const file = join(dir, 'config.json');
  const config = {
    distSpecVersion: '1.1.1',
    storage: { rootDirectory: join(dir, 'data'), gc: false },
    http: { address: '127.0.0.1', port: String(port), tls: { cert: bench.cert, key: bench.key } },
    log: { level: 'error' },
    extensions: {
      sync: {
        enable: true,
        registries: [{ urls: [url], onDemand: true, tlsVerify: false, content: [{ prefix: '**' }] }],
      },
    },
  };
  writeFileSync(file, JSON.stringify(config));
  const server = await Server.start({ command: 'zot', args: ['serve', file], port, env: ONE_THREAD });
  return peer('zot', port, [server]);
}

/** As it is without a storage: it asks its upstreams over TLS only. */
async function crproxy(bench: Bench, _directory: string, { tlsPort }: Upstream): Promise<Peer> {
  const port = await freePort();
  const server = await Server.start({
    command: 'crproxy',
    args: [
      `--address=127.0.0.1:${port}`,
      `--cert-file=${bench.cert}`,
      `--private-key-file=${bench.key}`,
      `--default-registry=localhost:${tlsPort}`,
    ],
    port,
    env: { ...ONE_THREAD, SSL_CERT_FILE: bench.cert },
  });
  return peer('crproxy, no cache', port, [server]);
}
