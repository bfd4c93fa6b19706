import { LRUCache } from 'lru-cache';
import { Mutex } from '../kit/async.ts';

/** Clients remembered at once by each limit; beyond it the one that was idle longest is forgotten and starts afresh. About 10 MiB. */
const MAX_CLIENTS = 100_000;
const MINUTE = 60_000;

interface Bucket {
  readonly tokens: number;
  /** When `tokens` was right, ms. */
  readonly at: number;
}

/**
 * Requests a minute and client, as a token bucket: a client may spend a whole minute's worth at once
 * and gets it back evenly, so that waiting out `Retry-After` always lets one request through.
 */
export class RequestRate {
  readonly #perMinute: number;
  readonly #buckets = new LRUCache<string, Bucket>({ max: MAX_CLIENTS });

  constructor(perMinute: number) {
    this.#perMinute = perMinute;
  }

  /** Takes one request from the client's share; 0, or the seconds until there is one again. */
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

/** Bytes that one client, or `*` for all together, was sent in a day (`2026-11-22`) or month (`2026-11`), UTC. */
export interface Counter {
  readonly period: string;
  readonly client: string;
  readonly bytes: number;
}

/**
 * Port: where counters outlive a restart; several holders may count in one store. Every method is atomic, and what it changed is durable
 * when its promise resolves. test/conformance/counter-store.ts is its contract.
 */
export interface CounterStore {
  load(periods: readonly string[]): Promise<Counter[]>;
  /**
   * Adds to these counters, each named once, and forgets all periods but `keep`. Returns what the counters are now. Where it rejects,
   * nothing was added.
   */
  add(deltas: readonly Counter[], keep: readonly string[]): Promise<Counter[]>;
  /** Calls `listener` after another holder's change; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}

export interface QuotaOptions {
  readonly bytesPerDay: number | null;
  readonly bytesPerMonth: number | null;
  readonly store: CounterStore;
  /** Ms since 1970. */
  readonly now: () => number;
}

export interface Exceeded {
  readonly what: 'day' | 'month';
  readonly limit: number;
  /** Seconds until the period ends. */
  readonly retryAfter: number;
}

/** The name of the counter of all clients together; no address and no user has it. */
const EVERYONE = '*';

interface Tally {
  /** As the store said last, other holders' bytes included. */
  stored: number;
  /** Counted here and not known to be in the store. */
  pending: number;
}

/**
 * Bytes a day for each client and bytes a month for all. Bytes count when they have been sent, so transfers that run when a limit is
 * reached are finished. Counting touches memory only; `flush` adds to the store what was counted since, and takes the totals back.
 */
export class Quotas {
  readonly #options: QuotaOptions;
  readonly #clients: LRUCache<string, Tally>;
  /** Clients of `#clients` with pending bytes. */
  readonly #dirty = new Set<string>();
  readonly #mutex = new Mutex();
  #all: Tally = { stored: 0, pending: 0 };
  #day: string;
  #month: string;
  /** Another holder has added to the store since it was read. */
  #outdated = false;
  #unwatch: () => void = () => {};

  private constructor(options: QuotaOptions) {
    this.#options = options;
    [this.#day, this.#month] = periodsAt(options.now());
    this.#clients = new LRUCache({
      max: MAX_CLIENTS,
      dispose: (_tally, client) => void this.#dirty.delete(client),
    });
  }

  /** Loads the counters of today and this month. Null where there is no limit, and so nothing to count. */
  static async open(options: QuotaOptions): Promise<Quotas | null> {
    if (options.bytesPerDay === null && options.bytesPerMonth === null) return null;
    const quotas = new Quotas(options);
    quotas.#unwatch = options.store.watch(() => {
      quotas.#outdated = true;
    });
    try {
      await quotas.#mutex.run(() => quotas.#load());
    } catch (error) {
      quotas.#unwatch();
      throw error;
    }
    return quotas;
  }

  /** Null where this client may go on. */
  exceeded(client: string): Exceeded | null {
    const { bytesPerDay, bytesPerMonth, now } = this.#options;
    this.#startPeriods();
    const date = new Date(now());
    if (bytesPerMonth !== null && sum(this.#all) >= bytesPerMonth) {
      const end = Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1);
      return { what: 'month', limit: bytesPerMonth, retryAfter: (end - now()) / 1000 };
    }
    if (bytesPerDay !== null && sum(this.#clients.peek(client)) >= bytesPerDay) {
      const end = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate() + 1);
      return { what: 'day', limit: bytesPerDay, retryAfter: (end - now()) / 1000 };
    }
    return null;
  }

  count(client: string, bytes: number): void {
    const { bytesPerDay, bytesPerMonth } = this.#options;
    if (bytes <= 0) return;
    this.#startPeriods();
    if (bytesPerMonth !== null) this.#all.pending += bytes;
    if (bytesPerDay !== null) {
      const tally = this.#clients.get(client);
      if (tally === undefined) this.#clients.set(client, { stored: 0, pending: bytes });
      else tally.pending += bytes;
      this.#dirty.add(client);
    }
  }

  /** Stores what was counted since the last time. Rejects as the store does; then the same bytes are added by the next flush. */
  flush(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#add();
      if (this.#outdated) await this.#load();
    });
  }

  /** Stops following the store; whoever wants the last bytes stored calls `flush` before. */
  close(): void {
    this.#unwatch();
  }

  /** Bytes stay pending while the store is asked, so that they count all the time and are still there where it fails. */
  async #add(): Promise<void> {
    this.#startPeriods();
    const [day, month] = [this.#day, this.#month];
    const written: { readonly tally: Tally; readonly delta: Counter }[] = [];
    const write = (tally: Tally, period: string, client: string): void => {
      if (tally.pending > 0) written.push({ tally, delta: { period, client, bytes: tally.pending } });
    };
    write(this.#all, month, EVERYONE);
    for (const client of this.#dirty) {
      const tally = this.#clients.peek(client);
      if (tally !== undefined) write(tally, day, client);
    }
    if (written.length === 0) return;
    const deltas = written.map(({ delta }) => delta);
    const totals = await this.#options.store.add(deltas, [day, month]);
    // Meanwhile a period may have ended, or a client may have been forgotten and come back: such tallies are in use no more.
    for (const { tally, delta } of written) {
      tally.pending -= delta.bytes;
      if (tally.pending === 0 && this.#clients.peek(delta.client) === tally) this.#dirty.delete(delta.client);
    }
    this.#take(totals);
  }

  async #load(): Promise<void> {
    this.#outdated = false;
    try {
      this.#take(await this.#options.store.load([this.#day, this.#month]));
    } catch (error) {
      this.#outdated = true;
      throw error;
    }
  }

  /** Remembers what the store has. Clients that are not in memory join while there is room, so that none with pending bytes has to go. */
  #take(counters: readonly Counter[]): void {
    for (const { period, client, bytes } of counters) {
      if (client === EVERYONE) {
        if (period === this.#month) this.#all.stored = bytes;
        continue;
      }
      if (period !== this.#day) continue;
      const tally = this.#clients.peek(client);
      if (tally !== undefined) tally.stored = bytes;
      else if (this.#clients.size < MAX_CLIENTS) this.#clients.set(client, { stored: bytes, pending: 0 });
    }
  }

  /** Starts from nothing when a day or month is over. */
  #startPeriods(): void {
    const [day, month] = periodsAt(this.#options.now());
    if (day !== this.#day) this.#clients.clear();
    if (month !== this.#month) this.#all = { stored: 0, pending: 0 };
    this.#day = day;
    this.#month = month;
  }
}

function sum(tally: Tally | undefined): number {
  return tally === undefined ? 0 : tally.stored + tally.pending;
}

function periodsAt(now: number): [day: string, month: string] {
  const day = new Date(now).toISOString().slice(0, 10);
  return [day, day.slice(0, 7)];
}
