import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { Link } from './link.ts';
import type { Path } from './lossy-tcp.ts';
import { CLIENT_CORE, freePort, runOver, Server } from './process.ts';

export interface BadPath extends Path {
  /** Every connection is reset after so many bytes. */
  readonly resetAfter: number;
}

export interface BadLink extends Link {
  /** In words, what makes it. */
  readonly made: string;
}

/** Of the block for benchmarks (RFC 2544), which nothing routes. */
const NETWORK = '198.18.77.0/30';
const NEAR = '198.18.77.1';
const FAR = '198.18.77.2';

/** Where relays find their program. */
const RELAY = join(import.meta.dirname, 'lossy-relay.ts');

/**
 * Puts a bad link in front of a server on a Unix socket: the kernel's own (`tc netem` between two network namespaces) where it has one and this
 * program may, else a model of TCP over such a link.
 */
export async function startBadLink(socket: string, path: BadPath, seed: number): Promise<BadLink> {
  const { roundTrip, loss, resetAfter } = path;
  const port = await freePort();
  const far = farNamespace(path);
  const stop: (() => unknown)[] = far === null ? [] : [far.remove];
  const start = async (
    within: readonly string[],
    host: string,
    ...args: readonly (string | number)[]
  ): Promise<void> => {
    const [command = '', ...rest] = [...within, process.execPath, RELAY, host, String(port), ...args.map(String)];
    const server = await Server.start({ cpus: CLIENT_CORE, command, args: rest, port, host });
    stop.unshift(() => server.stop());
  };
  const end = async (): Promise<void> => {
    for (const each of stop.splice(0)) await each();
  };
  try {
    if (far === null) await start([], '127.0.0.1', socket, resetAfter, roundTrip, loss, seed);
    else {
      await start(far.within, FAR, socket, Number.POSITIVE_INFINITY, 0, 0, 0);
      // At the near end: what has come there has arrived, where a reset at the far end would throw away what waits in the kernel.
      await start([], '127.0.0.1', `${FAR}:${port}`, resetAfter, 0, 0, 0);
    }
    const made = far === null ? 'a model of TCP in user space, as the kernel has no netem' : 'tc netem';
    return { url: `http://127.0.0.1:${port}`, port, stop: end, made };
  } catch (error) {
    await end();
    throw error;
  }
}

interface FarNamespace {
  /** What runs a command in it. */
  readonly within: readonly string[];
  remove(): void;
}

/** A network namespace behind a pair of interfaces that delay and lose; null where that cannot be had. */
function farNamespace({ roundTrip, loss }: Path): FarNamespace | null {
  const name = `bench-${process.pid}`;
  const [near, far] = [`b${process.pid}n`, `b${process.pid}f`];
  const within = ['ip', 'netns', 'exec', name];
  const run = (command: string): void => {
    const [program = '', ...args] = command.split(' ');
    execFileSync(program, args, { stdio: 'ignore' });
  };
  const remove = (): void => {
    runOver.removeEventListener('abort', remove);
    try {
      // Its interface goes with it, and the other end with that.
      run(`ip netns del ${name}`);
    } catch {
      // It was never made.
    }
  };
  const netem = `root netem delay ${roundTrip / 2}ms loss ${loss * 100}% limit 100000`;
  try {
    runOver.addEventListener('abort', remove, { once: true });
    run(`ip netns add ${name}`);
    run(`ip link add ${near} type veth peer name ${far} netns ${name}`);
    run(`ip addr add ${NEAR}/30 dev ${near}`);
    run(`${within.join(' ')} ip addr add ${FAR}/30 dev ${far}`);
    // A segment a packet: netem would lose all of a large one.
    run(`ip link set ${near} gso_max_segs 1 up`);
    run(`${within.join(' ')} ip link set ${far} gso_max_segs 1 up`);
    // What most servers have, and the model too. BBR, for one, takes loss for no sign of a full link.
    run(`${within.join(' ')} ip route replace ${NETWORK} dev ${far} src ${FAR} congctl cubic`);
    run(`tc qdisc add dev ${near} ${netem}`);
    run(`${within.join(' ')} tc qdisc add dev ${far} ${netem}`);
    return { within, remove };
  } catch {
    remove();
    return null;
  }
}
