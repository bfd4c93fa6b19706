import type { Counter } from 'prom-client';
import type { Config } from '../config/config.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { SingleConnectionHosts } from './download/range-scheduler.ts';
import type { Endpoints } from './endpoints.ts';
import type { Requester } from './request.ts';
import type { Semaphore } from './semaphore.ts';

/** What all requests and downloads share. */
export interface UpstreamContext {
  readonly requester: Requester;
  readonly endpoints: Endpoints;
  readonly singleConnectionHosts: SingleConnectionHosts;
  /** A permit for each whole download, shared fairly by registry. */
  readonly downloads: Semaphore;
  /** A permit for each connection in use, shared fairly by host. */
  readonly sockets: Semaphore;
  readonly config: Config['upstream'];
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
  { downloads, sockets }: { downloads: Semaphore; sockets: Semaphore },
): UpstreamMetrics {
  const permits = (name: string, help: string, semaphore: Semaphore): void => {
    metrics.gauge(name, help, ['state'], (gauge) => {
      gauge.set({ state: 'running' }, semaphore.inUse);
      gauge.set({ state: 'waiting' }, semaphore.waiting);
    });
  };
  permits('upstream_downloads', 'Blob downloads from registries.', downloads);
  permits('upstream_connections', 'Connections to registries in use, and requests that wait for one.', sockets);
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
