/** One moment by two clocks. */
export interface Moment {
  /** `performance.now()`: nobody sets it, and it stands still while the machine sleeps. */
  readonly steady: number;
  /** `Date.now()`: it goes on while the machine sleeps. */
  readonly date: number;
}

export function moment(): Moment {
  return { steady: performance.now(), date: Date.now() };
}

/**
 * Until when a process may decide by what it was told of others' changes. A process that stood still (stopped, swapped out, its machine asleep) finds
 * that this time is over with the first request that it reads, before any of its timers has run. It is over on either clock: a clock that is set forward costs
 * one question.
 */
export class Freshness {
  readonly #ask: () => Promise<void>;
  #until: Moment = { steady: Number.NEGATIVE_INFINITY, date: Number.NEGATIVE_INFINITY };
  #asking: Promise<void> | null = null;

  /** @param ask resolves once `extend` was called anew, or nothing better can be had; called when that is wanted */
  constructor(ask: () => Promise<void>) {
    this.#ask = ask;
  }

  get until(): Moment {
    return this.#until;
  }

  /** @param now by `performance.now()` */
  isOver(now: number): boolean {
    return now > this.#until.steady || Date.now() > this.#until.date;
  }

  /** No further than this. */
  limit({ steady, date }: Moment): void {
    this.#until = { steady: Math.min(this.#until.steady, steady), date: Math.min(this.#until.date, date) };
  }

  /** Never back. */
  extend({ steady, date }: Moment): void {
    this.#until = { steady: Math.max(this.#until.steady, steady), date: Math.max(this.#until.date, date) };
  }

  /** Resolves once it may be decided again. */
  renewed(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }
}
