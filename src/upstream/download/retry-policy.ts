import { jitter } from '../../kit/time.ts';
import { InvalidResponseError, RedirectError, StatusError, TokenRefusedError } from '../failures.ts';

/** A download that makes no progress for so long is given up, ms: clients do not wait longer either. */
const GIVE_UP_MS = 120_000;
/** What counts as progress, on all connections together: bytes that come singly would keep a download alive that never ends. */
const PROGRESS_BYTES = 64 * 1024;
/** But not before so many attempts were sent, each of which may have waited for an answer until the stall timeout. */
const MIN_ATTEMPTS = 5;
/** Refusals (401, 403, 404) in a row, before it is given up: a registry that sent a part of the blob may refuse the rest by mistake, but not for long. */
const MAX_REFUSALS = 4;
/** After an attempt that brought this many bytes the next one follows at once, so that a link which breaks every few MiB is not slowed down further. */
const NO_WAIT_BYTES = 1024 * 1024;
/** Wait after an attempt that was a part of some progress. */
const RESUME_MS = 100;
/** Wait after the first attempt that was not; doubles from there. */
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
  /** When there was progress last, or attempts began. */
  #since: number;
  /** What has come since. */
  #brought = 0;
  /** There was progress since the last failed attempt. */
  #progress = false;

  /** @param now milliseconds of a monotonic clock */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#since = now();
  }

  /** Failed attempts in a row that were no part of any progress. */
  get idleAttempts(): number {
    return this.#idleAttempts;
  }

  /** The download goes on after a rest, which does not count. */
  resume(): void {
    this.#since = this.#now();
  }

  /** Bytes came, on any of the download's connections. */
  brought(bytes: number): void {
    this.#brought += bytes;
    if (this.#brought < PROGRESS_BYTES) return;
    this.#brought = 0;
    this.#progress = true;
    this.#since = this.#now();
  }

  /**
   * @param broughtBytes what the failed attempt brought, of which {@link brought} was told
   * @returns milliseconds to wait before the next attempt; null to give up
   */
  next(error: unknown, broughtBytes: number): number | null {
    this.#idleAttempts = broughtBytes > 0 && this.#progress ? 0 : this.#idleAttempts + 1;
    this.#progress = false;
    this.#refusals = broughtBytes === 0 && isRefusal(error) ? this.#refusals + 1 : 0;
    if (this.#refusals >= MAX_REFUSALS) return null;
    const idleFor = this.#now() - this.#since;
    if (idleFor >= GIVE_UP_MS && this.#idleAttempts >= MIN_ATTEMPTS) return null;
    const retryAfter = error instanceof StatusError ? Math.min(RETRY_AFTER_MAX_MS, (error.retryAfter ?? 0) * 1000) : 0;
    return Math.max(jitter(this.#wait(broughtBytes)), retryAfter);
  }

  #wait(broughtBytes: number): number {
    if (broughtBytes >= NO_WAIT_BYTES) return 0;
    return this.#idleAttempts === 0 ? RESUME_MS : Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (this.#idleAttempts - 1));
  }
}

function isRefusal(error: unknown): boolean {
  if (error instanceof StatusError) return error.status < 500 && error.status !== 429 && error.status !== 408;
  return [TokenRefusedError, InvalidResponseError, RedirectError].some((type) => error instanceof type);
}
