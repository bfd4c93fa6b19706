import { jitter } from '../kit/time.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/**
 * Waits after the first, second … failure in a row, as certmagic has them: quick at first, where a person is still mending a DNS record,
 * then slow enough to stay far below every CA's limits.
 */
export const WAITS: readonly number[] = [
  ...[1, 2, 2, 5].map((minutes) => minutes * MINUTE),
  ...times(3, 10 * MINUTE),
  ...times(4, 20 * MINUTE),
  ...times(6, 30 * MINUTE),
  ...times(3, HOUR),
  ...times(2, 2 * HOUR),
  ...times(2, 3 * HOUR),
];
/** After the table, for a month. */
const LAST_WAIT = 6 * HOUR;
/** A name that has failed for a month is most likely gone; a CA's registration may still come back, so it is never given up. */
export const GIVEN_UP_AFTER = 30 * DAY;
const GIVEN_UP_WAIT = DAY;
/** While a certificate runs out, at most this share of its lifetime: the table fits certificates of 45 days, not those of a minute. */
const RUNNING_OUT_SHARE = 1 / 20;
/** No CA is asked more often than this for one host. */
const SHORTEST = 2_000;

export interface Failing {
  /** Failures in a row, this one included; at least 1. */
  readonly failures: number;
  /** For how long it has failed, ms. */
  readonly failingFor: number;
  /** Of the certificate in use, ms; null where there is none, or where it ran out more than its own lifetime ago. */
  readonly lifetime: number | null;
}

/** How long to wait before the next attempt, ms; what a CA asked for is kept apart, for each CA (HostRecord.holds). */
export function nextWait(failing: Failing, random: () => number = Math.random): number {
  const table =
    failing.failingFor > GIVEN_UP_AFTER ? GIVEN_UP_WAIT : (WAITS[Math.max(1, failing.failures) - 1] ?? LAST_WAIT);
  const longest = failing.lifetime === null ? Number.POSITIVE_INFINITY : failing.lifetime * RUNNING_OUT_SHARE;
  return Math.round(Math.max(SHORTEST, Math.min(jitter(table, 0.2, random), longest)));
}

function times(count: number, wait: number): number[] {
  return Array.from({ length: count }, () => wait);
}
