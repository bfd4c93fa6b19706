import { jitter } from '../../kit/time.ts';
import { InvalidResponseError, StatusError, TokenRefusedError } from '../failures.ts';
import { RedirectError } from '../net/reach.ts';

/** Attempts in a row that bring no byte, before a download is given up: with the waits between them some two minutes. */
const MAX_IDLE_ATTEMPTS = 12;
/** Refusals (401, 403, 404) in a row, before it is given up: a registry that sent a part of the blob may refuse the rest by mistake, but not for long. */
const MAX_REFUSALS = 4;
/** After an attempt that brought this many bytes the next one follows at once, so that a link which breaks every few MiB is not slowed down further. */
const NO_WAIT_BYTES = 1024 * 1024;
/** Wait after an attempt that brought fewer bytes. */
const RESUME_MS = 100;
/** Wait after the first attempt that brought nothing; doubles from there. */
const BACKOFF_MS = 250;
const BACKOFF_MAX_MS = 15_000;
/** The longest `Retry-After` that is honoured; clients do not wait longer. */
const RETRY_AFTER_MAX_MS = 60_000;

/** Decides after each failed attempt of a download whether and when to go on. */
export class RetryPolicy {
  #idleAttempts = 0;
  #refusals = 0;

  /** Attempts in a row that brought nothing. */
  get idleAttempts(): number {
    return this.#idleAttempts;
  }

  /**
   * @param broughtBytes what the failed attempt brought
   * @returns milliseconds to wait before the next attempt; null to give up
   */
  next(error: unknown, broughtBytes: number): number | null {
    this.#idleAttempts = broughtBytes > 0 ? 0 : this.#idleAttempts + 1;
    this.#refusals = broughtBytes === 0 && isRefusal(error) ? this.#refusals + 1 : 0;
    if (this.#idleAttempts >= MAX_IDLE_ATTEMPTS || this.#refusals >= MAX_REFUSALS) return null;
    const retryAfter = error instanceof StatusError ? Math.min(RETRY_AFTER_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    return Math.max(jitter(this.#wait(broughtBytes)), retryAfter);
  }

  #wait(broughtBytes: number): number {
    if (broughtBytes >= NO_WAIT_BYTES) return 0;
    return broughtBytes > 0 ? RESUME_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.#idleAttempts - 1));
  }
}

function isRefusal(error: unknown): boolean {
  if (error instanceof StatusError) return error.status < 500 && error.status !== 429 && error.status !== 408;
  return [TokenRefusedError, InvalidResponseError, RedirectError].some((type) => error instanceof type);
}
