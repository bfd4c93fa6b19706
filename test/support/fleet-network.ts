import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { type ProgramOptions, runOk, type Surroundings } from './processes.ts';
import { programPath } from './programs.ts';

/** A machine of the network: what runs `within` it has its own interfaces and its own address. */
export interface Machine {
  readonly address: string;
  readonly within: Surroundings;
}

/**
 * Machines as network namespaces on one bridge, and the test's own process beside them: its servers listen on `here`, and it reaches each
 * machine at its address. Packets are dropped by iptables within the machine that they leave or reach, so that a cut is what a cut is: no
 * reset, nothing but silence. Needs root; all of it vanishes with the process.
 */
export interface FleetNetwork {
  /** The address at which the machines reach the test's process. */
  readonly here: string;
  /** The first is for servers that all share, the others for nodes. */
  readonly machines: readonly Machine[];
  /** Drops packets between a machine and an address (and port of it), all or a share of them, until `heal`. */
  drop(machine: Machine, other: { readonly address: string; readonly port?: number }, share?: number): Promise<void>;
  /** Everything passes again on this machine. */
  heal(machine: Machine): Promise<void>;
  close(): Promise<void>;
}

/** What a test that opens one needs: for `describeWith`. */
export const FLEET_NETWORK = ['ip', 'iptables', 'nsenter', 'unshare', 'linux', 'root'] as const;

/**
 * Of the block for benchmarks (RFC 2544), which nothing routes: 198.18.64.0/18 in networks of 256. test/support/namespace.ts has another part.
 */
function network(): string {
  return `198.18.${randomInt(64, 128)}`;
}

interface Holder {
  readonly process: ChildProcess;
  readonly pid: number;
}

export async function openFleetNetwork(count: number): Promise<FleetNetwork> {
  const holders: Holder[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(
      holders.map(async ({ process }) => {
        const ended = once(process, 'exit');
        process.stdin?.end();
        await ended;
      }),
    );
  };
  try {
    const hub = await hold();
    holders.push(hub);
    const prefix = await attachHere(hub);
    const machines: Machine[] = [];
    for (let index = 0; index < count; index++) {
      const holder = await hold();
      holders.push(holder);
      const address = `${prefix}.${10 + index}`;
      const outer = `node${index}`;
      await within(hub, 'ip', [
        'link',
        'add',
        outer,
        'type',
        'veth',
        'peer',
        'name',
        'eth0',
        'netns',
        String(holder.pid),
      ]);
      await within(hub, 'ip', ['link', 'set', outer, 'master', 'bridge0', 'up']);
      await within(holder, 'ip', ['link', 'set', 'lo', 'up']);
      await within(holder, 'ip', ['addr', 'add', `${address}/24`, 'dev', 'eth0']);
      await within(holder, 'ip', ['link', 'set', 'eth0', 'up']);
      machines.push({ address, within: surroundings(holder) });
    }
    return {
      here: `${prefix}.1`,
      machines,
      async drop(machine, { address, port }, share = 1) {
        const some = share < 1 ? ['-m', 'statistic', '--mode', 'random', '--probability', String(share)] : [];
        for (const [chain, side, portSide] of [
          ['INPUT', '-s', '--sport'],
          ['OUTPUT', '-d', '--dport'],
        ] as const) {
          const ports = port === undefined ? [] : ['-p', 'tcp', portSide, String(port)];
          await run(machine.within, 'iptables', ['-w', '-A', chain, side, address, ...ports, ...some, '-j', 'DROP']);
        }
      },
      heal: (machine) => run(machine.within, 'iptables', ['-w', '-F']),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A process that keeps a network namespace until its standard input is closed. */
async function hold(): Promise<Holder> {
  const holder = spawn(programPath('unshare'), ['--net', 'sh', '-c', 'echo open && exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const opened = await Promise.race([
    once(holder.stdout, 'data').then(() => true),
    once(holder, 'exit').then(() => false),
  ]);
  if (!opened || holder.pid === undefined) throw new Error('could not make a network namespace');
  return { process: holder, pid: holder.pid };
}

/** Makes the bridge in the hub, with one leg to the test's own process. @returns the network's first three numbers */
async function attachHere(hub: Holder): Promise<string> {
  await within(hub, 'ip', ['link', 'add', 'bridge0', 'type', 'bridge']);
  await within(hub, 'ip', ['link', 'set', 'bridge0', 'up']);
  const prefix = network();
  // Its name is the network's: a second one that drew the same number fails here, in words.
  const own = `fleet${prefix.split('.')[2]}`;
  await run(undefined, 'ip', ['link', 'add', own, 'type', 'veth', 'peer', 'name', 'here', 'netns', String(hub.pid)]);
  await within(hub, 'ip', ['link', 'set', 'here', 'master', 'bridge0', 'up']);
  await run(undefined, 'ip', ['addr', 'add', `${prefix}.1/24`, 'dev', own]);
  await run(undefined, 'ip', ['link', 'set', own, 'up']);
  return prefix;
}

function surroundings({ pid }: Holder): Surroundings {
  const enter = ['-t', String(pid), '-n', '--'];
  return { wrap: (command, args) => ({ command: programPath('nsenter'), args: [...enter, command, ...args] }) };
}

function within(holder: Holder, program: 'ip', args: readonly string[]): Promise<void> {
  return run(surroundings(holder), program, args);
}

async function run(
  where: Surroundings | undefined,
  program: 'ip' | 'iptables',
  args: readonly string[],
): Promise<void> {
  const options: ProgramOptions = { command: programPath(program), args, within: where };
  await runOk(options);
}
