/** Seconds of a `Retry-After` (RFC 9110 §10.2.3: seconds or a date), never negative; undefined where there is none that can be read. */
export function parseRetryAfter(header: string | undefined, now: number = Date.now()): number | undefined {
  if (header === undefined) return undefined;
  const text = header.trim();
  if (/^\d{1,9}(\.\d+)?$/.test(text)) return Number(text);
  // Date.parse reads far more than dates of HTTP.
  const date = /^[A-Za-z]{3,}, /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, Math.ceil((date - now) / 1000));
}
