import { setTimeout as timer } from 'node:timers/promises';

/** Waits `ms`; rejects with the signal's reason when it is aborted. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  try {
    await timer(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** Spreads a wait over ±`share` of itself, so that many waiters do not return at the same moment. */
export function jitter(ms: number, share = 0.2, random: () => number = Math.random): number {
  return ms * (1 + share * (2 * random() - 1));
}

/** A time (ms since 1970) in ISO 8601, UTC, to the millisecond. */
export function iso(time: number): string {
  return new Date(time).toISOString();
}

/** Time, so that tests can let months pass. */
export interface Clock {
  /** Epoch milliseconds. */
  now(): number;
  /** Calls back once after `ms`; the function returned calls it off. */
  after(ms: number, call: () => void): () => void;
}

/** A timer keeps no process alive: the listeners do. */
export const systemClock: Clock = {
  now: Date.now,
  after(ms, call) {
    const timer = setTimeout(call, ms);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
