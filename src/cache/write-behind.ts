import { steadyNow } from '../kit/time.ts';
import type { Digest } from '../oci/names.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { CacheCounter, CacheIndex } from './index-port.ts';

/**
 * How much longer ago a blob counts as used that is another gateway's to keep, ms: what is this one's own is dropped after it, unless nobody has asked for
 * that for as long. Each use sets it anew, so that nothing has to be walked over when gateways come and go.
 */
const OTHERS_AGE = 24 * 60 * 60 * 1000;

/** When a blob that is used now was used, for the eviction. @param own it is this gateway's to keep */
export function useNow(own: boolean): number {
  return own ? steadyNow() : steadyNow() - OTHERS_AGE;
}

// What pulls change in the index without waiting for it: it is kept in memory, and written in batches by `flush`.

/** Uses that one flush writes, so that it takes a few ms; the rest waits for the next. */
const USES_BATCH = 1_000;

/** When blobs were used last, for the eviction. */
export class Uses {
  readonly #index: CacheIndex;
  readonly #owns: (digest: Digest) => boolean;
  #pending = new Map<Digest, number>();

  /** @param owns whether a blob is this gateway's to keep */
  constructor(index: CacheIndex, owns: (digest: Digest) => boolean) {
    this.#index = index;
    this.#owns = owns;
  }

  /** The blob is used now. */
  add(digest: Digest): void {
    this.#pending.set(digest, useNow(this.#owns(digest)));
  }

  /** @throws the index's errors */
  flush(): void {
    if (this.#pending.size === 0) return;
    // Kept until the index has them; the index itself bounds them: what is used was found in it.
    const batch = this.#pending.size <= USES_BATCH ? this.#pending : new Map([...this.#pending].slice(0, USES_BATCH));
    this.#index.touchBlobs(batch);
    if (batch === this.#pending) this.#pending = new Map();
    else for (const digest of batch.keys()) this.#pending.delete(digest);
  }
}

const HELP: Readonly<Record<CacheCounter, string>> = {
  hits: 'Blobs that were in the cache, whole or growing, when they were asked for',
  misses: 'Blobs that had to be fetched',
  fetched: 'Bytes that fills brought from upstreams',
  served: 'Bytes of blobs that clients read from the cache',
  evictions: 'Blobs dropped to make room',
};
const METRIC: Readonly<Record<CacheCounter, string>> = {
  hits: 'cache_hits_total',
  misses: 'cache_misses_total',
  fetched: 'cache_fetched_bytes_total',
  served: 'cache_served_bytes_total',
  evictions: 'cache_evictions_total',
};
const COUNTERS = Object.keys(HELP) as CacheCounter[];

/** The cache's counters: plain additions on the path of a pull, given to the metrics and to the index by `flush`. */
export class CacheCounters {
  readonly #index: CacheIndex;
  readonly #metrics: Readonly<Record<CacheCounter, { inc(by: number): void }>>;
  #fresh: Record<CacheCounter, number> = zero();
  #traffic = 0;

  constructor(index: CacheIndex, metrics: Metrics) {
    this.#index = index;
    const make = (counter: CacheCounter) => metrics.counter(METRIC[counter], HELP[counter]);
    this.#metrics = {
      hits: make('hits'),
      misses: make('misses'),
      fetched: make('fetched'),
      served: make('served'),
      evictions: make('evictions'),
    };
  }

  /** Bytes given to clients and fetched, since the start of this process. */
  get traffic(): number {
    return this.#traffic + this.#fresh.served + this.#fresh.fetched;
  }

  add(counter: CacheCounter, by = 1): void {
    this.#fresh[counter] += by;
  }

  /** Since the cache directory was made: by this process and earlier ones. */
  totals(): Readonly<Record<CacheCounter, number>> {
    const stored = this.#index.counters();
    return Object.fromEntries(COUNTERS.map((name) => [name, stored[name] + this.#fresh[name]])) as Record<
      CacheCounter,
      number
    >;
  }

  flush(): void {
    const fresh = this.#fresh;
    if (COUNTERS.every((name) => fresh[name] === 0)) return;
    this.#index.count(fresh);
    for (const name of COUNTERS) this.#metrics[name].inc(fresh[name]);
    this.#traffic += fresh.served + fresh.fetched;
    this.#fresh = zero();
  }
}

function zero(): Record<CacheCounter, number> {
  return { hits: 0, misses: 0, fetched: 0, served: 0, evictions: 0 };
}
