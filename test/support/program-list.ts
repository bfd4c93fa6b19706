import { accessSync, constants, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The real programs that tests use, and the Debian package of each. `scripts/test` installs what is missing of them. */
export const PROGRAMS = {
  'docker-registry': 'docker-registry',
  pebble: 'pebble',
  'pebble-challtestsrv': 'pebble',
  skopeo: 'skopeo',
  dockerd: 'docker.io',
  docker: 'docker.io',
  containerd: 'containerd',
  ctr: 'containerd',
  podman: 'podman',
  microsocks: 'microsocks',
  tinyproxy: 'tinyproxy-bin',
  ip: 'iproute2',
  iptables: 'iptables',
  faketime: 'faketime',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  openssl: 'openssl',
  promtool: 'prometheus',
  named: 'bind9',
  nginx: 'nginx-light',
  caddy: 'caddy',
  chromium: 'chromium',
  shellcheck: 'shellcheck',
  dash: 'dash',
  busybox: 'busybox',
  bash: 'bash',
  zsh: 'zsh',
  fish: 'fish',
  setpriv: 'util-linux',
  postgres: 'postgresql',
  initdb: 'postgresql',
  psql: 'postgresql',
  pgbouncer: 'pgbouncer',
} as const satisfies Record<string, string>;

export type Program = keyof typeof PROGRAMS;

/** Programs that `scripts/test` builds from public modules where Go is present: the tools of `test/go-programs/go.mod`. */
export const GO_PROGRAMS = ['conformance', 'kube-manifests', 'olareg', 'versitygw'] as const;
export type GoProgram = (typeof GO_PROGRAMS)[number];
const GO_FOLDER = fileURLToPath(new URL('../go-programs/bin', import.meta.url));

/** Clients that nothing here installs: their tests run where they are found, and are skipped elsewhere. CONTRIBUTING.md says how to get them. */
export type OptionalClient =
  | 'helm'
  | 'oras'
  | 'crane'
  | 'regctl'
  | 'cosign'
  | 'buildkitd'
  | 'buildctl'
  | 'trivy'
  | 'ollama'
  | 'crictl'
  | 'registry';

/** Where Debian keeps servers; the PATH of a user who is not root often lacks them. */
const SERVER_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** Debian keeps the programs of PostgreSQL by version; the newest comes first. */
const POSTGRES_VERSIONS = '/usr/lib/postgresql';

function postgresFolders(): string[] {
  try {
    const versions = readdirSync(POSTGRES_VERSIONS).sort((one, other) => Number(other) - Number(one));
    return versions.map((version) => join(POSTGRES_VERSIONS, version, 'bin'));
  } catch {
    return [];
  }
}

/** The path of a program, or null where this machine lacks it. */
export function findProgram(name: Program | GoProgram | OptionalClient | 'go'): string | null {
  if (isGoProgram(name)) return inFolders(name, [GO_FOLDER]);
  const folders = [...pathFolders('PATH'), ...SERVER_FOLDERS, ...postgresFolders()];
  return inFolders(name, [...folders, ...pathFolders('GATEWAY_TEST_CLIENTS')]);
}

/** Of a newer release than Debian's, in a folder that `GATEWAY_TEST_CLIENTS` names; null where there is none. */
export function findNewer(name: Program): string | null {
  return inFolders(name, pathFolders('GATEWAY_TEST_CLIENTS'));
}

export function isGoProgram(name: string): name is GoProgram {
  return (GO_PROGRAMS as readonly string[]).includes(name);
}

/** The folders of a variable that lists some, as PATH does. */
function pathFolders(variable: string): string[] {
  return (process.env[variable] ?? '').split(delimiter).filter((folder) => folder !== '');
}

function inFolders(name: string, folders: readonly string[]): string | null {
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {}
  }
  return null;
}
