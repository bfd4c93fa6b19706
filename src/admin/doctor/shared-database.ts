import { connect } from 'node:net';
import { OperatorError } from '../../kit/operator-error.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';

/** There and back, ms: more, and every change of the state is slow; the database is to be near all gateways. */
const FAR = 100;
/** Leases are by the clock of the database, certificates by that of the gateway: a difference, ms, that is worth a word. */
const CLOCK_WARN = 5_000;
/** So long another gateway may take to accept a connection, ms. */
const CONNECT_WITHIN = 3_000;

/** The database that several gateways share, and whether this one reaches the others; nothing where there is none. */
export async function checkSharedDatabase(
  { shared, nodes, config }: Pick<OperationsDeps, 'shared' | 'nodes' | 'config'>,
  signal: AbortSignal,
): Promise<Finding[]> {
  if (shared === null) return [];
  const others = nodes.live().filter(({ id }) => id !== nodes.self.id);
  const [database, ...reached] = await Promise.all([
    checkDatabase(shared),
    ...others.map(async ({ id, address }): Promise<Finding[]> => {
      if (address === null)
        return [unreached(id, 'it has no cluster.address, so that the others fetch for themselves', 'warn')];
      const problem = await connectTo(address, signal);
      return problem === null ? [] : [unreached(id, `${address} cannot be connected to: ${problem}`, 'fail')];
    }),
  ]);
  const findings = [...(database ?? []), ...reached.flat()];
  if (others.length > 0 && config.cluster.address === null) {
    findings.push(
      unreached(nodes.self.id, 'this gateway has no cluster.address, so that the others do not reach it', 'warn'),
    );
  }
  if (others.length > 0 && reached.flat().length === 0) {
    findings.push({ name: 'nodes', level: 'ok', message: `the others are reached: ${others.length}` });
  }
  return findings;
}

async function checkDatabase(shared: NonNullable<OperationsDeps['shared']>): Promise<Finding[]> {
  const name = 'database';
  const { where } = shared.describe();
  try {
    const { roundTrip, clock, encrypted } = await shared.measure();
    const findings: Finding[] = [];
    if (roundTrip > FAR) {
      const message = `${where} answers after ${Math.round(roundTrip)} ms`;
      findings.push({ name, level: 'warn', message, next: 'have it near the gateways, and see what it is busy with' });
    }
    if (Math.abs(clock) > CLOCK_WARN) {
      const message = `the clock of ${where} is ${Math.round(Math.abs(clock) / 1000)} s ${clock > 0 ? 'ahead of' : 'behind'} this machine's`;
      findings.push({ name, level: 'warn', message, next: 'let chrony or systemd-timesyncd set both' });
    }
    if (!encrypted && !isLocal(where)) {
      const message = `what is said with ${where} is not encrypted on its way`;
      findings.push({
        name,
        level: 'warn',
        message,
        next: 'add ?sslmode=verify-full to database; sslrootcert names its authority',
      });
    }
    return findings.length > 0
      ? findings
      : [{ name, level: 'ok', message: `${where} answers after ${Math.ceil(roundTrip)} ms` }];
  } catch (error) {
    if (!(error instanceof OperatorError)) throw error;
    const message = `${error.message}; pulls go on as things were when it was last there, nothing can be changed`;
    return [{ name, level: 'fail', message, next: error.next, because: 'database' }];
  }
}

/** On this machine, or behind a Unix socket: nobody listens between. */
function isLocal(where: string): boolean {
  return / at (\/|localhost:|127\.|\[?::1)/.test(where);
}

function unreached(id: string, message: string, level: 'warn' | 'fail'): Finding {
  const next =
    'check cluster.listen and cluster.address there, and what is between; blobs are fetched more than once meanwhile';
  return { name: `nodes ${id}`, level, message, next };
}

/** What was in the way; null where nothing was. */
function connectTo(address: string, signal: AbortSignal): Promise<string | null> {
  const { hostname, port } = new URL(`tcp://${address}`);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), signal });
    const end = (problem: string | null) => {
      socket.destroy();
      resolve(problem);
    };
    socket.setTimeout(CONNECT_WITHIN, () => end(`no answer within ${CONNECT_WITHIN / 1000} s`));
    socket.on('connect', () => end(null));
    socket.on('error', (error) => end(error.message));
  });
}
