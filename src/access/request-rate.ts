import { LRUCache } from 'lru-cache';

/** Clients remembered at once; beyond it the one that was idle longest is forgotten and starts afresh. About 10 MiB. */
const MAX_CLIENTS = 100_000;
const MINUTE = 60_000;

interface Bucket {
  readonly tokens: number;
  /** When `tokens` was right, ms; monotonic. */
  readonly at: number;
}

/**
 * Requests a minute and client, as a token bucket: a client may spend a whole minute's worth at once
 * and gets it back evenly, so that waiting out `Retry-After` always lets one request through.
 */
export class RequestRate {
  readonly #perMinute: number;
  readonly #buckets = new LRUCache<string, Bucket>({ max: MAX_CLIENTS });

  /** @param before whose clients go on with what they had left */
  constructor(perMinute: number, before: RequestRate | null = null) {
    this.#perMinute = perMinute;
    if (before !== null) this.#buckets.load(before.#buckets.dump());
  }

  /** Takes one request from the client's share; 0, or the seconds until there is one again. `now`: monotonic, ms. */
  take(client: string, now: number): number {
    const held = this.#buckets.get(client);
    const refilled = held === undefined ? this.#perMinute : held.tokens + ((now - held.at) * this.#perMinute) / MINUTE;
    const tokens = Math.min(this.#perMinute, refilled);
    const passes = tokens >= 1;
    // A refusal leaves the bucket as it was: the share grows from there without rounding.
    if (passes || held === undefined) this.#buckets.set(client, { tokens: tokens - 1, at: now });
    this.#forgetFull(now);
    return passes ? 0 : ((1 - tokens) * MINUTE) / this.#perMinute / 1000;
  }

  /** Requests that clients have not got back yet, rounded; those that have all are left out. */
  used(now: number): Map<string, number> {
    const used = new Map<string, number>();
    for (const [client, { tokens, at }] of this.#buckets.entries()) {
      const left = Math.min(this.#perMinute, tokens + ((now - at) * this.#perMinute) / MINUTE);
      const count = Math.round(this.#perMinute - left);
      if (count > 0) used.set(client, count);
    }
    return used;
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** Drops buckets that are full again, which hold nothing to remember; from the longest idle, and at most two a call. */
  #forgetFull(now: number): void {
    for (let count = 0; count < 2; count++) {
      const [idle] = this.#buckets.rkeys();
      const bucket = idle === undefined ? undefined : this.#buckets.peek(idle);
      if (bucket === undefined || now - bucket.at < MINUTE) return;
      this.#buckets.pop();
    }
  }
}
