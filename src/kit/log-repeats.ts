import { LRUCache } from 'lru-cache';

/** The same is logged once in so long, ms: what fails for one client fails for all, and clients try again for ever. */
const EVERY = 60_000;
/** Keys that are told apart at a time. */
const MAX_KEYS = 1_000;

/** Decides what is logged of what happens again and again: the same once a minute, and then how often it was left out in between. */
export class LogRepeats {
  readonly #now: () => number;
  readonly #logged = new LRUCache<string, { readonly at: number; leftOut: number }>({ max: MAX_KEYS });

  /** @param now monotonic, ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** It has happened now: how many of the same were left out since the last line, which is to be logged; null where this is left out, too. */
  note(key: string): number | null {
    const now = this.#now();
    const last = this.#logged.get(key);
    if (last !== undefined && now - last.at < EVERY) {
      last.leftOut += 1;
      return null;
    }
    this.#logged.set(key, { at: now, leftOut: 0 });
    return last?.leftOut ?? 0;
  }
}
