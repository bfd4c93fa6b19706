import { LogRepeats } from '../kit/log-repeats.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { ImageRefusal } from './image-policy.ts';

/** Counts and logs what `policy.images` refuses: of one registry on one ground once a minute. */
export class Refusals {
  readonly #count;
  readonly #log: Pick<Logger, 'info'>;
  readonly #rowName: (registry: string) => string;
  readonly #repeats: LogRepeats;

  /**
   * @param rowName the row of the table as which a registry is counted
   * @param now monotonic, ms
   */
  constructor(metrics: Metrics, log: Pick<Logger, 'info'>, rowName: (registry: string) => string, now?: () => number) {
    this.#count = metrics.counter(
      'policy_refusals_total',
      'Pulls that policy.images refused, by registry and by what decided: a pattern for the repository, the tag or the digest, no pattern (unlisted), or no known tag (untagged)',
      ['registry', 'ground'],
    );
    this.#log = log;
    this.#rowName = rowName;
    this.#repeats = new LogRepeats(now);
  }

  note({ registry, image, ground }: ImageRefusal): void {
    const row = this.#rowName(registry);
    this.#count.inc({ registry: row, ground });
    const leftOut = this.#repeats.note(`${row} ${ground}`);
    if (leftOut === null) return;
    const more = leftOut === 0 ? '' : `; ${leftOut} more of ${row} since the last such line`;
    this.#log.info({ image, ground, ...(leftOut === 0 ? {} : { leftOut }) }, `policy.images refused ${image}${more}`);
  }
}
