/** Bytes that one client, or `*` for all together, was sent in a day (`2026-11-22`) or month (`2026-11`), UTC. */
export interface Counter {
  readonly period: string;
  readonly client: string;
  readonly bytes: number;
}

/** Port: where counters outlive a restart. test/conformance/counter-store.ts is its contract. */
export interface CounterStore {
  load(periods: readonly string[]): Counter[];
  /** Sets these counters and forgets all periods but `keep`, in one step. */
  save(counters: readonly Counter[], keep: readonly string[]): void;
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

/** The client that stands for all of them. */
const EVERYONE = '*';
/** Clients whose bytes of the day are remembered; beyond it the longest idle starts afresh. About 10 MiB. */
const MAX_CLIENTS = 100_000;

/**
 * Bytes a day for each client and bytes a month for all. Bytes count when they have been sent, so transfers that run when a limit is reached are finished.
 * Counting touches memory only; `flush` writes what changed.
 */
export class Quotas {
  readonly #options: QuotaOptions;
  /** In order of last use. */
  readonly #clients = new Map<string, number>();
  readonly #dirty = new Set<string>();
  #all = 0;
  #day: string;
  #month: string;

  constructor(options: QuotaOptions) {
    this.#options = options;
    [this.#day, this.#month] = periodsAt(options.now());
    if (!this.#counts) return;
    for (const { period, client, bytes } of options.store.load([this.#day, this.#month])) {
      if (client === EVERYONE) {
        if (period === this.#month) this.#all = bytes;
      } else if (period === this.#day) this.#clients.set(client, bytes);
    }
  }

  /** Null where this client may go on. */
  exceeded(client: string): Exceeded | null {
    const { bytesPerDay, bytesPerMonth, now } = this.#options;
    if (!this.#counts) return null;
    this.#turn();
    const date = new Date(now());
    if (bytesPerMonth !== null && this.#all >= bytesPerMonth) {
      const end = Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1);
      return { what: 'month', limit: bytesPerMonth, retryAfter: (end - now()) / 1000 };
    }
    if (bytesPerDay !== null && (this.#clients.get(client) ?? 0) >= bytesPerDay) {
      const end = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate() + 1);
      return { what: 'day', limit: bytesPerDay, retryAfter: (end - now()) / 1000 };
    }
    return null;
  }

  count(client: string, bytes: number): void {
    const { bytesPerDay, bytesPerMonth } = this.#options;
    if (!this.#counts || bytes <= 0) return;
    this.#turn();
    if (bytesPerMonth !== null) {
      this.#all += bytes;
      this.#dirty.add(EVERYONE);
    }
    if (bytesPerDay !== null) {
      const sum = (this.#clients.get(client) ?? 0) + bytes;
      this.#clients.delete(client);
      this.#clients.set(client, sum);
      this.#dirty.add(client);
      const [idle] = this.#clients.keys();
      if (this.#clients.size > MAX_CLIENTS && idle !== undefined) {
        this.#clients.delete(idle);
        this.#dirty.delete(idle);
      }
    }
  }

  /** Writes what changed since the last time; throws what the store throws, and then tries the same again next time. */
  flush(): void {
    if (this.#dirty.size === 0) return;
    const counters: Counter[] = [];
    for (const client of this.#dirty) {
      if (client === EVERYONE) counters.push({ period: this.#month, client, bytes: this.#all });
      else counters.push({ period: this.#day, client, bytes: this.#clients.get(client) ?? 0 });
    }
    this.#options.store.save(counters, [this.#day, this.#month]);
    this.#dirty.clear();
  }

  get #counts(): boolean {
    return this.#options.bytesPerDay !== null || this.#options.bytesPerMonth !== null;
  }

  /** Starts from nothing when a day or month is over. */
  #turn(): void {
    const [day, month] = periodsAt(this.#options.now());
    if (day !== this.#day) {
      for (const client of this.#clients.keys()) this.#dirty.delete(client);
      this.#clients.clear();
    }
    if (month !== this.#month) {
      this.#all = 0;
      this.#dirty.delete(EVERYONE);
    }
    this.#day = day;
    this.#month = month;
  }
}

function periodsAt(now: number): [day: string, month: string] {
  const day = new Date(now).toISOString().slice(0, 10);
  return [day, day.slice(0, 7)];
}
