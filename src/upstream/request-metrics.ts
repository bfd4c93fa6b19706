import type { Metrics } from '../telemetry/metrics.ts';
import type { Timings } from '../telemetry/tally.ts';
import { reasonClass, type Where } from './failures.ts';
import type { RawResponse } from './net/connections.ts';
import { header } from './responses.ts';

/** From a registry in the same town to one that hardly answers, seconds. */
const DURATIONS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];
/** Where a registry does not say for how long its limit holds, ms. */
const WINDOW = 3_600_000;

/** What a registry says is left of its limit. */
interface Allowance {
  readonly limit: number | null;
  readonly remaining: number;
  /** Of `performance.now()`; after it what was said is no longer so. */
  readonly until: number;
}

/** How registries answer, by the rows of the table, and what they say is left of their limits. */
export class RequestMetrics {
  readonly #seconds: Timings<'registry' | 'where' | 'outcome'>;
  readonly #allowances = new Map<string, Allowance>();

  constructor(metrics: Metrics) {
    this.#seconds = metrics.timings(
      'upstream_request_seconds',
      'Requests to registries, until the answer began, by outcome.',
      DURATIONS,
      ['registry', 'where', 'outcome'],
    );
    metrics.gauge(
      'upstream_ratelimit_remaining',
      'Requests that a registry says are left of its limit.',
      ['registry'],
      (gauge) => {
        gauge.reset();
        for (const [registry, { remaining }] of this.#current()) gauge.set({ registry }, remaining);
      },
    );
    metrics.gauge(
      'upstream_ratelimit_limit',
      'Requests that a registry says its limit allows.',
      ['registry'],
      (gauge) => {
        gauge.reset();
        for (const [registry, { limit }] of this.#current()) if (limit !== null) gauge.set({ registry }, limit);
      },
    );
  }

  answered(
    registry: string,
    where: Where,
    { status, headers }: Pick<RawResponse, 'status' | 'headers'>,
    ms: number,
  ): void {
    this.#seconds.observe(ms / 1000, registry, where, outcomeOf(status));
    if (where !== 'endpoint') return;
    const allowance = allowanceIn(headers);
    if (allowance !== null) this.#allowances.set(registry, allowance);
  }

  failed(registry: string, where: Where, error: unknown, ms: number): void {
    this.#seconds.observe(ms / 1000, registry, where, reasonClass(error));
  }

  *#current(): Generator<readonly [string, Allowance]> {
    const now = performance.now();
    for (const [registry, allowance] of this.#allowances) {
      if (allowance.until > now) yield [registry, allowance];
      else this.#allowances.delete(registry);
    }
  }
}

function outcomeOf(status: number): string {
  // A challenge is how most registries begin.
  if (status === 401) return 'challenge';
  if (status === 429) return 'rate limited';
  if (status < 400) return 'ok';
  return status < 500 ? 'status 4xx' : 'status 5xx';
}

/** Docker Hub's `ratelimit-remaining: 76;w=21600` (w: its window in seconds), and the `x-ratelimit-…` of others. */
function allowanceIn(headers: RawResponse['headers']): Allowance | null {
  const of = (name: string) => header(headers, `ratelimit-${name}`) ?? header(headers, `x-ratelimit-${name}`) ?? '';
  const remaining = leadingNumber(of('remaining'));
  if (remaining === null) return null;
  const seconds = Number(/;\s*w=(\d{1,9})/.exec(of('remaining'))?.[1] ?? 0);
  return {
    limit: leadingNumber(of('limit')),
    remaining,
    until: performance.now() + (seconds > 0 ? seconds * 1000 : WINDOW),
  };
}

function leadingNumber(text: string): number | null {
  const digits = /^\s*(\d{1,12})(?:\s*[;,].*)?$/.exec(text)?.[1];
  return digits === undefined ? null : Number(digits);
}
