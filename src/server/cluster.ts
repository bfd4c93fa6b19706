import type { Cluster } from '../cluster/cluster.ts';
import type { ListenAddress } from '../config/config.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Lifecycle } from '../kit/process.ts';
import { sleep } from '../kit/time.ts';
import type { ManagedProxyCore } from '../proxy/core.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { State } from './state.ts';

/** How long a node of a fleet that is told to end still takes connections, ms: balancers look at `/readyz?node` every few seconds. */
const BALANCERS_LOOK = 5_000;

/** This gateway among those that share its database; null for the only one, which loads nothing of this. */
export async function joinCluster(
  { fleet, nodes }: Pick<State, 'fleet' | 'nodes'>,
  { log, metrics }: { readonly log: Logger; readonly metrics: Metrics },
): Promise<Cluster | null> {
  if (fleet === null) return null;
  const { Cluster: Joined } = await import('../cluster/cluster.ts');
  return new Joined({
    nodes,
    locks: fleet.stores.locks,
    identity: () => fleet.nodes.identity,
    trusted: fleet.nodes,
    log: log.child({ node: nodes.self.id }),
    metrics,
  });
}

/** Gives the other nodes what this one fetches, from now on until the end. @throws {OperatorError} `LISTEN_FAILED` */
export async function serveNodes(
  cluster: Cluster,
  listen: ListenAddress | null,
  core: Pick<ManagedProxyCore, 'forNodes'>,
  lifecycle: Lifecycle,
): Promise<void> {
  lifecycle.defer('what other nodes are given', () => cluster.close());
  if (listen === null) return;
  try {
    await cluster.serve(listen, core.forNodes);
  } catch (error) {
    const { host = '', port } = listen;
    throw new OperatorError(
      'LISTEN_FAILED',
      `cannot listen for other nodes on ${host}:${port}: ${(error as Error).message}`,
      {
        next: 'set cluster.listen to an address of this machine that no other program uses',
        cause: error,
      },
    );
  }
}

/**
 * Tells the others, and balancers, that this node is ending, and lets them act on it. Resolves at once where there are no others.
 * @param draining called before anybody is told
 */
export async function announceEnd(cluster: Cluster | null, { nodes }: State, draining: () => void): Promise<void> {
  if (cluster === null) return;
  draining();
  const told = cluster.drain();
  if (nodes.live().length > 1) await sleep(BALANCERS_LOOK);
  await told;
}
