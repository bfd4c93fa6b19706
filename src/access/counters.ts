import { setImmediate as turn } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { Mutex } from '../kit/async.ts';
import { type Clocks, Period } from './period.ts';

/** Clients remembered at once; beyond it the one that was idle longest is forgotten and starts afresh. About 20 MiB. */
const MAX_CLIENTS = 100_000;
/** Counters that are given to the store at a time: some milliseconds of work, so that a day with very many clients holds nobody up. */
const BATCH = 500;

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
  /** Adds to these counters, each named once; takes away where `bytes` is below 0. Returns what they are now. Where it rejects, nothing was added. */
  add(deltas: readonly Counter[]): Promise<Counter[]>;
  /** Forgets all periods but these. */
  keepOnly(periods: readonly string[]): Promise<void>;
  /** Calls `listener` after another holder's change; it may also be called after one's own. The function returned ends that. */
  watch(listener: () => void): () => void;
}

/** The name of the counter of all clients together; no address and no user has it. */
export const EVERYONE = '*';

interface Tally {
  /** As the store said last, other holders' bytes included. */
  stored: number;
  /** Counted here and not known to be in the store. */
  pending: number;
}

export type Direction = 'sent' | 'fetched';

/** A client's day. */
type Day = Readonly<Record<Direction, Tally>>;

/** What was counted of today and this month, as the quotas ask for it. {@link ByteCounters} is that of one machine, `SlicedCounters` that of several. */
export interface Counters {
  readonly day: Period;
  readonly month: Period;
  count(client: string, direction: Direction, bytes: number): void;
  /** Of this client, today. */
  ofDay(client: string, direction: Direction): number;
  /** Every client that was counted today. */
  ofToday(): { client: string; sent: number; fetched: number }[];
  /** Of all, this month. */
  ofMonth(): number;
  /** Starts from nothing where a day or month is over. Called before anything is read. */
  startPeriods(): void;
  /** Counts something else from now on, beginning with what the store has of it. */
  recount(counted: Counted): Promise<void>;
  flush(): Promise<void>;
  close(): void;
}

export interface Counted {
  /** Each client's days. */
  readonly days: boolean;
  /** The month of all. */
  readonly month: boolean;
}

/**
 * What each client was sent and what was fetched for it today, and the sum of both of all clients this month. Counting touches memory only;
 * `flush` adds to the store what was counted since, and takes the totals back.
 */
export class ByteCounters implements Counters {
  readonly day: Period;
  readonly month: Period;
  readonly #store: CounterStore;
  #counted: Counted;
  readonly #clients: LRUCache<string, Day>;
  /** Clients of `#clients` with pending bytes. */
  readonly #dirty = new Set<string>();
  readonly #mutex = new Mutex();
  readonly #unwatch: () => void;
  #all: Tally = { stored: 0, pending: 0 };
  /** The store may hold more than was read from it: another holder has added to it, or another period began. */
  #outdated = false;
  /** The store may hold periods that are long over. */
  #overdue = true;

  private constructor(store: CounterStore, clocks: Clocks, counted: Counted) {
    this.#store = store;
    this.#counted = counted;
    this.day = new Period('day', clocks);
    this.month = new Period('month', clocks);
    this.#clients = new LRUCache({ max: MAX_CLIENTS, dispose: (_day, client) => void this.#dirty.delete(client) });
    this.#unwatch = store.watch(() => {
      this.#outdated = true;
    });
  }

  /** With the counters of today and this month, where any are counted. What is not counted stays 0. */
  static async open(store: CounterStore, clocks: Clocks, counted: Counted): Promise<ByteCounters> {
    const counters = new ByteCounters(store, clocks, counted);
    try {
      if (counters.#countsAny) await counters.#mutex.run(() => counters.#load());
    } catch (error) {
      counters.close();
      throw error;
    }
    return counters;
  }

  /** Counts something else from now on, beginning with what the store has of it. Rejects as the store does; then nothing has changed. */
  recount(counted: Counted): Promise<void> {
    return this.#mutex.run(async () => {
      const more = (counted.days && !this.#counted.days) || (counted.month && !this.#counted.month);
      if (more) await this.#load();
      this.#counted = counted;
    });
  }

  count(client: string, direction: Direction, bytes: number): void {
    if (bytes <= 0) return;
    this.startPeriods();
    if (this.#counted.month) this.#all.pending += bytes;
    if (!this.#counted.days) return;
    let day = this.#clients.get(client);
    if (day === undefined) {
      day = newDay();
      this.#clients.set(client, day);
    }
    day[direction].pending += bytes;
    this.#dirty.add(client);
  }

  /** Of this client, today. */
  ofDay(client: string, direction: Direction): number {
    const day = this.#clients.peek(client);
    return day === undefined ? 0 : sum(day[direction]);
  }

  /** Every client that was counted today. */
  ofToday(): { client: string; sent: number; fetched: number }[] {
    return [...this.#clients.entries()].map(([client, day]) => ({
      client,
      sent: sum(day.sent),
      fetched: sum(day.fetched),
    }));
  }

  /** Of all, this month. */
  ofMonth(): number {
    return sum(this.#all);
  }

  /** Starts from nothing where a day or month is over, until the next flush has read what the store has of the new one. Called before anything is read. */
  startPeriods(): void {
    if (this.day.turn()) {
      this.#clients.clear();
      this.#outdated = true;
      this.#overdue = true;
    }
    if (this.month.turn()) {
      this.#all = { stored: 0, pending: 0 };
      this.#outdated = true;
    }
  }

  /** Stores what was counted since the last time. Rejects as the store does; then the same bytes are added by the next flush. */
  flush(): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#add();
      if (!this.#countsAny) return;
      if (this.#outdated) await this.#load();
      if (!this.#overdue) return;
      await this.#store.keepOnly(this.#kept());
      this.#overdue = false;
    });
  }

  /** Stops following the store; whoever wants the last bytes stored calls `flush` before. */
  close(): void {
    this.#unwatch();
  }

  get #countsAny(): boolean {
    return this.#counted.days || this.#counted.month;
  }

  async #add(): Promise<void> {
    this.startPeriods();
    const written: Written[] = [];
    const write = (tally: Tally, period: string, client: string): void => {
      if (tally.pending > 0) written.push({ tally, delta: { period, client, bytes: tally.pending } });
    };
    write(this.#all, this.month.name, EVERYONE);
    for (const client of this.#dirty) {
      const day = this.#clients.peek(client);
      if (day === undefined) continue;
      write(day.sent, this.day.name, client);
      write(day.fetched, fetchedIn(this.day.name), client);
    }
    for (let at = 0; at < written.length; at += BATCH) {
      if (at > 0) await turn();
      await this.#addBatch(written.slice(at, at + BATCH));
    }
  }

  /** Bytes stay pending while the store is asked, so that they count all the time and are still there where it fails. */
  async #addBatch(written: readonly Written[]): Promise<void> {
    const deltas = written.map(({ delta }) => delta);
    const totals = await this.#store.add(deltas);
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
    const days = this.day.withNeighbours();
    return [...days, ...days.map(fetchedIn), ...this.month.withNeighbours()];
  }

  async #load(): Promise<void> {
    this.#outdated = false;
    try {
      const day = this.day.name;
      this.#take(await this.#store.load([day, fetchedIn(day), this.month.name]));
    } catch (error) {
      this.#outdated = true;
      throw error;
    }
  }

  /** Remembers what the store has. Clients that are not in memory join while there is room, so that none with pending bytes has to go. */
  #take(counters: readonly Counter[]): void {
    const directions: Readonly<Record<string, Direction>> = {
      [this.day.name]: 'sent',
      [fetchedIn(this.day.name)]: 'fetched',
    };
    for (const { period, client, bytes } of counters) {
      if (client === EVERYONE) {
        if (period === this.month.name) this.#all.stored = bytes;
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
}

interface Written {
  readonly tally: Tally;
  readonly delta: Counter;
}

function newDay(): Day {
  return { sent: { stored: 0, pending: 0 }, fetched: { stored: 0, pending: 0 } };
}

function sum(tally: Tally): number {
  return tally.stored + tally.pending;
}

/** The period of what was fetched on a day. */
export function fetchedIn(day: string): string {
  return `${day} fetched`;
}
