import { jitter } from '../../kit/time.ts';
import { InvalidResponseError, RedirectError, StatusError, TokenRefusedError } from '../failures.ts';

/** A download that brings no byte for so long is given up, ms: clients do not wait longer either. */
const GIVE_UP_MS = 120_000;
/** But not before so many attempts were sent, each of which may have waited for an answer until the stall timeout. */
const MIN_ATTEMPTS = 5;
/** Refusals (401, 403, 404) in a row, before it is given up: a registry that sent a part of the blob may refuse the rest by mistake, but not for long. */
const MAX_REFUSALS = 4;
/** After an attempt that brought this many bytes the next one follows at once, so that a link which breaks every few MiB is not slowed down further. */
const NO_WAIT_BYTES = 1024 * 1024;
/** Wait after an attempt that brought fewer bytes. */
const RESUME_MS = 100;
/** Wait after the first attempt that brought nothing; doubles from there. */
const BACKOFF_MS = 250;
/** Clients of a registry that is well again get their next byte after this at most. */
const BACKOFF_MAX_MS = 4_000;
/** The longest `Retry-After` that is honoured; clients do not wait longer. */
const RETRY_AFTER_MAX_MS = 60_000;

/** Decides after each failed attempt of a download whether and when to go on. */
export class RetryPolicy {
  readonly #now: () => number;
  #idleAttempts = 0;
  #refusals = 0;
  /** When bytes came last, or attempts began. */
  #since: number;

  /** @param now milliseconds of a monotonic clock */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#since = now();
  }

  /** Attempts in a row that brought nothing. */
  get idleAttempts(): number {
    return this.#idleAttempts;
  }

  /** The download goes on after a rest, which does not count. */
  resume(): void {
    this.#since = this.#now();
  }

  /**
   * @param broughtBytes what the failed attempt brought
   * @returns milliseconds to wait before the next attempt; null to give up
   */
  next(error: unknown, broughtBytes: number): number | null {
    if (broughtBytes > 0) {
      this.#idleAttempts = 0;
      this.#since = this.#now();
    } else this.#idleAttempts++;
    this.#refusals = broughtBytes === 0 && isRefusal(error) ? this.#refusals + 1 : 0;
    if (this.#refusals >= MAX_REFUSALS) return null;
    const idleFor = this.#now() - this.#since;
    if (idleFor >= GIVE_UP_MS && this.#idleAttempts >= MIN_ATTEMPTS) return null;
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
