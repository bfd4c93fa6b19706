import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../../src/kit/time.ts';

/** A clock that the test moves; timers fire while it moves, in their order. Starts at the real time. */
export class TestClock implements Clock {
  #now = Date.now();
  #timers: { readonly at: number; readonly call: () => void }[] = [];

  readonly now = (): number => this.#now;

  after(ms: number, call: () => void): () => void {
    const timer = { at: this.#now + ms, call };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#timers.filter(({ at }) => at <= end).sort((one, other) => one.at - other.at)[0];
      if (next === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== next);
      this.#now = Math.max(this.#now, next.at);
      next.call();
    }
    this.#now = end;
  }
}

/** What a test of a quota may take, ms, on a busy machine. */
const TEST = 30_000;
const DAY = 86_400_000;

/** Resolves at once, or after midnight UTC where that is so near that a test which counts the bytes of a day would see two. */
export async function awayFromMidnight(): Promise<void> {
  const left = DAY - (Date.now() % DAY);
  if (left < TEST) await sleep(left + 1_000);
}
