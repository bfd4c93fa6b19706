/** More bytes came than whoever reads is ready to hold. */
export class TooLargeError extends Error {
  override readonly name = 'TooLargeError';
}

/** Reads a stream whole, never past `limit` bytes. @throws {TooLargeError} */
export async function readBounded(stream: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > limit) throw new TooLargeError(`more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

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

const SECRET_QUERY =
  /^(token|access_token|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token|x-goog-signature|x-goog-credential|policy|key-pair-id|password|verify)$/i;

/** A URL fit for a log: no user info, no signature or token in the query. What is no URL comes back as it is, shortened. */
export function redactUrl(text: string): string {
  if (!URL.canParse(text)) return text.slice(0, 200);
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') {
    url.username = '***';
    url.password = '';
  }
  for (const name of [...url.searchParams.keys()]) if (SECRET_QUERY.test(name)) url.searchParams.set(name, '***');
  return url.href;
}
