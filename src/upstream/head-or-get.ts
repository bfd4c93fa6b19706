import { LRUCache } from 'lru-cache';
import { ConnectError, isBusy, SinkError, StatusError } from './failures.ts';

/** Hosts that are remembered. */
const MAX_HOSTS = 1024;
/** For how long a host is not asked by HEAD again; some answer it wrongly only while they are being changed. */
const REMEMBERED_MS = 10 * 60_000;

/** What is asked for: some registries (public.ecr.aws) refuse HEAD for blobs only. */
type Kind = 'manifest' | 'blob';

/** A HEAD without an answer for so long is not waited for alone, ms: clients wait 30 s, and a GET may need some of them. */
const PATIENCE_MS = 8_000;

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
  readonly #unreliable = new LRUCache<string, true>({ max: MAX_HOSTS, ttl: REMEMBERED_MS });
  readonly #patience: number;

  /** @param stallTimeout the longest that an answer may take to begin, ms */
  constructor(stallTimeout: number) {
    // Before the same HEAD would be sent once more beside it (see exchange.ts).
    this.#patience = Math.min(PATIENCE_MS, 0.4 * stallTimeout);
  }

  /** @throws what GET throws; of HEAD only that the host was not reached, or asks for fewer requests */
  async ask<T>(endpoint: URL, kind: Kind, signal: AbortSignal, { head, get }: EitherWay<T>): Promise<T> {
    const key = `${kind} ${endpoint.origin}`;
    if (this.#unreliable.has(key)) return await get(signal);
    const asked = new AbortController();
    try {
      const answer = await this.#patiently(head(AbortSignal.any([signal, asked.signal])));
      if (answer !== null) return answer;
    } catch (error) {
      signal.throwIfAborted();
      if (isFinal(error)) throw error;
    }
    try {
      const answer = await get(signal);
      // Only now: what does not exist is no reason to mistrust HEAD.
      this.#unreliable.set(key, true);
      return answer;
    } finally {
      asked.abort(new Error('GET has decided'));
    }
  }

  /** Null where there is no answer for long; what comes later is of no interest. */
  async #patiently<T>(answer: Promise<T | null>): Promise<T | null> {
    answer.catch(() => {});
    const { promise: late, resolve } = Promise.withResolvers<null>();
    const timer = setTimeout(() => resolve(null), this.#patience);
    try {
      return await Promise.race([answer, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function isFinal(error: unknown): boolean {
  // 508: whatever leads back to where it came from does so for GET, too.
  const decided = error instanceof StatusError && (error.status === 429 || error.status === 508);
  return decided || error instanceof ConnectError || error instanceof SinkError || isBusy(error);
}
