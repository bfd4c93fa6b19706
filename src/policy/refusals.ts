import { LRUCache } from 'lru-cache';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ImageRefusal } from './image-policy.ts';

/** Refusals of one registry on one ground are logged once in so long, ms: a cluster tries again for ever. */
const EVERY = 60_000;
const MAX_TOLD = 1_000;

/** Counts and tells what `policy.images` refuses. */
export class Refusals {
  readonly #count;
  readonly #log: Pick<Logger, 'info'>;
  readonly #rowName: (registry: string) => string;
  readonly #now: () => number;
  readonly #told = new LRUCache<string, { readonly at: number; leftOut: number }>({ max: MAX_TOLD });

  /**
   * @param rowName the row of the table as which a registry is counted
   * @param now monotonic, ms
   */
  constructor(
    metrics: Metrics,
    log: Pick<Logger, 'info'>,
    rowName: (registry: string) => string,
    now: () => number = () => performance.now(),
  ) {
    this.#count = metrics.counter(
      'policy_refusals_total',
      'Pulls that policy.images refused, by registry and by what decided: a pattern for the repository, the tag or the digest, no pattern (unlisted), or no known tag (untagged)',
      ['registry', 'ground'],
    );
    this.#log = log;
    this.#rowName = rowName;
    this.#now = now;
  }

  note({ registry, image, ground }: ImageRefusal): void {
    const row = this.#rowName(registry);
    this.#count.inc({ registry: row, ground });
    const key = `${row} ${ground}`;
    const now = this.#now();
    const told = this.#told.get(key);
    if (told !== undefined && now - told.at < EVERY) {
      told.leftOut += 1;
      return;
    }
    const leftOut = told?.leftOut ?? 0;
    this.#told.set(key, { at: now, leftOut: 0 });
    const more = leftOut === 0 ? '' : `; ${leftOut} more of ${row} since the last such line`;
    this.#log.info({ image, ground, ...(leftOut === 0 ? {} : { leftOut }) }, `policy.images refused ${image}${more}`);
  }
}
