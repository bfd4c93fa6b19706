import { setTimeout as timer } from 'node:timers/promises';

/**
 * Waits `ms`; rejects with the signal's reason when it is aborted.
 * @param options.ref false: the wait does not keep the process alive
 */
export async function sleep(ms: number, signal?: AbortSignal, { ref = true } = {}): Promise<void> {
  try {
    await timer(ms, undefined, signal === undefined ? { ref } : { signal, ref });
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/**
 * Hands on values that come often, at least `every` ms apart: the first one, and of the others those after a pause. A value that comes with `isLast` is
 * handed on in any case.
 */
export function throttled<T>(every: number, tell: (value: T) => void): (value: T, isLast: boolean) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (value, isLast) => {
    const now = performance.now();
    if (now - last < every && !isLast) return;
    last = now;
    tell(value);
  };
}

/** Spreads a wait over ±`share` of itself, so that many waiters do not return at the same moment. */
export function jitter(ms: number, share = 0.2, random: () => number = Math.random): number {
  return ms * (1 + share * (2 * random() - 1));
}

/** A time (ms since 1970) in ISO 8601, UTC, to the millisecond. */
export function iso(time: number): string {
  return new Date(time).toISOString();
}

/** `3 d 4 h`, `12 min`, `8 s`: the two largest units of a span in milliseconds. */
export function formatSpan(ms: number): string {
  let seconds = Math.max(0, Math.round(ms / 1000));
  const parts: string[] = [];
  for (const [size, name] of [
    [86_400, 'd'],
    [3600, 'h'],
    [60, 'min'],
    [1, 's'],
  ] as const) {
    if (seconds < size) continue;
    parts.push(`${Math.floor(seconds / size)} ${name}`);
    seconds %= size;
    if (parts.length === 2) break;
  }
  return parts.length === 0 ? '0 s' : parts.join(' ');
}

/** ms since this machine started, to a constant; the same clock in all of its processes, and nobody can set it. */
function monotonic(): number {
  return performance.now() + MONOTONIC_AT_START;
}

const MONOTONIC_AT_START = Number(process.hrtime.bigint()) / 1e6 - performance.now();

let startedAt = Date.now() - monotonic();

/**
 * ms since 1970 for times that are compared with each other: what the machine's clock said at the start of this gateway, and what has passed
 * since. A clock that is put right meanwhile makes nothing young or old. Times that a person or another machine reads come from `Date.now`.
 */
export function steadyNow(): number {
  return Math.floor(startedAt + monotonic());
}

/** What another process of the same gateway gives to `shareSteadyClock`, so that both give the same time. */
export function steadyClock(): number {
  return startedAt;
}

export function shareSteadyClock(clock: number): void {
  startedAt = clock;
}

/** ms that have passed since `at`. A time that is still to come was kept while the clock was wrong, and counts as long ago. */
export function elapsed(at: number, now: number = steadyNow()): number {
  return at > now ? Number.POSITIVE_INFINITY : now - at;
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
