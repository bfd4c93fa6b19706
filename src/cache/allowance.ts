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
    const fills = this.#fills.get(client) ?? 0;
    if (fills >= MAX_FILLS || this.#spentBy(client) >= BYTES_AN_HOUR || !this.#mayFetch(client)) return false;
    this.#fills.set(client, fills + 1);
    return true;
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
