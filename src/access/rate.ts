/** Clients remembered at once; beyond it the longest idle is forgotten and starts afresh. About 10 MiB. */
const MAX_CLIENTS = 100_000;
const MINUTE = 60_000;

interface Bucket {
  tokens: number;
  /** When `tokens` was right, ms. */
  at: number;
}

/**
 * Requests a minute and client, as a token bucket: a client may spend a whole minute's worth at once
 * and gets it back evenly, so that waiting out `Retry-After` always lets one request through.
 */
export class RequestRate {
  readonly #perMinute: number;
  /** In order of last use. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(perMinute: number) {
    this.#perMinute = perMinute;
  }

  /** Takes one request from the client's share; 0, or the seconds until there is one again. */
  take(client: string, now: number): number {
    const held = this.#buckets.get(client);
    const refilled = held === undefined ? this.#perMinute : held.tokens + ((now - held.at) * this.#perMinute) / MINUTE;
    const tokens = Math.min(this.#perMinute, refilled);
    const passes = tokens >= 1;
    // Deleted and set, so that the map stays in order of use. A refusal leaves the bucket as it was: the share grows from there without rounding.
    this.#buckets.delete(client);
    this.#buckets.set(client, passes || held === undefined ? { tokens: tokens - 1, at: now } : held);
    this.#forget(now);
    return passes ? 0 : ((1 - tokens) * MINUTE) / this.#perMinute / 1000;
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** Drops from the idle end what is full again, at most two a call; what is full again has nothing to remember. */
  #forget(now: number): void {
    for (let count = 0; count < 2; count++) {
      const [oldest] = this.#buckets;
      if (oldest === undefined) return;
      if (now - oldest[1].at < MINUTE && this.#buckets.size <= MAX_CLIENTS) return;
      this.#buckets.delete(oldest[0]);
    }
  }
}
