import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { type Ran, runProgram, type Surroundings, startProgram } from './processes.ts';

/** A real containerd with nothing in it, and `ctr` to speak to it. */
export interface Containerd {
  /** Where it listens. */
  readonly socket: string;
  ctr(...args: string[]): Promise<Ran>;
  /** `ctr images pull` by the hosts.toml of these folders. */
  pull(hostsDir: string, image: string): Promise<Ran>;
  log(): string;
  close(): Promise<void>;
}

export async function startContainerd(options: {
  readonly containerd: string;
  readonly ctr: string;
  readonly within: Surroundings;
  /** With its Kubernetes part, at the same socket, whose configuration names this folder of hosts.toml. */
  readonly cri?: string;
}): Promise<Containerd> {
  const folder = mkdtempSync(join(tmpdir(), 'containerd-'));
  const socket = join(folder, 'containerd.sock');
  const config = join(folder, 'config.toml');
  const plugins =
    options.cri !== undefined
      ? `[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${options.cri}"`
      : 'disabled_plugins = ["io.containerd.grpc.v1.cri"]';
  const place = `version = 2\nroot = "${folder}/root"\nstate = "${folder}/state"`;
  const grpc = `[grpc]\naddress = "${socket}"`;
  writeFileSync(config, [place, ...(options.cri !== undefined ? [grpc, plugins] : [plugins, grpc]), ''].join('\n'));
  const daemon = startProgram({ command: options.containerd, args: ['--config', config], within: options.within });
  const ctr = (...args: string[]) =>
    runProgram({ command: options.ctr, args: ['--address', socket, ...args], within: options.within });
  const close = async () => {
    await daemon.end();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await eventually('containerd to answer', async () => {
      if (!daemon.running()) throw new Error(`containerd ended:\n${daemon.output()}`);
      return (await ctr('version')).code === 0;
    });
    return {
      socket,
      ctr,
      // The native snapshotter wants nothing of the kernel. From 2.0 on the daemon would do the pull, with a snapshotter of its own choice.
      pull: async (hostsDir, image) => {
        const local = (await ctr('images', 'pull', '--help')).stdout.includes('--local') ? ['--local'] : [];
        return ctr('images', 'pull', ...local, '--snapshotter', 'native', '--hosts-dir', hostsDir, image);
      },
      log: () => daemon.output(),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
