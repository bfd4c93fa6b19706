import type { Counter } from 'prom-client';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Budget } from './budget.ts';

/** What is counted about fetching. */
export interface Measures {
  readonly bytes: Counter<'registry'>;
  readonly resumptions: Counter<'registry'>;
  readonly parallel: Counter<'registry'>;
}

export function measure(metrics: Metrics, budgets: { fills: Budget; sockets: Budget }): Measures {
  const gauge = (name: string, help: string, budget: Budget): void => {
    metrics.gauge(name, help, ['state'], (it) => {
      it.set({ state: 'running' }, budget.inUse);
      it.set({ state: 'waiting' }, budget.waiting);
    });
  };
  gauge('upstream_downloads', 'Blob downloads from registries.', budgets.fills);
  gauge('upstream_connections', 'Connections to registries in use, and requests that wait for one.', budgets.sockets);
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
