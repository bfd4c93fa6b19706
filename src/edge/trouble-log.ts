import { LogRepeats } from '../kit/log-repeats.ts';
import type { TroubleSeen } from '../telemetry/activity.ts';
import type { Logger } from '../telemetry/log.ts';

const SENTENCES: Readonly<Record<TroubleSeen['kind'], string>> = {
  failed: 'a request was not served',
  stale: "a kept answer was served in place of the registry's",
  cut: 'a body ended before its length',
};

/** Says at `warn` why requests fail and answers are old, the same of one registry once a minute, and then how often it was so in between. */
export class TroubleLog {
  readonly #log: Pick<Logger, 'warn'>;
  readonly #repeats: LogRepeats;

  /** @param now monotonic, ms */
  constructor(log: Pick<Logger, 'warn'>, now?: () => number) {
    this.#log = log;
    this.#repeats = new LogRepeats(now);
  }

  tell({ kind, registry, row, status, reason, what }: TroubleSeen): void {
    const leftOut = this.#repeats.note(`${kind} ${status} ${row}`);
    if (leftOut === null) return;
    const at = registry === null ? what : `${registry}/${what}`;
    const more = leftOut === 0 ? '' : `; ${leftOut} more of these since the last such line`;
    this.#log.warn(
      { registry: registry ?? undefined, what, status, reason, ...(leftOut === 0 ? {} : { leftOut }) },
      `${SENTENCES[kind]} (${status} for ${at}): ${reason}${more}`,
    );
  }
}
