import { TooLargeError } from '../../kit/http.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { formatSpan, jitter, sleep } from '../../kit/time.ts';
import {
  CredentialsWithheldError,
  ForbiddenAddressError,
  InvalidResponseError,
  isCertificateError,
  RedirectError,
  reasonOf,
  StatusError,
  TokenRefusedError,
} from '../failures.ts';
import { quotable } from '../own-reason.ts';

/** How often, and after which waits. */
export interface Backoff {
  /** Failures in a row, without a byte more confirmed between them, after which it is given up. */
  readonly tries: number;
  /** Before the second try, ms; doubled before each further one. */
  readonly first: number;
  /** The longest wait that a registry may ask for, ms. */
  readonly most: number;
}

/** Half a minute in all: a registry that restarts is back by then. A limit of requests may ask for minutes. */
export const BACKOFF: Backoff = { tries: 7, first: 500, most: 15 * 60_000 };

/** A 429 without `Retry-After` is waited for so long at least, ms. */
const LIMITED_MS = 5_000;
/** A wait that a person should be told of, ms. */
const LONG_MS = 5_000;

/** What a registry must not be told on without. */
export interface Told {
  readonly host: string;
  readonly hidden: readonly string[];
}

/** The tries of one thing to do. */
export class Attempts {
  readonly #backoff: Backoff;
  readonly #told: Told;
  readonly #tell: (sentence: string) => void;
  #failures = 0;

  constructor(backoff: Backoff, told: Told, tell: (sentence: string) => void) {
    this.#backoff = backoff;
    this.#told = told;
    this.#tell = tell;
  }

  /** It went on: what failed before counts no more. */
  progressed(): void {
    this.#failures = 0;
  }

  /** Waits until it is worth another try. @throws {OperatorError} where none is; the signal's reason */
  async after(error: unknown, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#failures += 1;
    const { first, tries, most } = this.#backoff;
    const asked = error instanceof StatusError && error.retryAfter !== undefined ? error.retryAfter * 1000 : undefined;
    const isLimit = error instanceof StatusError && error.status === 429;
    const own = jitter(first * 2 ** (this.#failures - 1));
    const wait = Math.max(asked ?? (isLimit ? Math.min(LIMITED_MS, first * 10) : 0), own);
    if (!mayPass(error) || this.#failures >= tries || wait > most) throw pushError(error, this.#told);
    if (wait >= LONG_MS) this.#tell(`${this.#told.host}: ${reasonOf(error)}; trying again in ${formatSpan(wait)}`);
    await sleep(wait, signal);
  }
}

/** Runs what may be run twice until it succeeds. @throws as {@link Attempts.after} */
export async function retrying<T>(attempts: Attempts, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await run();
    } catch (error) {
      if (error instanceof OperatorError) throw error;
      await attempts.after(error, signal);
    }
  }
}

/** Whether the same may succeed later: the registry is busy, or the way to it broke. */
function mayPass(error: unknown): boolean {
  if (error instanceof StatusError)
    return error.status === 408 || error.status === 429 || (error.status >= 500 && error.status !== 501);
  const final = [
    OperatorError,
    TokenRefusedError,
    CredentialsWithheldError,
    ForbiddenAddressError,
    RedirectError,
    InvalidResponseError,
    TooLargeError,
    TypeError,
  ];
  return !final.some((type) => error instanceof type) && !isCertificateError(error);
}

/** A failure in words for whoever has started the push. */
export function pushError(error: unknown, { host, hidden }: Told): OperatorError {
  if (error instanceof OperatorError) return error;
  const answered = error instanceof StatusError || error instanceof TokenRefusedError;
  const said = answered ? quotable(error.said.message ?? error.said.code, hidden) : '';
  const quoted = said === '' ? '' : `; it says: "${said}"`;
  const words = `${host}: ${reasonOf(error)}${quoted}`;
  if (error instanceof CredentialsWithheldError)
    return new OperatorError('PUSH_REFUSED', words, {
      next: `allow it, if that host is trusted: --realm ${error.host}`,
      cause: error,
    });
  const status = answered ? error.status : 0;
  if (status === 405) return new OperatorError('PUSH_UNSUPPORTED', words, { cause: error });
  if (status === 401 || status === 403)
    return new OperatorError('PUSH_REFUSED', words, {
      next: `log in as a user who may push there: docker login ${host}, or --username NAME --password-stdin`,
      cause: error,
    });
  return new OperatorError('PUSH_FAILED', words, { cause: error });
}
