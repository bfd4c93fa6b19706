import type { Metrics } from '../telemetry/metrics.ts';
import type { CacheIndex, Counter } from './index-port.ts';

const HELP: Readonly<Record<Counter, string>> = {
  hits: 'Blobs that were in the cache, whole or growing, when they were asked for',
  misses: 'Blobs that had to be fetched',
  fetched: 'Bytes that fills brought from upstreams',
  served: 'Bytes of blobs that clients read from the cache',
  evictions: 'Blobs dropped to make room',
};
const METRIC: Readonly<Record<Counter, string>> = {
  hits: 'cache_hits_total',
  misses: 'cache_misses_total',
  fetched: 'cache_fetched_bytes_total',
  served: 'cache_served_bytes_total',
  evictions: 'cache_evictions_total',
};
const COUNTERS = Object.keys(HELP) as Counter[];

/** What the cache counts: plain additions on the path of a pull, handed on to the metrics and to the index when flushed. */
export class Tally {
  readonly #index: CacheIndex;
  readonly #metrics: Readonly<Record<Counter, { inc(by: number): void }>>;
  #fresh: Record<Counter, number> = zero();

  constructor(index: CacheIndex, metrics: Metrics) {
    this.#index = index;
    const make = (counter: Counter) => metrics.counter(METRIC[counter], HELP[counter]);
    this.#metrics = {
      hits: make('hits'),
      misses: make('misses'),
      fetched: make('fetched'),
      served: make('served'),
      evictions: make('evictions'),
    };
  }

  add(counter: Counter, by = 1): void {
    this.#fresh[counter] += by;
  }

  /** Since the cache was made, this process and earlier ones. */
  totals(): Readonly<Record<Counter, number>> {
    const stored = this.#index.counters();
    return Object.fromEntries(COUNTERS.map((name) => [name, stored[name] + this.#fresh[name]])) as Record<
      Counter,
      number
    >;
  }

  flush(): void {
    const fresh = this.#fresh;
    if (COUNTERS.every((name) => fresh[name] === 0)) return;
    this.#fresh = zero();
    for (const name of COUNTERS) this.#metrics[name].inc(fresh[name]);
    this.#index.count(fresh);
  }
}

function zero(): Record<Counter, number> {
  return { hits: 0, misses: 0, fetched: 0, served: 0, evictions: 0 };
}
