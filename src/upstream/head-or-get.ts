import { LRUCache } from 'lru-cache';
import { ConnectError, isBusy, isFault, SinkError, StatusError } from './failures.ts';

/** Hosts that are remembered. */
const MAX_HOSTS = 1024;
/** For how long a host that refuses HEAD is not asked by it again; some answer it wrongly only while they are being changed. */
const REMEMBERED_MS = 10 * 60_000;
/** … and one that failed once, which says little about HEAD: each GET in its place may count as a pull, and at Docker Hub soon one too many. */
const FAILURE_MS = 30_000;

/** What is asked for: some registries (public.ecr.aws) refuse HEAD for blobs only. */
type Kind = 'manifest' | 'blob';

/** A HEAD without an answer for so long is not waited for alone, ms: clients wait 30 s, and a GET may need some of them. */
const PATIENCE_MS = 8_000;

/** There was no answer to a HEAD for long. */
const LATE = Symbol('late');

/** How the same question is asked either way. The signal of each ends that request alone. */
export interface EitherWay<T> {
  /** Null where the answer cannot be true of what was asked for, or says too little. */
  readonly head: (signal: AbortSignal) => Promise<T | null>;
  readonly get: (signal: AbortSignal) => Promise<T>;
}

/**
 * Asks by HEAD, and where HEAD is refused, cannot be true or is not answered, by GET: a HEAD costs less and does not count as a pull, but some
 * registries, and hosts that they redirect to, refuse every HEAD with a 401, 403 or 404, answer it with the length of nothing, or never.
 */
export class HeadOrGet {
  /** Hosts whose HEADs were of no use, and have not been since. */
  readonly #unreliable = new LRUCache<string, { readonly until: number }>({ max: MAX_HOSTS });
  readonly #stallTimeout: () => number;
  readonly #now: () => number;

  /**
   * @param stallTimeout the longest that an answer may take to begin, ms
   * @param now monotonic, ms
   */
  constructor(stallTimeout: () => number, now: () => number = () => performance.now()) {
    this.#stallTimeout = stallTimeout;
    this.#now = now;
  }

  /** @throws what GET throws; of HEAD only that the host was not reached, or asks for fewer requests */
  async ask<T>(endpoint: URL, kind: Kind, signal: AbortSignal, { head, get }: EitherWay<T>): Promise<T> {
    const key = `${kind} ${endpoint.origin}`;
    const before = this.#unreliable.get(key);
    if (before !== undefined && this.#now() < before.until) return await get(signal);
    const asked = new AbortController();
    let failed: boolean;
    try {
      const answer = await this.#patiently(head(AbortSignal.any([signal, asked.signal])));
      if (answer !== null && answer !== LATE) {
        this.#unreliable.delete(key);
        return answer;
      }
      failed = answer === LATE;
    } catch (error) {
      signal.throwIfAborted();
      if (isFinal(error)) throw error;
      failed = isFailure(error);
    }
    try {
      const answer = await get(signal);
      // Only now: what does not exist is no reason to mistrust HEAD. Those that failed at the same moment are one failure.
      if (!failed) this.#unreliable.set(key, { until: this.#now() + REMEMBERED_MS });
      else if (this.#unreliable.get(key) === before) {
        this.#unreliable.set(key, { until: this.#now() + (before === undefined ? FAILURE_MS : REMEMBERED_MS) });
      }
      return answer;
    } finally {
      asked.abort(new Error('GET has decided'));
    }
  }

  /** What comes later is of no interest. */
  async #patiently<T>(answer: Promise<T>): Promise<T | typeof LATE> {
    answer.catch(() => {});
    const { promise: late, resolve } = Promise.withResolvers<typeof LATE>();
    // Before the same HEAD would be sent once more beside it (see exchange.ts).
    const timer = setTimeout(() => resolve(LATE), Math.min(PATIENCE_MS, 0.4 * this.#stallTimeout()));
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Whether a HEAD failed as a GET might have, rather than being refused. */
function isFailure(error: unknown): boolean {
  if (!(error instanceof StatusError)) return isFault(error);
  const status = error.downloadHostStatus ?? error.status;
  // 501: it has no such method (RFC 9110 §15.6.2).
  return status === 408 || (status >= 500 && status !== 501);
}

function isFinal(error: unknown): boolean {
  // 508: whatever leads back to where it came from does so for GET, too.
  const decided =
    error instanceof StatusError && ((error.status === 429 && !error.unexplained) || error.status === 508);
  return decided || error instanceof ConnectError || error instanceof SinkError || isBusy(error);
}
