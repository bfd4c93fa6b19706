import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.ts';
import { type Ran, runProgram, type Surroundings, startProgram } from './processes.ts';
import { programPath } from './programs.ts';

/** A real BuildKit daemon with nothing in it, and `buildctl` to speak to it. */
export interface Buildkitd {
  /** Builds a Dockerfile with the built-in frontend, as an OCI archive at `target`. */
  build(dockerfile: string, target: string): Promise<Ran>;
  /** Forgets all it has fetched and built. */
  prune(): Promise<void>;
  log(): string;
  close(): Promise<void>;
}

export async function startBuildkitd(options: {
  /** Its buildkitd.toml. */
  readonly config: string;
  readonly within: Surroundings;
}): Promise<Buildkitd> {
  const folder = mkdtempSync(join(tmpdir(), 'buildkitd-'));
  const address = `unix://${join(folder, 'socket')}`;
  const daemon = startProgram({
    command: programPath('buildkitd'),
    args: [
      ...['--config', options.config, '--root', join(folder, 'root'), '--addr', address],
      // No step of a build is run: no network, no snapshotter that wants a kernel's help.
      ...['--oci-worker=true', '--containerd-worker=false'],
      ...['--oci-worker-snapshotter=native', '--oci-worker-net=host'],
    ],
    within: options.within,
  });
  const buildctl = (...args: string[]) =>
    runProgram({ command: programPath('buildctl'), args: ['--addr', address, ...args], within: options.within });
  const close = async () => {
    await daemon.end();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await eventually('buildkitd to answer', async () => {
      if (!daemon.running()) throw new Error(`buildkitd ended:\n${daemon.output()}`);
      return (await buildctl('debug', 'workers')).code === 0;
    });
  } catch (error) {
    await close();
    throw error;
  }
  return {
    async build(dockerfile, target) {
      const context = mkdtempSync(join(folder, 'context-'));
      writeFileSync(join(context, 'Dockerfile'), dockerfile);
      const sources = ['--local', `context=${context}`, '--local', `dockerfile=${context}`];
      const output = ['--output', `type=oci,dest=${target}`];
      return buildctl('build', '--progress', 'plain', '--frontend', 'dockerfile.v0', ...sources, ...output);
    },
    async prune() {
      const pruned = await buildctl('prune', '--all');
      if (pruned.code !== 0) throw new Error(`buildctl prune: ${pruned.stderr}`);
    },
    log: () => daemon.output(),
    close,
  };
}
