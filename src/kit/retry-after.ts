/** A longer wait than this in `Retry-After` comes from a wrong clock or a wrong unit. */
const LONGEST_MS = 31 * 24 * 3_600_000;

/**
 * The wait that a `Retry-After` header asks for (RFC 9110 §10.2.3: whole seconds or an HTTP date; some servers send fractions), in
 * milliseconds from `now`, never negative and at most 31 days; null where there is no such header or it cannot be read.
 */
export function parseRetryAfter(header: string | undefined, now: number = Date.now()): number | null {
  if (header === undefined) return null;
  const text = header.trim();
  if (/^\d+(\.\d+)?$/.test(text)) return Math.min(LONGEST_MS, Number(text) * 1000);
  // Date.parse reads far more than HTTP dates, which begin with the day's name.
  const date = /^[A-Za-z]{3,}, /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? null : Math.min(LONGEST_MS, Math.max(0, date - now));
}
