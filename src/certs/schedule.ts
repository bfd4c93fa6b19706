import { jitter } from '../kit/time.ts';
import type { RenewalInfo } from './issuer.ts';
import type { RenewalRecord } from './store.ts';
import type { CertificateFacts } from './x509.ts';

/**
 * Every time that counts: when a certificate is renewed, when its CA is asked about that, and when a failed attempt is repeated.
 * Nothing counts in days: lifetimes shrink (90, 64, 45 days; 160 hours), so everything is a share of the lifetime.
 */

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Below this a certificate counts as short-lived and is renewed at half of its life, else when a third is left (Let's Encrypt's advice). */
const SHORT_LIVED = 240 * HOUR;
const SHARE_LEFT = 1 / 3;
const SHARE_LEFT_SHORT = 1 / 2;
/** Earlier by up to this share of the lifetime, so that certificates of one day do not come due in one minute. */
const SPREAD = 1 / 30;
/** Whatever a CA suggests: never closer to the end than this share. */
const LATEST_LEFT = 1 / 20;

/** RFC 9773 §4.3: a minute and a day are sensible bounds for the interval that the CA gives. */
const CHECK_SHORTEST = MINUTE;
const CHECK_LONGEST = DAY;
/** Without Retry-After, and after a failure, this often; the usual value of CAs that give one. */
const CHECK_USUAL = 6 * HOUR;
const CHECK_AFTER_FAILURE = HOUR;
/** For certificates of minutes: at least this many looks in a lifetime. */
const CHECKS_IN_A_LIFE = 20;

type Validity = Pick<CertificateFacts, 'notBefore' | 'notAfter' | 'fingerprint'>;

export function lifetime(certificate: Pick<Validity, 'notBefore' | 'notAfter'>): number {
  return certificate.notAfter - certificate.notBefore;
}

/** When any certificate is renewed, of a CA or of our own: at the moment chosen in the CA's window, else at a share of the lifetime. */
export function renewalTime(certificate: Validity, renewal: RenewalRecord | null): number {
  if (renewal === null || renewal.fingerprint !== certificate.fingerprint) return shareTime(certificate);
  return Math.min(renewal.renewAt, certificate.notAfter - lifetime(certificate) * LATEST_LEFT);
}

function shareTime(certificate: Validity): number {
  const life = lifetime(certificate);
  const left = life < SHORT_LIVED ? SHARE_LEFT_SHORT : SHARE_LEFT;
  return certificate.notAfter - life * (left + SPREAD * steadyRandom(certificate.fingerprint));
}

/** From 0 to 1, the same for a certificate at every start, so that a restart moves nothing. */
function steadyRandom(fingerprint: string): number {
  return Number.parseInt(fingerprint.slice(0, 8), 16) / 0xffffffff;
}

/** Takes in an answer of the CA. The moment once chosen stays while the window does (RFC 9773 §4.2). */
export function recordRenewal(
  certificate: Validity,
  info: RenewalInfo,
  before: RenewalRecord | null,
  now: number,
  random: () => number = Math.random,
): RenewalRecord {
  const same =
    before !== null &&
    before.fingerprint === certificate.fingerprint &&
    before.windowStart === info.windowStart &&
    before.windowEnd === info.windowEnd;
  return {
    fingerprint: certificate.fingerprint,
    windowStart: info.windowStart,
    windowEnd: info.windowEnd,
    renewAt: same ? before.renewAt : Math.round(info.windowStart + random() * (info.windowEnd - info.windowStart)),
    explanation: info.explanation,
    checkAt: Math.round(now + checkInterval(certificate, info.retryAfter ?? CHECK_USUAL)),
  };
}

/** When to ask about a certificate that was just obtained, or after the question failed, ms from now. */
export function firstCheck(certificate: Validity): number {
  return Math.min(CHECK_SHORTEST, lifetime(certificate) / CHECKS_IN_A_LIFE) * steadyRandom(certificate.fingerprint);
}

export function checkAfterFailure(certificate: Validity): number {
  return checkInterval(certificate, CHECK_AFTER_FAILURE);
}

function checkInterval(certificate: Validity, wanted: number): number {
  const shortest = Math.min(CHECK_SHORTEST, lifetime(certificate) / CHECKS_IN_A_LIFE);
  return Math.min(CHECK_LONGEST, Math.max(shortest, wanted));
}

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
