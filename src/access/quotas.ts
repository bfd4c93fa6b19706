import { LRUCache } from 'lru-cache';
import { Mutex } from '../kit/async.ts';
import { iso } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import { type Clocks, Period, SYSTEM_CLOCKS } from './period.ts';

/** Clients remembered at once; beyond it the one that was idle longest is forgotten and starts afresh. About 20 MiB. */
const MAX_CLIENTS = 100_000;

/**
 * Bytes that were counted in one period, UTC: `2026-11-22` what a client was sent that day, `2026-11-22 fetched` what was fetched for it,
 * `2026-11` both of all clients together, whose name is `*`.
 */
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

/** What a reply is going to cost its client. */
export interface ByteOrder {
  /** The body's length, or the next piece of a body whose length nobody knows. */
  readonly bytes: number;
  /** The bytes come from an upstream for this client alone, past the cache: they count as fetched for it, too. */
  readonly fetched: boolean;
  /** Less will do, where that much is not left. */
  readonly partly?: boolean;
}

/** Bytes of its quotas that are set aside for one reply of a client. */
export interface Reservation {
  /** How many were set aside. */
  readonly bytes: number;
  /** So many of them have been sent: they are counted now. */
  sent(bytes: number): void;
  /** Gives back what was not sent. May be called more than once. */
  close(): void;
}

/** Port: quotas in bytes, as whoever sends bodies needs them. */
export interface ByteQuota {
  /** @throws {RegistryError} tooManyRequests, at once or later, where that much is not left */
  reserve(client: string, order: ByteOrder): Reservation | Promise<Reservation>;
}

export interface QuotaOptions {
  readonly bytesPerDay: number | null;
  readonly bytesPerMonth: number | null;
  readonly store: CounterStore;
  readonly clocks?: Clocks;
}

/** The name of the counter of all clients together; no address and no user has it. */
const EVERYONE = '*';

interface Tally {
  /** As the store said last, other holders' bytes included. */
  stored: number;
  /** Counted here and not known to be in the store. */
  pending: number;
}

type Direction = 'sent' | 'fetched';

/** A client's day. */
type Day = Readonly<Record<Direction, Tally>>;

type Reserved = Record<Direction, number>;

const NOTHING: Reserved = { sent: 0, fetched: 0 };

/**
 * Bytes a day for each client, the larger of what it was sent and what was fetched for it; and bytes a month, what all clients were sent
 * and what was fetched for them. A reply whose length is known is set aside whole before it begins, so that pulls at the same time have no more than one after
 * the other. Counting touches memory only; `flush` adds to the store what was counted since, and takes the totals back.
 */
export class Quotas implements ByteQuota {
  readonly #options: QuotaOptions;
  readonly #clocks: Clocks;
  readonly #day: Period;
  readonly #month: Period;
  readonly #clients: LRUCache<string, Day>;
  /** Clients of `#clients` with pending bytes. */
  readonly #dirty = new Set<string>();
  /** What is set aside for replies that run; clients without any are left out. */
  readonly #reserved = new Map<string, Reserved>();
  readonly #mutex = new Mutex();
  #all: Tally = { stored: 0, pending: 0 };
  #allReserved = 0;
  /** The store may hold more than was read from it: another holder has added to it, or another period began. */
  #outdated = false;
  #unwatch: () => void = () => {};

  private constructor(options: QuotaOptions) {
    this.#options = options;
    this.#clocks = options.clocks ?? SYSTEM_CLOCKS;
    this.#day = new Period('day', this.#clocks);
    this.#month = new Period('month', this.#clocks);
    this.#clients = new LRUCache({ max: MAX_CLIENTS, dispose: (_day, client) => void this.#dirty.delete(client) });
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

  /** @throws {RegistryError} tooManyRequests where nothing is left of a quota; what is only set aside may still come back */
  check(client: string): void {
    const exceeded = this.#exceeded(client);
    if (exceeded !== null) throw this.#refusal(exceeded, 0);
  }

  /** @throws {RegistryError} tooManyRequests */
  reserve(client: string, { bytes, fetched, partly = false }: ByteOrder): Reservation {
    this.#startPeriods();
    const day = this.#leftOfDay(client, fetched);
    const month = this.#leftOfMonth(fetched);
    const granted = partly ? Math.min(bytes, day, month) : bytes;
    const needed = partly ? 1 : bytes;
    if (needed > month) throw this.#refusal('month', month, bytes);
    if (needed > day) throw this.#refusal('day', day, bytes);
    this.#setAside(client, granted, fetched);
    return new QuotaReservation(granted, (count, isSent) => {
      this.#setAside(client, -count, fetched);
      if (!isSent) return;
      this.#startPeriods();
      this.#count(client, 'sent', count);
      if (fetched) this.#count(client, 'fetched', count);
    });
  }

  /** Bytes that a fill which this client began has fetched. */
  fetched(client: string, bytes: number): void {
    this.#startPeriods();
    this.#count(client, 'fetched', bytes);
  }

  /** Whether anything is left of the client's quota and of everybody's. */
  mayFetch(client: string): boolean {
    return this.#exceeded(client) === null;
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

  #exceeded(client: string): 'day' | 'month' | null {
    this.#startPeriods();
    const { bytesPerDay, bytesPerMonth } = this.#options;
    if (bytesPerMonth !== null && sum(this.#all) >= bytesPerMonth) return 'month';
    const day = this.#clients.peek(client);
    if (bytesPerDay !== null && Math.max(sum(day?.sent), sum(day?.fetched)) >= bytesPerDay) return 'day';
    return null;
  }

  /** Bytes that a reply may have at most. */
  #leftOfDay(client: string, fetched: boolean): number {
    const { bytesPerDay } = this.#options;
    if (bytesPerDay === null) return Number.POSITIVE_INFINITY;
    const day = this.#clients.get(client);
    const reserved = this.#reserved.get(client) ?? NOTHING;
    const left = (direction: Direction) => bytesPerDay - sum(day?.[direction]) - reserved[direction];
    const ofFetched = left('fetched');
    // What was fetched already costs a reply from the cache nothing, unless it is all that the client may have.
    return fetched ? Math.min(left('sent'), ofFetched) : ofFetched <= 0 ? 0 : left('sent');
  }

  #leftOfMonth(fetched: boolean): number {
    const { bytesPerMonth } = this.#options;
    if (bytesPerMonth === null) return Number.POSITIVE_INFINITY;
    const left = bytesPerMonth - sum(this.#all) - this.#allReserved;
    return fetched ? Math.floor(left / 2) : left;
  }

  #setAside(client: string, bytes: number, fetched: boolean): void {
    const { sent, fetched: both } = this.#reserved.get(client) ?? NOTHING;
    const reserved = { sent: sent + bytes, fetched: both + (fetched ? bytes : 0) };
    this.#allReserved += fetched ? 2 * bytes : bytes;
    if (reserved.sent === 0) this.#reserved.delete(client);
    else this.#reserved.set(client, reserved);
  }

  #count(client: string, direction: Direction, bytes: number): void {
    const { bytesPerDay, bytesPerMonth } = this.#options;
    if (bytes <= 0) return;
    if (bytesPerMonth !== null) this.#all.pending += bytes;
    if (bytesPerDay === null) return;
    let day = this.#clients.get(client);
    if (day === undefined) {
      day = newDay();
      this.#clients.set(client, day);
    }
    day[direction].pending += bytes;
    this.#dirty.add(client);
  }

  /** @param asked left out where it does not matter how much was asked for */
  #refusal(which: 'day' | 'month', left: number, asked?: number): RegistryError {
    const { bytesPerDay, bytesPerMonth } = this.#options;
    const wait = (which === 'day' ? this.#day : this.#month).left();
    const limit =
      which === 'day'
        ? `this client may have ${bytesPerDay} bytes a day (UTC)`
        : `this gateway may send and fetch ${bytesPerMonth} bytes a month (UTC)`;
    const rest = `${Math.max(0, left)} of them are left`;
    const wanted = asked === undefined ? '' : `, too few for the ${asked} of this answer`;
    return new RegistryError('tooManyRequests', {
      facts: { what: `${limit}; ${rest}${wanted}; they begin anew at ${iso(this.#clocks.now() + wait)}` },
      retryAfter: wait / 1000,
    });
  }

  /** Bytes stay pending while the store is asked, so that they count all the time and are still there where it fails. */
  async #add(): Promise<void> {
    this.#startPeriods();
    const written: { readonly tally: Tally; readonly delta: Counter }[] = [];
    const write = (tally: Tally, period: string, client: string): void => {
      if (tally.pending > 0) written.push({ tally, delta: { period, client, bytes: tally.pending } });
    };
    write(this.#all, this.#month.name, EVERYONE);
    for (const client of this.#dirty) {
      const day = this.#clients.peek(client);
      if (day === undefined) continue;
      write(day.sent, this.#day.name, client);
      write(day.fetched, fetchedIn(this.#day.name), client);
    }
    if (written.length === 0) return;
    const deltas = written.map(({ delta }) => delta);
    const totals = await this.#options.store.add(deltas, this.#kept());
    // Meanwhile a period may have ended, or a client may have been forgotten and come back: such tallies are in use no more.
    for (const { tally, delta } of written) tally.pending -= delta.bytes;
    for (const { delta } of written) {
      const day = this.#clients.peek(delta.client);
      if (day !== undefined && day.sent.pending + day.fetched.pending === 0) this.#dirty.delete(delta.client);
    }
    this.#take(totals);
  }

  /** Neighbours too: another holder's clock may be a little ahead or behind, and this one's may be put right. */
  #kept(): string[] {
    const days = this.#day.withNeighbours();
    return [...days, ...days.map(fetchedIn), ...this.#month.withNeighbours()];
  }

  async #load(): Promise<void> {
    this.#outdated = false;
    try {
      const day = this.#day.name;
      this.#take(await this.#options.store.load([day, fetchedIn(day), this.#month.name]));
    } catch (error) {
      this.#outdated = true;
      throw error;
    }
  }

  /** Remembers what the store has. Clients that are not in memory join while there is room, so that none with pending bytes has to go. */
  #take(counters: readonly Counter[]): void {
    const directions: Readonly<Record<string, Direction>> = {
      [this.#day.name]: 'sent',
      [fetchedIn(this.#day.name)]: 'fetched',
    };
    for (const { period, client, bytes } of counters) {
      if (client === EVERYONE) {
        if (period === this.#month.name) this.#all.stored = bytes;
        continue;
      }
      const direction = directions[period];
      if (direction === undefined) continue;
      let day = this.#clients.peek(client);
      if (day === undefined) {
        if (this.#clients.size >= MAX_CLIENTS) continue;
        day = newDay();
        this.#clients.set(client, day);
      }
      day[direction].stored = bytes;
    }
  }

  /** Starts from nothing when a day or month is over, until the next flush has read what the store has of the new one. */
  #startPeriods(): void {
    if (this.#day.turn()) {
      this.#clients.clear();
      this.#outdated = true;
    }
    if (this.#month.turn()) {
      this.#all = { stored: 0, pending: 0 };
      this.#outdated = true;
    }
  }
}

class QuotaReservation implements Reservation {
  readonly bytes: number;
  readonly #take: (count: number, isSent: boolean) => void;
  #left: number;

  /** `take` removes bytes from what is set aside. */
  constructor(bytes: number, take: (count: number, isSent: boolean) => void) {
    this.bytes = bytes;
    this.#left = bytes;
    this.#take = take;
  }

  sent(bytes: number): void {
    const count = Math.min(bytes, this.#left);
    this.#left -= count;
    if (count > 0) this.#take(count, true);
  }

  close(): void {
    const rest = this.#left;
    this.#left = 0;
    if (rest > 0) this.#take(rest, false);
  }
}

function newDay(): Day {
  return { sent: { stored: 0, pending: 0 }, fetched: { stored: 0, pending: 0 } };
}

function sum(tally: Tally | undefined): number {
  return tally === undefined ? 0 : tally.stored + tally.pending;
}

/** The period of what was fetched on a day. */
function fetchedIn(day: string): string {
  return `${day} fetched`;
}
