import type { Metrics } from '../telemetry/metrics.ts';

/** Replies of the proxy core; a process that gives an answer again without asking the core counts it, too. */
export function repliesTally(metrics: Metrics) {
  return metrics.tally(
    'registry_replies_total',
    'Replies of the proxy core, by what was asked and where it came from',
    ['kind', 'from'],
  );
}
