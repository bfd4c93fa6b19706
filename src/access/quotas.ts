import { andThen } from '../kit/async.ts';
import { iso } from '../kit/time.ts';
import { RegistryError } from '../oci/errors.ts';
import { ByteCounters, type Counted, type CounterStore, type Counters, type Direction } from './counters.ts';
import { type Clocks, SYSTEM_CLOCKS } from './period.ts';
import { type Sharing, SlicedCounters } from './slices.ts';

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
  /** So many of them have been sent: they are counted now. False where the body must end here, because others have used up what was set aside. */
  sent(bytes: number): boolean;
  /** Gives back what was not sent. May be called more than once. */
  close(): void;
}

/** Port: quotas in bytes, as whoever sends bodies needs them. */
export interface ByteQuota {
  /** @throws {RegistryError} tooManyRequests, at once or later, where that much is not left */
  reserve(client: string, order: ByteOrder): Reservation | Promise<Reservation>;
}

/** What a fill takes of the quotas of the client that began it. */
export interface FillBudget {
  /**
   * Sets aside what is going to be fetched.
   * @param reply the bytes that its client is going to be sent of it: they are set aside by themselves, and must fit, too
   * @throws {RegistryError} tooManyRequests where that much is not left; nothing is set aside then
   */
  promise(bytes: number, reply: number): void;
  /** So many bytes were fetched: they are counted now. False where no more may be, because others have used up what was set aside. */
  fetched(bytes: number): boolean;
  /** Gives back what was not fetched. May be called more than once. */
  close(): void;
}

export interface QuotaOptions {
  readonly bytesPerDay: number | null;
  readonly bytesPerMonth: number | null;
  readonly store: CounterStore;
  readonly clocks?: Clocks;
  /** Where other gateways count in the same store: the quotas hold for all of them together. */
  readonly sharing?: Sharing;
}

/** How much of the quotas is used. Null: no such limit. */
export interface ByteUsage {
  readonly day: {
    readonly limit: number;
    /** ISO 8601. */
    readonly endsAt: string;
    readonly clients: readonly { readonly client: string; readonly sent: number; readonly fetched: number }[];
  } | null;
  /** Of all clients together. */
  readonly month: { readonly limit: number; readonly endsAt: string; readonly used: number } | null;
}

/** When a client may ask again that was refused because the shared store does not answer, seconds. */
const AWAY_RETRY = 60;

/** What is set aside for a client's replies. */
type Reserved = Readonly<Record<Direction, number>>;

const NOTHING: Reserved = { sent: 0, fetched: 0 };

/**
 * Bytes a day for each client, the larger of what it was sent and what was fetched for it; and bytes a month, what all clients were sent
 * and what was fetched for them. A reply whose length is known is set aside whole before it begins, so that pulls at the same time have no
 * more than one after the other.
 */
export class Quotas implements ByteQuota {
  #perDay = Number.POSITIVE_INFINITY;
  #perMonth = Number.POSITIVE_INFINITY;
  readonly #clocks: Clocks;
  readonly #counters: Counters;
  /** The same, where they are shared with other gateways. */
  readonly #slices: SlicedCounters | null;
  /** As whoever sends bodies asks: where quotas are shared, the store is asked first for what is not reserved yet. */
  readonly forBodies: ByteQuota;
  /** What is set aside for replies that run; clients without any are left out. */
  readonly #reserved = new Map<string, Reserved>();
  #allReserved = 0;
  /** More of the month is set aside than is left, as some who have much set aside read little of it. */
  #overbooked = false;

  private constructor(options: QuotaOptions, clocks: Clocks, counters: ByteCounters | SlicedCounters) {
    this.#clocks = clocks;
    this.#counters = counters;
    const slices = counters instanceof SlicedCounters ? counters : null;
    this.#slices = slices;
    this.forBodies =
      slices === null
        ? this
        : {
            reserve: (client, order) => {
              const wanted = { sent: order.bytes, fetched: order.fetched ? order.bytes : 0 };
              const drawn = andThen(slices.draw(client, wanted), () => slices.draw(client, wanted));
              return andThen(drawn, () => this.reserve(client, order));
            },
          };
    this.#limit(options);
  }

  /** Loads the counters of today and this month. Where there is no limit, nothing is counted. */
  static async open(options: QuotaOptions): Promise<Quotas> {
    const { store, clocks = SYSTEM_CLOCKS, sharing } = options;
    const counters =
      sharing === undefined
        ? await ByteCounters.open(store, clocks, countedFor(options))
        : await SlicedCounters.open(store, clocks, sharing, options);
    return new Quotas(options, clocks, counters);
  }

  /** Takes other limits. What was counted counts on; what was not counted so far begins with what the store has of it. */
  async reconfigure(limits: Pick<QuotaOptions, 'bytesPerDay' | 'bytesPerMonth'>): Promise<void> {
    this.#slices?.limit(limits);
    await this.#counters.recount(countedFor(limits));
    this.#limit(limits);
  }

  /** Whether there is any limit. */
  get areLimited(): boolean {
    return this.#perDay !== Number.POSITIVE_INFINITY || this.#perMonth !== Number.POSITIVE_INFINITY;
  }

  #limit({ bytesPerDay, bytesPerMonth }: Pick<QuotaOptions, 'bytesPerDay' | 'bytesPerMonth'>): void {
    this.#perDay = bytesPerDay ?? Number.POSITIVE_INFINITY;
    this.#perMonth = bytesPerMonth ?? Number.POSITIVE_INFINITY;
  }

  /** @throws {RegistryError} tooManyRequests where nothing is left of a quota; what is only set aside may still come back */
  check(client: string): void {
    const exceeded = this.#exceeded(client);
    if (exceeded !== null) throw this.#refusal(exceeded, client, 0);
  }

  /** @throws {RegistryError} tooManyRequests */
  reserve(client: string, order: ByteOrder): Reservation {
    const { bytes, fetched, partly = false } = order;
    this.#counters.startPeriods();
    const day = this.#leftOfDay(client, fetched);
    const times = fetched ? 2 : 1;
    let month = Math.floor(this.#leftOfMonth(true) / times);
    const needed = partly ? 1 : bytes;
    if (needed > month && this.#mayOverbook(client, times * bytes)) month = bytes;
    if (needed > month) throw this.#refusal('month', client, month, `${bytes} of this answer`);
    if (needed > day) throw this.#refusal('day', client, day, `${bytes} of this answer`);
    const granted = partly ? Math.min(bytes, day, month) : bytes;
    const setAside = (count: number) => this.#setAside(client, { sent: count, fetched: fetched ? count : 0 });
    setAside(granted);
    return new QuotaReservation(granted, (count, isSent) => {
      setAside(-count);
      if (!isSent) return true;
      this.#counters.count(client, 'sent', count);
      if (fetched) this.#counters.count(client, 'fetched', count);
      return !this.#overbooked || !this.#isMonthOver();
    });
  }

  /** Bytes that were fetched for this client, and that nobody has set aside. */
  fetched(client: string, bytes: number): void {
    this.#counters.count(client, 'fetched', bytes);
  }

  fill(client: string): FillBudget {
    let left = 0;
    const release = (count: number): void => {
      left -= count;
      if (count > 0) this.#setAside(client, { sent: 0, fetched: -count });
    };
    return {
      promise: (bytes, reply) => {
        this.#requireFill(client, bytes, reply);
        left += bytes;
        this.#setAside(client, { sent: 0, fetched: bytes });
      },
      fetched: (bytes) => {
        release(Math.min(bytes, left));
        this.#counters.count(client, 'fetched', bytes);
        if (this.#slices?.isCut(client) === true) return false;
        return !this.#overbooked || !this.#isMonthOver();
      },
      close: () => release(left),
    };
  }

  #requireFill(client: string, bytes: number, reply: number): void {
    this.#counters.startPeriods();
    const month = this.#leftOfMonth();
    const both = bytes + reply;
    if (both > month && !this.#mayOverbook(client, both)) {
      throw this.#refusal('month', client, month, `${both} of fetching and sending this`);
    }
    const [fetched, sent] = [this.#leftOf(client, 'fetched'), this.#leftOf(client, 'sent')];
    if (bytes > fetched) throw this.#refusal('day', client, fetched, `${bytes} of fetching this`);
    if (reply > sent) throw this.#refusal('day', client, sent, `${reply} of this answer`);
  }

  /** Whether anything is left of the client's quota and of everybody's. */
  mayFetch(client: string): boolean {
    return this.#exceeded(client) === null;
  }

  usage(): ByteUsage {
    const counters = this.#counters;
    counters.startPeriods();
    const endOf = (period: 'day' | 'month') => iso(this.#clocks.now() + counters[period].left());
    const [day, month] = [this.#perDay, this.#perMonth];
    return {
      day: Number.isFinite(day) ? { limit: day, endsAt: endOf('day'), clients: counters.ofToday() } : null,
      month: Number.isFinite(month) ? { limit: month, endsAt: endOf('month'), used: counters.ofMonth() } : null,
    };
  }

  /** @see ByteCounters.flush */
  flush(): Promise<void> {
    return this.#counters.flush();
  }

  /** @see ByteCounters.close */
  close(): void {
    this.#counters.close();
  }

  #exceeded(client: string): 'day' | 'month' | null {
    this.#counters.startPeriods();
    if (this.#slices !== null) return this.#slices.exceeded(client);
    if (this.#counters.ofMonth() >= this.#perMonth) return 'month';
    const day = Math.max(this.#counters.ofDay(client, 'sent'), this.#counters.ofDay(client, 'fetched'));
    return day >= this.#perDay ? 'day' : null;
  }

  /** Bytes that a reply may have at most. */
  #leftOfDay(client: string, fetched: boolean): number {
    const sent = this.#leftOf(client, 'sent', true);
    if (fetched) return Math.min(sent, this.#leftOf(client, 'fetched', true));
    // What was fetched already costs a reply from the cache nothing, unless it is more than the client may have.
    return this.#counters.ofDay(client, 'fetched') > this.#perDay ? 0 : sent;
  }

  /** Bytes of the client's day that are neither counted nor set aside. `backed`: where quotas are shared, of those alone that this node has reserved. */
  #leftOf(client: string, direction: Direction, backed = false): number {
    if (this.#slices !== null) return this.#slices.leftOfDay(client, direction, backed);
    const reserved = this.#reserved.get(client) ?? NOTHING;
    return this.#perDay - this.#counters.ofDay(client, direction) - reserved[direction];
  }

  #leftOfMonth(backed = false): number {
    if (this.#slices !== null) return this.#slices.leftOfMonth(backed);
    return this.#perMonth - this.#counters.ofMonth() - this.#allReserved;
  }

  /**
   * Whether bytes for which too little of the month is left may be had all the same: what others have set aside counts at most as much as
   * this client would have then. So nobody keeps others out by asking for much and reading little of it. Where all of it is read in the end,
   * bodies are cut where the month's bytes end.
   */
  #mayOverbook(client: string, bytes: number): boolean {
    if (this.#slices?.away === true) return false;
    const own = held(this.#reserved.get(client) ?? NOTHING) + bytes;
    let all = this.#counters.ofMonth() + own;
    for (const [other, reserved] of this.#reserved) {
      if (other !== client) all += Math.min(own, held(reserved));
      if (all > this.#perMonth) return false;
    }
    if (all > this.#perMonth) return false;
    this.#overbooked = true;
    return true;
  }

  /** To be asked while the month is overbooked. */
  #isMonthOver(): boolean {
    const counted = this.#counters.ofMonth();
    this.#overbooked = counted + this.#allReserved > this.#perMonth;
    return this.#overbooked && counted >= this.#perMonth;
  }

  #setAside(client: string, change: Reserved): void {
    const { sent, fetched } = this.#reserved.get(client) ?? NOTHING;
    const reserved = { sent: sent + change.sent, fetched: fetched + change.fetched };
    this.#slices?.setAside(client, change);
    this.#allReserved += held(change);
    if (held(reserved) === 0) this.#reserved.delete(client);
    else this.#reserved.set(client, reserved);
  }

  /** @param asked in words, how much for what; left out where it does not matter */
  #refusal(which: 'day' | 'month', client: string, left: number, asked?: string): RegistryError {
    const wait = this.#counters[which].left();
    const limit =
      which === 'day'
        ? `this client may have ${this.#perDay} bytes a day (UTC)`
        : `this gateway may send and fetch ${this.#perMonth} bytes a month (UTC)`;
    const rest = `${Math.max(0, left)} of them are left`;
    const wanted = asked === undefined ? '' : `, too few for the ${asked}`;
    const isAway = this.#slices?.away === true;
    const share = isAway ? ' for this gateway while the database that counts for all of them does not answer' : '';
    return new RegistryError('tooManyRequests', {
      facts: { what: `${limit}; ${rest}${share}${wanted}; they begin anew at ${iso(this.#clocks.now() + wait)}` },
      client,
      retryAfter: isAway ? Math.min(AWAY_RETRY, wait / 1000) : wait / 1000,
    });
  }
}

class QuotaReservation implements Reservation {
  readonly bytes: number;
  readonly #take: (count: number, isSent: boolean) => boolean;
  #left: number;

  /** `take` removes bytes from what is set aside; false where no more may be sent. */
  constructor(bytes: number, take: (count: number, isSent: boolean) => boolean) {
    this.bytes = bytes;
    this.#left = bytes;
    this.#take = take;
  }

  sent(bytes: number): boolean {
    const count = Math.min(bytes, this.#left);
    if (count === 0) return true;
    this.#left -= count;
    // What was sent whole is whole.
    return this.#take(count, true) || this.#left === 0;
  }

  close(): void {
    const rest = this.#left;
    this.#left = 0;
    if (rest > 0) this.#take(rest, false);
  }
}

function countedFor({ bytesPerDay, bytesPerMonth }: Pick<QuotaOptions, 'bytesPerDay' | 'bytesPerMonth'>): Counted {
  return { days: bytesPerDay !== null, month: bytesPerMonth !== null };
}

/** Of the month. */
function held({ sent, fetched }: Reserved): number {
  return sent + fetched;
}
