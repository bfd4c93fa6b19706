import { extname } from 'node:path';
import { rowNameOf } from '../aliases/lookup.ts';
import { Edge } from '../edge/edge.ts';
import { version } from '../kit/process.ts';
import { ManifestCache } from '../proxy/manifest-cache.ts';
import { ConnectionShare } from '../workers/connection-totals.ts';
import { WorkerSupervisor } from '../workers/supervisor.ts';
import { boundConfig } from './addresses.ts';
import { remarkOn } from './fleet.ts';
import type { Base, Parts } from './parts.ts';

/** How long running pulls may go on once the gateway is asked to end, ms: long for a layer, shorter than what service managers wait (90 s). */
const GRACE = 60_000;

/** The internet's face, wired; it does not listen yet. */
export function buildEdge(
  base: Base,
  { state, core, access, passage, outlines }: Pick<Parts, 'state' | 'core' | 'access' | 'passage' | 'outlines'>,
): Edge {
  const { config, log, metrics, ticketKeys } = base;
  const processes = config.listen.workers;
  const peers = new ConnectionShare(config.limits.connections, processes, (own) => base.connections.report(peers, own));
  base.connections.join(peers, peers.hear);
  base.reloader.add({ reconfigure: ({ limits }) => peers.reconfigure(limits.connections) });
  return new Edge({
    config,
    table: state.table.snapshot,
    certificates: state.certificates,
    proxy: new ManifestCache({
      core,
      replies: base.replies,
      rowName: (registry) => rowNameOf(state.table.snapshot(), registry),
    }),
    access,
    audience: (user, address) => passage.policy.audience(user, address),
    freshness: state.freshness,
    outlines,
    ready: () => base.ready,
    remark: () => remarkOn(state),
    draining: () => base.draining,
    log,
    logLines: base.logLines,
    metrics,
    activity: base.activity,
    version: version(),
    pseudonym: state.pseudonym,
    ticketKeys,
    peers: processes === 1 ? null : peers,
  });
}

/** Lets other processes accept from the edge's listening socket. All of them are ended together: each has the whole grace for its pulls. */
export function startWorkers(
  base: Base,
  parts: Pick<Parts, 'state' | 'core' | 'access' | 'outlines' | 'edge' | 'bound'>,
): void {
  const { config, log, metrics, lifecycle, ticketKeys } = base;
  const { state, core, access, outlines, edge, bound } = parts;
  const server = config.listen.workers === 1 ? null : edge.share();
  const workers =
    server === null
      ? null
      : new WorkerSupervisor({
          size: config.listen.workers - 1,
          program: new URL(`./worker${extname(import.meta.filename)}`, import.meta.url),
          version: version(),
          pseudonym: state.pseudonym,
          core,
          state: {
            config: boundConfig(base.reloader, bound),
            table: state.table.snapshot,
            users: () => state.users.snapshot(),
            certificates: () => state.certificates?.contexts() ?? null,
            challenges: () => state.certificates?.alpnChallenges ?? null,
            ready: () => base.ready,
            remark: () => remarkOn(state),
            draining: () => base.draining,
            ticketKeys,
          },
          access,
          freshness: state.freshness,
          outlines,
          activity: base.activity,
          connections: base.connections,
          server,
          metrics,
          log,
        });
  lifecycle.defer('the listeners', () => Promise.all([edge, workers].map((part) => part?.close({ graceMs: GRACE }))));
  if (workers === null) return;
  base.workers = workers;
  metrics.include(() => workers.metrics());
  workers.start().catch((error: unknown) => log.error({ err: error }, 'a worker did not start; the others serve'));
}
