import { jitter } from '../kit/time.ts';
import { NonsenseError, StatusError, TokenRefusedError } from './failures.ts';
import { RedirectError } from './redirects.ts';

/** Attempts in a row that bring no byte, before a download is given up: with the waits between them some two minutes. */
const MAX_IDLE_ATTEMPTS = 12;
/** As many refusals (401, 403, 404) in a row: a registry that gave half a blob and then refuses it may have had a bad moment, not a bad minute. */
const MAX_REFUSALS = 4;
/** An attempt that brought so much has paid for the next one: a link that breaks every few MiB is not made slower still by waiting. */
const WORTHWHILE = 1024 * 1024;
/** Wait after an attempt that brought less, and after the first that brought nothing; doubles from there. */
const RESUME_MS = 100;
const BACKOFF_MS = 250;
const BACKOFF_MAX_MS = 15_000;
/** A registry that asks for more patience gets this much; clients do not wait longer. */
const RETRY_AFTER_MAX_MS = 60_000;

/** Counts what went wrong in a row in one download, and says how long to wait before it goes on. */
export class Setbacks {
  /** Attempts in a row that brought nothing. */
  idle = 0;
  #refusals = 0;

  /** @returns milliseconds to wait after an attempt that brought so many bytes; null: it is of no use to go on */
  after(error: unknown, brought: number): number | null {
    this.idle = brought > 0 ? 0 : this.idle + 1;
    this.#refusals = brought === 0 && isRefusal(error) ? this.#refusals + 1 : 0;
    if (this.idle >= MAX_IDLE_ATTEMPTS || this.#refusals >= MAX_REFUSALS) return null;
    const asked = error instanceof StatusError ? Math.min(RETRY_AFTER_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    return Math.max(jitter(this.#wait(brought)), asked);
  }

  #wait(brought: number): number {
    if (brought >= WORTHWHILE) return 0;
    return brought > 0 ? RESUME_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.idle - 1));
  }
}

function isRefusal(error: unknown): boolean {
  if (error instanceof StatusError) return error.status < 500 && error.status !== 429 && error.status !== 408;
  return error instanceof TokenRefusedError || error instanceof NonsenseError || error instanceof RedirectError;
}
