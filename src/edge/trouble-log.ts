import { LRUCache } from 'lru-cache';
import type { TroubleSeen } from '../telemetry/activity.ts';
import type { Logger } from '../telemetry/log.ts';

/** The same trouble is logged once in so long, ms: a registry that is down would fill the log with one line for each request. */
const EVERY = 60_000;
/** Troubles that are told apart at a time. */
const MAX_TROUBLES = 1_000;

interface Told {
  readonly at: number;
  leftOut: number;
}

const SENTENCES: Readonly<Record<TroubleSeen['kind'], string>> = {
  failed: 'a request was not served',
  stale: 'a kept answer was served, since the registry fails',
  cut: 'a body ended before its length',
};

/** Says at `warn` why requests fail and answers are old, the same of one registry once a minute, and then how often it was so in between. */
export class TroubleLog {
  readonly #log: Pick<Logger, 'warn'>;
  readonly #now: () => number;
  readonly #told = new LRUCache<string, Told>({ max: MAX_TROUBLES });

  /** @param now monotonic, ms */
  constructor(log: Pick<Logger, 'warn'>, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  tell({ kind, registry, row, status, reason, what }: TroubleSeen): void {
    const key = `${kind} ${status} ${row}`;
    const now = this.#now();
    const told = this.#told.get(key);
    if (told !== undefined && now - told.at < EVERY) {
      told.leftOut += 1;
      return;
    }
    const leftOut = told?.leftOut ?? 0;
    this.#told.set(key, { at: now, leftOut: 0 });
    const at = registry === null ? what : `${registry}/${what}`;
    const more = leftOut === 0 ? '' : `; ${leftOut} more of these since the last such line`;
    this.#log.warn(
      { registry: registry ?? undefined, what, status, reason, ...(leftOut === 0 ? {} : { leftOut }) },
      `${SENTENCES[kind]} (${status} for ${at}): ${reason}${more}`,
    );
  }
}
