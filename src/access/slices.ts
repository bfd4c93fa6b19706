import { LRUCache } from 'lru-cache';
import { type MaybePromise, Mutex } from '../kit/async.ts';
import { type Counter, type CounterStore, type Counters, type Direction, EVERYONE, fetchedIn } from './counters.ts';
import { type Clocks, Period } from './period.ts';

/** A slice is this part of the limit: some dozens of questions to the database for a whole quota, and what the others miss meanwhile is little. */
const SHARE = 64;
/** No slice is larger, bytes: what a node that dies has reserved and not used is lost to the period. */
const MAX_SLICE = 256 * 1024 * 1024;
/** Near the end a slice is this part of what is left, so that the last bytes are not held by nodes that nobody asks. */
const SHARE_OF_REST = 8;
/** A slice below this, bytes, is not worth a question of its own: it comes with what a reply asks for. */
const WORTH_ASKING = 64 * 1024;
/** Counters remembered at once, two for each client; beyond it the one that was idle longest goes, and what was reserved with it. About 40 MiB. */
const MAX_TALLIES = 200_000;
/** Counters that are given to the store in one transaction. */
const BATCH = 500;
/** How long a reply waits for the store, ms; after that the node goes on with what it may have without it. */
const PATIENCE = 2_000;
/** While the store does not answer it is asked this often, ms; near the end of a quota what it said counts as long. */
const ASK_AGAIN = 1_000;

/** The gateways that count in one store, for {@link SlicedCounters}. */
export interface Sharing {
  /** How many live, this one among them. */
  readonly nodes: () => number;
}

export interface ByteLimits {
  readonly bytesPerDay: number | null;
  readonly bytesPerMonth: number | null;
}

/** One counter of the store, and this node's part of it. */
interface Tally {
  readonly period: string;
  readonly client: string;
  /** As the store said last: what all nodes have used or reserved. */
  stored: number;
  /** Used here beyond what is reserved in the store; below 0: so much is reserved there and not used yet. */
  pending: number;
  /** Set aside here for replies and fills that run. */
  held: number;
  /** Wanted by replies that wait for the store. */
  asked: number;
  /** The store took more than the limit has: to be given back with the next question. */
  excess: number;
  /** When the store said `stored`, ms; monotonic. */
  seenAt: number;
  /** It was used since the last flush. */
  used: boolean;
}

/** Bytes of one client for {@link SlicedCounters.draw}. */
export type Wanted = Readonly<Record<Direction, number>>;

/**
 * Counters of quotas that hold for several nodes together. Each node reserves a slice in the shared store before it uses it: the store's counter is
 * what all have used or reserved, each reservation is one atomic addition, and of one that leads beyond the limit only what fits is used and the
 * rest given back. So all nodes together use no more than the limit, except by what a fill fetches in the moment before the store has answered. What is not
 * used for a while is given back; a node that is killed loses its slices to the period.
 *
 * While the store does not answer, a node goes on with what it has reserved and one slice more of what was left when it asked last (its share of that, where
 * there is less), so that all together exceed the limit by a slice each at most, whatever the others have used since then.
 */
export class SlicedCounters implements Counters {
  readonly day: Period;
  readonly month: Period;
  readonly #store: CounterStore;
  readonly #clocks: Clocks;
  readonly #nodes: () => number;
  #perDay = Number.POSITIVE_INFINITY;
  #perMonth = Number.POSITIVE_INFINITY;
  readonly #tallies = new LRUCache<string, Tally>({ max: MAX_TALLIES });
  /** To be looked at by the next flush: they have something reserved, or unstored, or a quota that is used up. */
  readonly #open = new Set<Tally>();
  /** To be asked for by the next question. */
  readonly #wanting = new Set<Tally>();
  #asking: Promise<void> | null = null;
  /** Over what is said to the store, since what a question adds is known only once it is answered. */
  readonly #mutex = new Mutex();
  #askedAt = Number.NEGATIVE_INFINITY;
  #away = false;
  #overdue = true;

  private constructor(store: CounterStore, clocks: Clocks, { nodes }: Sharing, limits: ByteLimits) {
    this.#store = store;
    this.#clocks = clocks;
    this.#nodes = nodes;
    this.day = new Period('day', clocks);
    this.month = new Period('month', clocks);
    this.limit(limits);
  }

  /** With what the store has of today and this month. Where it does not answer, each counter is asked for when it is needed. */
  static async open(
    store: CounterStore,
    clocks: Clocks,
    sharing: Sharing,
    limits: ByteLimits,
  ): Promise<SlicedCounters> {
    const counters = new SlicedCounters(store, clocks, sharing, limits);
    await counters.recount();
    return counters;
  }

  /** Takes other limits. What was counted counts on. */
  limit({ bytesPerDay, bytesPerMonth }: ByteLimits): void {
    this.#perDay = bytesPerDay ?? Number.POSITIVE_INFINITY;
    this.#perMonth = bytesPerMonth ?? Number.POSITIVE_INFINITY;
  }

  async recount(): Promise<void> {
    await this.#load().catch(() => {
      this.#away = true;
    });
  }

  /** The store did not answer when it was last asked. */
  get away(): boolean {
    return this.#away;
  }

  count(client: string, direction: Direction, bytes: number): void {
    if (bytes <= 0) return;
    this.startPeriods();
    for (const tally of this.#of(client, direction)) {
      tally.pending += bytes;
      tally.used = true;
      this.#open.add(tally);
      // Asked for before it is needed, so that few replies wait.
      const slice = this.#slice(tally);
      if (slice >= WORTH_ASKING && -tally.pending - tally.held < slice / 2) this.#want(tally);
    }
  }

  ofDay(client: string, direction: Direction): number {
    const tally = this.#tallies.peek(keyOf(this.#dayOf(direction), client));
    return tally === undefined ? 0 : sum(tally);
  }

  ofToday(): { client: string; sent: number; fetched: number }[] {
    const clients = new Set<string>();
    for (const { client } of this.#tallies.values()) if (client !== EVERYONE) clients.add(client);
    const of = (client: string) => ({ sent: this.ofDay(client, 'sent'), fetched: this.ofDay(client, 'fetched') });
    return [...clients].map((client) => ({ client, ...of(client) }));
  }

  ofMonth(): number {
    const tally = this.#tallies.peek(keyOf(this.month.name, EVERYONE));
    return tally === undefined ? 0 : sum(tally);
  }

  /** Bytes of the client's day that may be set aside here. `reserved`: of those alone that are reserved in the store, while it answers. */
  leftOfDay(client: string, direction: Direction, reserved: boolean): number {
    return this.#left(this.#tally(this.#dayOf(direction), client), reserved);
  }

  leftOfMonth(reserved: boolean): number {
    if (this.#perMonth === Number.POSITIVE_INFINITY) return this.#perMonth;
    return this.#left(this.#tally(this.month.name, EVERYONE), reserved);
  }

  /** Whether this client may have nothing more, of its day or of everybody's month, by what the store said last. */
  exceeded(client: string): 'day' | 'month' | null {
    const isOver = (tally: Tally): boolean =>
      tally.pending >= (this.#away ? this.#allowance(tally) : rest(tally, this.#limitOf(tally)));
    const over = (period: string, whose: string): boolean => {
      const tally = this.#tallies.peek(keyOf(period, whose));
      if (tally === undefined || !isOver(tally)) return false;
      this.#open.add(tally);
      return true;
    };
    if (over(this.month.name, EVERYONE)) return 'month';
    return over(this.day.name, client) || over(fetchedIn(this.day.name), client) ? 'day' : null;
  }

  /** More was set aside than the store had, and all that it had is used: nothing more may be fetched for this client. */
  isCut(client: string): boolean {
    return this.#of(client, 'fetched').some((tally) => {
      const allowance = this.#away ? this.#allowance(tally) : this.#share(tally);
      return tally.pending >= allowance && tally.pending + tally.held > allowance;
    });
  }

  setAside(client: string, change: Wanted): void {
    for (const direction of ['sent', 'fetched'] as const) {
      if (change[direction] === 0) continue;
      for (const tally of this.#of(client, direction)) {
        tally.held = Math.max(0, tally.held + change[direction]);
        this.#open.add(tally);
        if (tally.held > -tally.pending) this.#want(tally);
      }
    }
  }

  /**
   * Reserves so much for this client where it is not reserved yet. What was had of it is known afterwards: it rejects for nothing, and waits no
   * longer than the store may take.
   */
  draw(client: string, wanted: Wanted): MaybePromise<void> {
    this.startPeriods();
    const more = new Map<Tally, number>();
    for (const direction of ['sent', 'fetched'] as const) {
      if (wanted[direction] === 0) continue;
      for (const tally of this.#of(client, direction)) more.set(tally, (more.get(tally) ?? 0) + wanted[direction]);
    }
    const short = [...more].filter(
      ([tally, bytes]) => -tally.pending - tally.held - tally.asked < bytes && !this.#isKnownSpent(tally, bytes),
    );
    if (short.length === 0) return;
    for (const [tally, bytes] of short) {
      tally.asked += bytes;
      this.#want(tally);
    }
    const settle = (): void => {
      for (const [tally, bytes] of short) tally.asked -= bytes;
    };
    if (this.#away) return settle();
    return this.#answered().then(settle, settle);
  }

  startPeriods(): void {
    const [day, month] = [this.day.turn(), this.month.turn()];
    if (!day && !month) return;
    // What was reserved of a period that is over is of no use to anybody.
    const current = [this.day.name, fetchedIn(this.day.name), this.month.name];
    for (const [key, tally] of this.#tallies.entries()) {
      if (current.includes(tally.period)) continue;
      this.#tallies.delete(key);
      this.#open.delete(tally);
      this.#wanting.delete(tally);
    }
    this.#overdue = true;
  }

  /** Stores what was used without having been reserved, gives back what nobody uses, and asks again for quotas that seem used up. */
  async flush(): Promise<void> {
    await this.#mutex.run(() => this.#settle());
  }

  async #settle(): Promise<void> {
    this.startPeriods();
    await this.#exchange([...this.#open], (tally) => {
      const idle = !tally.used && tally.asked === 0;
      tally.used = false;
      const keep = tally.held + (idle ? 0 : this.#slice(tally));
      // Half a slice more or less is not worth a question.
      const surplus = -tally.pending - keep;
      if (tally.pending > 0) return tally.pending;
      if (surplus > (idle ? 0 : this.#slice(tally))) return -surplus;
      return sum(tally) >= this.#limitOf(tally) ? 0 : null;
    });
    if (!this.#overdue) return;
    const days = this.day.withNeighbours();
    await this.#store.keepOnly([...days, ...days.map(fetchedIn), ...this.month.withNeighbours()]);
    this.#overdue = false;
  }

  /** Gives back all that is not used; whoever ends calls `flush` after it. */
  close(): void {
    for (const tally of this.#open) {
      tally.held = 0;
      tally.used = false;
    }
  }

  #of(client: string, direction: Direction): Tally[] {
    const tallies: Tally[] = [];
    if (this.#perDay !== Number.POSITIVE_INFINITY) tallies.push(this.#tally(this.#dayOf(direction), client));
    if (this.#perMonth !== Number.POSITIVE_INFINITY) tallies.push(this.#tally(this.month.name, EVERYONE));
    return tallies;
  }

  #tally(period: string, client: string): Tally {
    const key = keyOf(period, client);
    let tally = this.#tallies.get(key);
    if (tally === undefined) {
      const nothing = { stored: 0, pending: 0, held: 0, asked: 0, excess: 0, used: false };
      tally = { period, client, ...nothing, seenAt: Number.NEGATIVE_INFINITY };
      this.#tallies.set(key, tally);
    }
    return tally;
  }

  #dayOf(direction: Direction): string {
    return direction === 'sent' ? this.day.name : fetchedIn(this.day.name);
  }

  #limitOf(tally: Tally): number {
    return tally.client === EVERYONE ? this.#perMonth : this.#perDay;
  }

  #slice(tally: Tally): number {
    const limit = this.#limitOf(tally);
    if (limit === Number.POSITIVE_INFINITY) return 0;
    return Math.max(0, Math.floor(Math.min(limit / SHARE, MAX_SLICE, (limit - tally.stored) / SHARE_OF_REST)));
  }

  /** What may be used here beyond what is reserved, while the store does not answer. */
  #allowance(tally: Tally): number {
    return Math.min(this.#share(tally), Math.ceil(Math.min(this.#limitOf(tally) / SHARE, MAX_SLICE)));
  }

  /** This node's part of what was left when the store last answered. */
  #share(tally: Tally): number {
    return Math.floor(rest(tally, this.#limitOf(tally)) / Math.max(1, this.#nodes()));
  }

  #left(tally: Tally, reserved: boolean): number {
    if (this.#limitOf(tally) === Number.POSITIVE_INFINITY) return Number.POSITIVE_INFINITY;
    if (reserved && !this.#away) return -tally.pending - tally.held;
    const more = this.#away ? this.#allowance(tally) : rest(tally, this.#limitOf(tally));
    return more - tally.pending - tally.held;
  }

  /** The store said a moment ago that it has no more than that: whoever asks for too much again and again costs it nothing. */
  #isKnownSpent(tally: Tally, bytes: number): boolean {
    const isFresh = this.#clocks.monotonic() - tally.seenAt < ASK_AGAIN;
    return isFresh && bytes > rest(tally, this.#limitOf(tally)) - tally.pending - tally.held;
  }

  #want(tally: Tally): void {
    if (this.#limitOf(tally) === Number.POSITIVE_INFINITY) return;
    this.#wanting.add(tally);
    if (this.#asking !== null) return;
    if (this.#away && this.#clocks.monotonic() - this.#askedAt < ASK_AGAIN) return;
    // All that is wanted in this turn, and while a question is out, goes into one transaction.
    this.#asking = Promise.resolve()
      .then(() => this.#mutex.run(() => this.#ask()))
      .finally(() => {
        this.#asking = null;
        const [next] = this.#wanting;
        if (next !== undefined && !this.#away) this.#want(next);
      });
    this.#asking.catch(() => {});
  }

  /** Resolves when what is wanted now has been asked for, or after the store's time is over. */
  async #answered(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), PATIENCE);
    });
    // The question that is out may have begun before this one was wanted.
    const questions = (this.#asking ?? Promise.resolve()).catch(() => {}).then(() => this.#asking?.catch(() => {}));
    if ((await Promise.race([questions, late])) === 'late') this.#away = true;
    clearTimeout(timer);
  }

  async #ask(): Promise<void> {
    const wanting = [...this.#wanting];
    this.#wanting.clear();
    const wantOf = (tally: Tally): number => Math.max(0, tally.held + tally.asked + tally.pending);
    // Near the end it is asked first what is left, for what is reserved beyond the limit is refused to others until it is given back.
    const near = wanting.filter((tally) => wantOf(tally) + this.#slice(tally) > rest(tally, this.#limitOf(tally)) / 2);
    await this.#exchange(near, () => 0);
    await this.#exchange(wanting, (tally) => {
      const most = rest(tally, this.#limitOf(tally));
      const want = wantOf(tally) + this.#slice(tally);
      // What was used is stored in any case.
      const bytes = Math.max(Math.min(want, most), tally.pending, 0);
      return bytes === 0 ? null : bytes;
    });
    const exceeding = wanting.filter(({ excess }) => excess > 0);
    await this.#exchange(exceeding, () => 0);
  }

  /** Adds to the store's counters what `more` says, and takes the totals back; null: nothing to say about this one. */
  async #exchange(tallies: readonly Tally[], more: (tally: Tally) => number | null): Promise<void> {
    const added = tallies.flatMap((tally) => {
      const bytes = more(tally);
      if (bytes === null) {
        if (tally.pending === 0 && tally.held === 0 && tally.excess === 0 && !tally.used) this.#open.delete(tally);
        return [];
      }
      return [{ tally, bytes, excess: tally.excess }];
    });
    // All nodes lock rows in the same order.
    added.sort((a, b) => compare(a.tally, b.tally));
    for (let at = 0; at < added.length; at += BATCH) {
      const batch = added.slice(at, at + BATCH);
      this.#askedAt = this.#clocks.monotonic();
      // What is given back is nobody's from now on.
      for (const { tally, bytes } of batch) tally.pending -= Math.min(0, bytes);
      let totals: Counter[];
      try {
        totals = await this.#store.add(
          batch.map(({ tally, bytes, excess }) => ({
            period: tally.period,
            client: tally.client,
            bytes: bytes - excess,
          })),
        );
      } catch (error) {
        for (const { tally, bytes } of batch) tally.pending += Math.min(0, bytes);
        this.#away = true;
        throw error;
      }
      this.#away = false;
      const totalOf = new Map(totals.map(({ period, client, bytes }) => [keyOf(period, client), bytes]));
      for (const { tally, bytes, excess } of batch) {
        const total = totalOf.get(keyOf(tally.period, tally.client));
        if (total !== undefined) this.#take(tally, { bytes, excess, total });
      }
    }
  }

  #take(tally: Tally, { bytes, excess, total }: { bytes: number; excess: number; total: number }): void {
    tally.excess -= excess;
    tally.pending -= Math.max(0, bytes);
    tally.seenAt = this.#clocks.monotonic();
    // Of what was reserved, that part does not fit. What was used before it was reserved cannot be given back.
    const over = Math.max(0, Math.min(total - this.#limitOf(tally), bytes, -tally.pending));
    tally.excess += over;
    tally.pending += over;
    tally.stored = total - tally.excess;
    this.#open.add(tally);
  }

  async #load(): Promise<void> {
    if (this.#perDay === Number.POSITIVE_INFINITY && this.#perMonth === Number.POSITIVE_INFINITY) return;
    const day = this.day.name;
    const seenAt = this.#clocks.monotonic();
    for (const { period, client, bytes } of await this.#store.load([day, fetchedIn(day), this.month.name])) {
      const tally = this.#tally(period, client);
      tally.stored = bytes - tally.excess;
      tally.seenAt = seenAt;
    }
    this.#away = false;
  }
}

/** What the store had left of the limit. */
function rest(tally: Tally, limit: number): number {
  return Math.max(0, limit - tally.stored);
}

function sum({ stored, pending }: Tally): number {
  return stored + pending;
}

function keyOf(period: string, client: string): string {
  return `${period}\n${client}`;
}

function compare(a: Tally, b: Tally): number {
  const [first, second] = [keyOf(a.period, a.client), keyOf(b.period, b.client)];
  return first < second ? -1 : Number(first > second);
}
