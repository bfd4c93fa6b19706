import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

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
  nsenter: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  openssl: 'openssl',
} as const satisfies Record<string, string>;

export type Program = keyof typeof PROGRAMS;

/** Where Debian keeps servers; the PATH of a user who is not root often lacks them. */
const SERVER_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** The path of a program, or null where this machine lacks it. */
export function findProgram(name: Program): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== ''), ...SERVER_FOLDERS];
  for (const folder of folders) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {}
  }
  return null;
}
