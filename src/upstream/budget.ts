/** What something is wanted for, first come first: whoever waits for a manifest waits for everything, an extra piece can always wait. */
export type Purpose = 'document' | 'fill' | 'piece';

const ORDER: readonly Purpose[] = ['document', 'fill', 'piece'];

/** Gives back what was acquired; may be called more than once. */
export type Release = () => void;

export interface BudgetLimits {
  /** At once, in all. */
  readonly total: number;
  /** At once for one purpose; default `total`. */
  readonly fill?: number;
  readonly piece?: number;
  /** At once for one purpose and one key. */
  readonly piecePerKey?: number;
}

interface Waiter {
  readonly key: string;
  readonly grant: () => void;
}

/** Counted permits. Purposes go in their order; within one, keys (hosts, registries) take turns, and each key's waiters go in order of arrival. */
export class Budget {
  readonly #limits: BudgetLimits;
  readonly #inUse: Record<Purpose, number> = { document: 0, fill: 0, piece: 0 };
  readonly #piecesOf = new Map<string, number>();
  /** Per purpose a queue per key; the map's order is the order of turns. */
  readonly #waiting: Record<Purpose, Map<string, Waiter[]>> = {
    document: new Map(),
    fill: new Map(),
    piece: new Map(),
  };

  constructor(limits: BudgetLimits) {
    this.#limits = limits;
  }

  get inUse(): number {
    return ORDER.reduce((sum, purpose) => sum + this.#inUse[purpose], 0);
  }

  get waiting(): number {
    let count = 0;
    for (const purpose of ORDER) for (const queue of this.#waiting[purpose].values()) count += queue.length;
    return count;
  }

  /** Waits for its turn; rejects with the signal's reason where that comes first. */
  acquire(purpose: Purpose, key: string, signal: AbortSignal): Promise<Release> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const waiter: Waiter = {
        key,
        grant: () => {
          signal.removeEventListener('abort', leave);
          resolve(this.#take(purpose, key));
        },
      };
      const leave = (): void => {
        this.#remove(purpose, waiter);
        reject(signal.reason as Error);
      };
      signal.addEventListener('abort', leave, { once: true });
      const queues = this.#waiting[purpose];
      const queue = queues.get(key);
      if (queue === undefined) queues.set(key, [waiter]);
      else queue.push(waiter);
      this.#grant();
    });
  }

  #take(purpose: Purpose, key: string): Release {
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#inUse[purpose]--;
      if (purpose === 'piece') {
        const left = (this.#piecesOf.get(key) ?? 1) - 1;
        if (left === 0) this.#piecesOf.delete(key);
        else this.#piecesOf.set(key, left);
      }
      this.#grant();
    };
  }

  #grant(): void {
    for (const purpose of ORDER) {
      const queues = this.#waiting[purpose];
      for (let progress = true; progress; ) {
        progress = false;
        for (const [key, queue] of queues) {
          if (!this.#hasRoom(purpose, key)) continue;
          const waiter = queue.shift();
          // To the back of the line of keys.
          queues.delete(key);
          if (queue.length > 0) queues.set(key, queue);
          if (waiter === undefined) continue;
          this.#inUse[purpose]++;
          if (purpose === 'piece') this.#piecesOf.set(key, (this.#piecesOf.get(key) ?? 0) + 1);
          waiter.grant();
          progress = true;
          break;
        }
      }
    }
  }

  #hasRoom(purpose: Purpose, key: string): boolean {
    if (this.inUse >= this.#limits.total) return false;
    if (purpose === 'document') return true;
    if (this.#inUse[purpose] >= (this.#limits[purpose] ?? this.#limits.total)) return false;
    return purpose === 'fill' || (this.#piecesOf.get(key) ?? 0) < (this.#limits.piecePerKey ?? this.#limits.total);
  }

  #remove(purpose: Purpose, waiter: Waiter): void {
    const queues = this.#waiting[purpose];
    const left = (queues.get(waiter.key) ?? []).filter((other) => other !== waiter);
    if (left.length === 0) queues.delete(waiter.key);
    else queues.set(waiter.key, left);
  }
}
