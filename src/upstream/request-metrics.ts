import type { Metrics } from '../telemetry/metrics.ts';
import type { Timings } from '../telemetry/tally.ts';
import { reasonClass, type Where } from './failures.ts';
import type { RawResponse } from './net/connections.ts';

/** From a registry in the same town to one that hardly answers, seconds. */
const DURATIONS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];
/** How registries answer, by the rows of the table. */
export class RequestMetrics {
  readonly #seconds: Timings<'registry' | 'where' | 'outcome'>;

  constructor(metrics: Metrics) {
    this.#seconds = metrics.timings(
      'upstream_request_seconds',
      'Requests to registries, until the answer began, by outcome.',
      DURATIONS,
      ['registry', 'where', 'outcome'],
    );
  }

  answered(registry: string, where: Where, { status }: Pick<RawResponse, 'status'>, ms: number): void {
    this.#seconds.observe(ms / 1000, registry, where, outcomeOf(status));
  }

  failed(registry: string, where: Where, error: unknown, ms: number): void {
    this.#seconds.observe(ms / 1000, registry, where, reasonClass(error));
  }
}

function outcomeOf(status: number): string {
  // A challenge is how most registries begin.
  if (status === 401) return 'challenge';
  if (status === 429) return 'rate limited';
  if (status < 400) return 'ok';
  return status < 500 ? 'status 4xx' : 'status 5xx';
}
