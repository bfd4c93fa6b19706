import { LRUCache } from 'lru-cache';
import { ConnectError, isBusy, isTimeout, SinkError, StatusError } from './failures.ts';

/** Hosts that are remembered. */
const MAX_HOSTS = 1024;
/** For how long a host is not asked by HEAD again; some answer it wrongly only while they are being changed. */
const REMEMBERED_MS = 10 * 60_000;

/** What is asked for: some registries (public.ecr.aws) refuse HEAD for blobs only. */
type Kind = 'manifest' | 'blob';

/**
 * Asks by HEAD, and where HEAD is refused or cannot be true, by GET: a HEAD costs less and does not count as a pull, but some registries, and
 * hosts that they redirect to, refuse every HEAD with a 401, 403 or 404, or answer it with the length of nothing.
 */
export class HeadOrGet {
  readonly #unreliable = new LRUCache<string, true>({ max: MAX_HOSTS, ttl: REMEMBERED_MS });

  /**
   * @param head null where the answer cannot be true of what was asked for, or says too little
   * @throws what GET throws; of HEAD only that the host was not reached, did not answer in time, or asks for fewer requests
   */
  async ask<T>(
    endpoint: URL,
    kind: Kind,
    signal: AbortSignal,
    { head, get }: { head: () => Promise<T | null>; get: () => Promise<T> },
  ): Promise<T> {
    const key = `${kind} ${endpoint.origin}`;
    if (this.#unreliable.has(key)) return get();
    try {
      const answer = await head();
      if (answer !== null) return answer;
    } catch (error) {
      signal.throwIfAborted();
      // Asked twice in a row, a client would wait twice as long; when it comes back, GET is asked at once.
      if (isTimeout(error) && !(error instanceof ConnectError)) this.#unreliable.set(key, true);
      if (isFinal(error)) throw error;
    }
    const answer = await get();
    // Only now: what does not exist is no reason to mistrust HEAD.
    this.#unreliable.set(key, true);
    return answer;
  }
}

function isFinal(error: unknown): boolean {
  const limited = error instanceof StatusError && error.status === 429;
  return limited || error instanceof ConnectError || error instanceof SinkError || isTimeout(error) || isBusy(error);
}
