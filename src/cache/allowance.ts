import { LRUCache } from 'lru-cache';

/** Fills of one client that may go on at a time although nobody reads them: a client that was cut off in the middle of a pull leaves as many. */
const MAX_FILLS = 4;
/** Bytes an hour that may be fetched for one client and that nobody reads: the rest of some layers, not of a registry. */
const BYTES_AN_HOUR = 256 * 1024 * 1024;
const HOUR = 3_600_000;
/** Clients remembered at once; beyond it the one that was idle longest is forgotten. About 10 MiB. */
const MAX_CLIENTS = 100_000;

/**
 * What is fetched for a client that has left. A fill whose readers have all gone calls `begin`; while it is told to go on it says what it
 * fetches; `end` follows every `begin` that returned true.
 */
export interface FillAllowance {
  /** The last reader of a fill of this client's has left. True: the fill may go on, and counts until `end`. False: it rests, and nothing was counted. */
  begin(client: string): boolean;
  /** So many bytes were fetched that nobody reads. False: the fill rests now; `end` is called all the same. */
  fetched(client: string, bytes: number): boolean;
  /** The fill has ended, rests, or has a reader again. */
  end(client: string): void;
}

/** Port: what a fill takes of the quotas of the client that began it. */
export interface FillBudget {
  /** Sets aside what it is going to fetch; `reply`: what its client is going to be sent of it. @throws {RegistryError} tooManyRequests */
  promise(bytes: number, reply: number): void;
  /** So many bytes were fetched. False where no more may be. */
  fetched(bytes: number): boolean;
  /** Gives back what was not fetched. */
  close(): void;
}

/** Port: quotas, as the cache needs them. */
export interface PayingClients {
  /** What a fill that this client begins takes of its quotas; null where nobody counts. */
  fill(client: string): FillBudget | null;
  /** False where nothing more may be fetched for it. */
  mayFetch(client: string): boolean;
}

/** Who bears the cost of fills. */
export interface FillAccounts {
  /** Asked whether a fill may go on that its readers have left. */
  readonly allowance: FillAllowance;
  /** The quotas of whoever began a fill; null where nobody counts. */
  readonly budget: (client: string) => FillBudget | null;
}

/** A fill ended although nothing is wrong: nobody wants more of it for now, or pays for it. What it has is left for the next. */
export class RestedError extends Error {
  override readonly name = 'RestedError';
}

interface Spent {
  /** Bytes of the allowance that were used and have not come back yet. */
  readonly bytes: number;
  /** When `bytes` was right, ms. */
  readonly at: number;
}

export interface ClientAllowanceOptions {
  /** False for a client that may be fetched nothing more, whatever its allowance: one that is over its quota. */
  readonly mayFetch?: (client: string) => boolean;
  /** Monotonic, ms. */
  readonly now?: () => number;
}

/** For each client some fills at a time and some bytes an hour. The bytes come back evenly. */
export class ClientAllowance implements FillAllowance {
  readonly #mayFetch: (client: string) => boolean;
  readonly #now: () => number;
  /** Fills that go on without a reader; clients that have none are left out. */
  readonly #fills = new Map<string, number>();
  readonly #spent = new LRUCache<string, Spent>({ max: MAX_CLIENTS });

  constructor({ mayFetch = () => true, now = () => performance.now() }: ClientAllowanceOptions = {}) {
    this.#mayFetch = mayFetch;
    this.#now = now;
  }

  begin(client: string): boolean {
    if (!this.allows(client)) return false;
    this.#fills.set(client, (this.#fills.get(client) ?? 0) + 1);
    return true;
  }

  /** Whether `begin` would return true now. */
  allows(client: string): boolean {
    const fills = this.#fills.get(client) ?? 0;
    return fills < MAX_FILLS && this.#spentBy(client) < BYTES_AN_HOUR && this.#mayFetch(client);
  }

  fetched(client: string, bytes: number): boolean {
    const spent = this.#spentBy(client) + bytes;
    this.#spent.set(client, { bytes: spent, at: this.#now() });
    return spent < BYTES_AN_HOUR && this.#mayFetch(client);
  }

  end(client: string): void {
    const fills = (this.#fills.get(client) ?? 0) - 1;
    if (fills > 0) this.#fills.set(client, fills);
    else this.#fills.delete(client);
  }

  /** Clients that are remembered. */
  get size(): number {
    return this.#spent.size;
  }

  #spentBy(client: string): number {
    const spent = this.#spent.get(client);
    if (spent === undefined) return 0;
    return Math.max(0, spent.bytes - ((this.#now() - spent.at) * BYTES_AN_HOUR) / HOUR);
  }
}

/** Whether a fill has readers; once they have left it goes on only at the expense of its client's allowance. */
export class Readership {
  readonly #allowance: FillAllowance;
  readonly #budget: FillBudget | null;
  readonly #client: string | undefined;
  readonly #onLeft: () => void;
  #present = true;
  #leaving: NodeJS.Immediate | null = null;
  /** The fill goes on without readers, and counts among what its client is allowed. */
  #isAllowed = false;

  /**
   * @param by `client`: who began the fill, left out where nobody pays, so that nothing is bounded; `unpaid`: it pays elsewhere
   * @param onLeft called when the last reader has left and no other has come at once
   */
  constructor(
    { allowance, budget }: FillAccounts,
    { client, unpaid = false }: { readonly client?: string; readonly unpaid?: boolean },
    onLeft: () => void,
  ) {
    this.#allowance = allowance;
    this.#budget = client === undefined || unpaid ? null : budget(client);
    this.#client = client;
    this.#onLeft = onLeft;
  }

  get present(): boolean {
    return this.#present;
  }

  /** Readers have come, or the last one has left. */
  set(present: boolean): void {
    this.#present = present;
    if (this.#leaving !== null) clearImmediate(this.#leaving);
    this.#leaving = null;
    if (present) {
      this.end();
      return;
    }
    // Whoever began the fill may only be about to read.
    this.#leaving = setImmediate(() => {
      this.#leaving = null;
      this.#onLeft();
    });
  }

  mayGoOn(): boolean {
    if (this.#present || this.#isAllowed || this.#client === undefined) return true;
    this.#isAllowed = this.#allowance.begin(this.#client);
    return this.#isAllowed;
  }

  /** See {@link FillBudget.promise}. */
  promise(bytes: number, reply: number): void {
    this.#budget?.promise(bytes, reply);
  }

  /** So many bytes were fetched. Null, or in words why no more may be. */
  fetched(bytes: number): string | null {
    if (this.#budget?.fetched(bytes) === false) return 'the quota of this month ends';
    if (!this.#isAllowed || this.#client === undefined || this.#allowance.fetched(this.#client, bytes)) return null;
    return 'its readers have left, and its client has had enough fetched';
  }

  /** The fill is over: gives back what it had set aside. */
  close(): void {
    this.end();
    this.#budget?.close();
  }

  /** The fill has ended, or has readers: it counts no longer. */
  end(): void {
    if (this.#isAllowed && this.#client !== undefined) this.#allowance.end(this.#client);
    this.#isAllowed = false;
  }
}
