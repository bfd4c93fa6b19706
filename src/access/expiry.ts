import { parseDuration } from '../config/values.ts';
import { iso } from '../kit/time.ts';
import { isOver, type StoredUser } from './user-snapshot.ts';

const DAY = 86_400_000;
/** A token that expires within this is said to, ms; one that was made for a short while only in the last fifth of it. */
const SOON = 14 * DAY;
/** What is farther away is `never`, and a date of five digits no other program reads. */
const MOST_YEARS = 100;

export type TokenState = 'valid' | 'expiring' | 'expired';

export function tokenState(
  { issuedAt, expiresAt }: Pick<StoredUser, 'issuedAt' | 'expiresAt'>,
  now: number,
): TokenState {
  if (expiresAt === null) return 'valid';
  if (isOver(expiresAt, now)) return 'expired';
  const end = Date.parse(expiresAt);
  return end - now <= Math.min(SOON, (end - Date.parse(issuedAt)) / 5) ? 'expiring' : 'valid';
}

/**
 * When a token expires: a duration from now (`90d`, `12h`), a date (its first moment, UTC), a date and time (UTC where it names no zone), or
 * `never`, which is null. Returns ISO 8601.
 * @throws {Error} in words
 */
export function parseExpiry(written: string, now: number): string | null {
  const text = written.trim();
  if (text === 'never') return null;
  const at = /^\d{4}-/.test(text) ? parseDate(text) : now + parseDuration(text);
  if (at <= now) throw new Error(`"${text}" is over already; write a time to come, such as 90d or a date`);
  if (at > now + MOST_YEARS * 365.25 * DAY)
    throw new Error(`"${text}" is more than ${MOST_YEARS} years away; write never`);
  return iso(at);
}

const DATE = /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2}(?:\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})?)?$/i;

function parseDate(text: string): number {
  const [, day = '', time = '00:00', seconds = ':00', zone = 'Z'] = DATE.exec(text) ?? [];
  const at = Date.parse(`${day}T${time}${seconds}${zone.toUpperCase()}`);
  // Date.parse takes the 31st of a month that has none for the day after its last.
  const midnight = Date.parse(`${day}T00:00:00Z`);
  const exists = !Number.isNaN(at) && iso(midnight).startsWith(day);
  if (!exists) throw new Error(`"${text.slice(0, 40)}" is no date; write it like 2027-01-31 or 2027-01-31T18:00Z`);
  return at;
}
