import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { eventually } from './eventually.ts';
import { type Program, type Ran, runProgram, type Surroundings, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** A real Docker daemon with a client: its own data, socket and containerd, in surroundings that have the test's /etc/docker. */
export interface Dockerd {
  /** Where it listens, as `docker --host` takes it. */
  readonly host: string;
  /** `docker …` against it. */
  docker(...args: string[]): Promise<Ran>;
  log(): string;
  close(): Promise<void>;
}

/** Writes what a daemon reads of /etc/docker: `certs.d/HOST[:PORT]/ca.crt`. Bind the folder over /etc/docker before it starts. */
export function writeTrust(folder: string, hosts: readonly string[], ca: string): void {
  for (const host of hosts) {
    const file = join(folder, 'certs.d', host, 'ca.crt');
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, ca);
  }
}

export async function startDockerd(options: {
  readonly within: Surroundings;
  readonly registryMirrors?: readonly string[];
  /** In place of Debian's: a newer daemon, and the folder of its containerd, in whose store it keeps images. */
  readonly release?: { readonly dockerd: string; readonly folder: string };
}): Promise<Dockerd> {
  const folder = mkdtempSync(join(tmpdir(), 'dockerd-'));
  const socket = `unix://${join(folder, 'docker.sock')}`;
  const config = join(folder, 'daemon.json');
  writeFileSync(config, JSON.stringify({ 'registry-mirrors': options.registryMirrors ?? [] }));
  const { release } = options;
  const program: Program = startProgram({
    command: release?.dockerd ?? programPath('dockerd'),
    ...(release === undefined ? {} : { env: { ...process.env, PATH: `${release.folder}:${process.env.PATH}` } }),
    args: [
      ...['--config-file', config, '--host', socket, '--pidfile', join(folder, 'docker.pid')],
      ...['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec')],
      // No container is run: no network, no firewall, no storage driver that wants a kernel's help.
      ...[
        '--bridge=none',
        '--iptables=false',
        '--ip6tables=false',
        `--storage-driver=${release === undefined ? 'vfs' : 'native'}`,
      ],
    ],
    within: options.within,
  });
  const docker = (...args: string[]) =>
    runProgram({
      command: programPath('docker'),
      args: ['--host', socket, '--config', join(folder, 'client'), ...args],
      within: options.within,
    });
  const close = async () => {
    await program.end(30_000);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await eventually('dockerd to answer', async () => {
      if (!program.running()) return true;
      return (await docker('version')).code === 0;
    });
    if (!program.running()) throw new Error(`dockerd ended:\n${program.output()}`);
  } catch (error) {
    await close();
    throw error;
  }
  return { host: socket, docker, log: () => program.output(), close };
}
