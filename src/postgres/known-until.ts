import { setImmediate as turn } from 'node:timers/promises';
import { Freshness, type Moment, moment } from '../kit/freshness.ts';
import type { Logger } from '../telemetry/log.ts';
import type { PostgresFeed } from './feed.ts';
import type { Uptake } from './uptake.ts';

/** What was read is served by for so long, ms: as long as a silent node counts as living, so that a command waits for it. */
const AFTER_ANSWER = 10_000;
/** … and what was known for so long, ms, after the database was found to be away: more than the longest time between two attempts. */
const AFTER_FAILURE = 20_000;
/** An attempt that took longer, ms, than any timeout allows: the process stood still meanwhile, and nothing is known of the database now. */
const LONGEST_ATTEMPT = 8_000;
/** Nobody is kept waiting for longer, ms; clients give up soon after. */
const LONGEST_WAIT = 8_000;

export interface KnownUntilOptions {
  readonly feed: Pick<PostgresFeed, 'onAttempt' | 'revision'>;
  readonly uptake: Pick<Uptake, 'isCurrent' | 'onLoad'>;
  /** Resolves once every process of this gateway serves by what was loaded. */
  readonly published: () => Promise<void>;
  readonly log: Pick<Logger, 'warn'>;
}

/**
 * How long this node may serve by what it knows of the shared state: for some seconds after each reading of the revisions, once all that had changed is
 * taken into use, or after each attempt that found the database away. A node that stood still while others took its place, so that no command waited
 * for it, serves nobody before the next of these.
 */
export class KnownUntil {
  readonly freshness: Freshness;
  readonly #options: KnownUntilOptions;
  readonly #waiting = new Set<() => void>();
  readonly #unwatch: () => void;
  /** When the newest revisions were asked for that are not taken into use yet. */
  #read: Moment | null = null;

  constructor(options: KnownUntilOptions) {
    this.#options = options;
    this.freshness = new Freshness(() => this.#wait());
    // What is loaded from now on is as new as that.
    this.#extend(moment(), AFTER_ANSWER);
    this.#unwatch = options.feed.onAttempt((asked, answered) => {
      if (answered) {
        this.#read = asked;
        // It may have been away a moment ago; from now on commands count on this node as on any other.
        this.freshness.limit({ steady: asked.steady + AFTER_ANSWER, date: asked.date + AFTER_ANSWER });
        void this.#takenUp();
      } else if (performance.now() - asked.steady < LONGEST_ATTEMPT) this.#extend(moment(), AFTER_FAILURE);
    });
    options.uptake.onLoad(() => void this.#takenUp());
  }

  close(): void {
    this.#unwatch();
    this.#extend({ steady: Number.POSITIVE_INFINITY, date: Number.POSITIVE_INFINITY }, 0);
  }

  async #takenUp(): Promise<void> {
    const read = this.#read;
    if (read === null || !this.#options.uptake.isCurrent()) return;
    if (this.freshness.isOver(performance.now())) {
      // Who has asked for what was loaded has it by then.
      await turn();
      // A worker that does not take it is made to end.
      await this.#options.published().catch(() => {});
    }
    this.#extend(read, AFTER_ANSWER);
  }

  #extend({ steady, date }: Moment, ms: number): void {
    this.freshness.extend({ steady: steady + ms, date: date + ms });
    if (this.freshness.isOver(performance.now())) return;
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  async #wait(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    const late = setTimeout(() => {
      this.#options.log.warn(
        'the database has neither answered nor failed in time; this node goes on with what it knows',
      );
      this.#extend(moment(), AFTER_FAILURE);
    }, LONGEST_WAIT);
    if (!this.freshness.isOver(performance.now())) resolve();
    await promise;
    clearTimeout(late);
  }
}
