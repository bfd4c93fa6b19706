import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Surroundings } from './processes.ts';
import { programPath } from './programs.ts';

/**
 * The address that test names lead to. Not in 127.0.0.0/8: dockerd checks no certificate there. Of the block for
 * benchmarks (RFC 2544), which nothing routes.
 */
export const GATEWAY_ADDRESS = '198.18.0.1';

export interface Namespace extends Surroundings {
  /** Ends it; what still runs inside keeps it alive until it ends, too. */
  close(): Promise<void>;
}

/**
 * A mount namespace of the test's own, with its own /etc/hosts and files bound over others, and (unless `network` is false) a network
 * namespace in which only `lo` is up, with GATEWAY_ADDRESS on it. The machine's own files and network stay as they are. Needs root.
 */
export async function openNamespace(options: {
  /** Names and their addresses, besides localhost. */
  readonly hosts: Readonly<Record<string, string>>;
  /** Target path to the file or folder that is seen there; the target exists. */
  readonly binds?: Readonly<Record<string, string>>;
  readonly network?: boolean;
  /** On its `lo` too; what is globally reachable elsewhere leads to the test here. */
  readonly addresses?: readonly string[];
}): Promise<Namespace> {
  const folder = mkdtempSync(join(tmpdir(), 'namespace-'));
  const hosts = join(folder, 'hosts');
  writeFileSync(
    hosts,
    ['127.0.0.1 localhost', ...Object.entries(options.hosts).map(([name, address]) => `${address} ${name}`), ''].join(
      '\n',
    ),
  );
  const network = options.network !== false;
  const script = [
    'set -e',
    ...Object.entries({ '/etc/hosts': hosts, ...options.binds }).map(
      ([target, source]) => `mount --bind '${source}' '${target}'`,
    ),
    ...(network ? ['ip link set lo up'] : []),
    ...(network ? [GATEWAY_ADDRESS, ...(options.addresses ?? [])] : []).map((address) =>
      address.includes(':') ? `ip addr add ${address}/128 dev lo nodad` : `ip addr add ${address}/32 dev lo`,
    ),
    'echo open',
    // Ends when the test closes its end of the pipe, or ends itself.
    'exec cat',
  ].join('\n');
  const spaces = ['--mount', ...(network ? ['--net'] : [])];
  const holder = spawn(programPath('unshare'), [...spaces, 'sh', '-c', script], { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  holder.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    said += chunk;
  });
  const opened = await Promise.race([
    once(holder.stdout, 'data').then(() => true),
    once(holder, 'exit').then(() => false),
  ]);
  if (!opened) {
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`could not make a namespace: ${said}`);
  }
  const enter = ['-t', String(holder.pid), '-m', ...(network ? ['-n'] : []), '--'];
  return {
    wrap: (command, args) => ({ command: programPath('nsenter'), args: [...enter, command, ...args] }),
    async close() {
      const ended = once(holder, 'exit');
      holder.stdin.end();
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
