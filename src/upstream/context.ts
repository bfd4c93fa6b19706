import type { Counter } from 'prom-client';
import type { Config } from '../config/config.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Budgets } from './budgets.ts';
import type { ParallelHosts } from './download/host-parallelism.ts';
import type { Endpoints } from './endpoints.ts';
import type { HeadOrGet } from './head-or-get.ts';
import { type Pools, PURPOSES } from './pools.ts';
import type { ReferrersApi } from './referrers-api.ts';
import type { Requester } from './request.ts';
import type { Route } from './upstream.ts';

/** What all requests and downloads share. */
export interface UpstreamContext {
  readonly requester: Requester;
  readonly endpoints: Endpoints;
  readonly budgets: Budgets;
  readonly parallelHosts: ParallelHosts;
  readonly pools: Pools;
  readonly headOrGet: HeadOrGet;
  readonly referrersApi: ReferrersApi;
  /** As it is now. */
  readonly config: () => Config['upstream'];
  readonly log: Logger;
  readonly metrics: UpstreamMetrics;
}

export interface UpstreamMetrics {
  readonly bytes: Counter<'registry'>;
  readonly resumptions: Counter<'registry'>;
  readonly parallel: Counter<'registry'>;
}

export function upstreamMetrics(
  metrics: Metrics,
  { pools, endpoints, rows }: { pools: Pools; endpoints: Endpoints; rows: () => Iterable<Route> },
): UpstreamMetrics {
  const help = 'Connections to registries in use, and who waits for one, by purpose.';
  metrics.gauge('upstream_connections', help, ['purpose', 'state'], (gauge) => {
    for (const purpose of PURPOSES) {
      gauge.set({ purpose, state: 'running' }, pools.inUse(purpose));
      gauge.set({ purpose, state: 'waiting' }, pools.waiting(purpose));
    }
  });
  const outOfReach = 'Endpoints that could not be connected to when they were last tried.';
  metrics.gauge('upstream_endpoints_out_of_reach', outOfReach, ['registry'], (gauge) => {
    gauge.reset();
    for (const [registry, count] of endpoints.outOfReach()) gauge.set({ registry }, count);
  });
  const up =
    'Whether an endpoint is asked first (1), or set aside since it could not be connected to or kept failing (0).';
  metrics.gauge('upstream_endpoint_up', up, ['registry', 'endpoint'], (gauge) => {
    gauge.reset();
    for (const row of rows()) {
      for (const endpoint of row.endpoints) {
        gauge.set({ registry: row.host, endpoint }, endpoints.isSetAside(row, endpoint) ? 0 : 1);
      }
    }
  });
  return {
    bytes: metrics.counter('upstream_bytes_total', 'Bytes of blobs and manifests fetched from registries.', [
      'registry',
    ]),
    resumptions: metrics.counter(
      'upstream_resumptions_total',
      'Bodies that broke off or stalled and were taken up again.',
      ['registry'],
    ),
    parallel: metrics.counter(
      'upstream_parallel_total',
      'Times a slow download was continued over several connections.',
      ['registry'],
    ),
  };
}
