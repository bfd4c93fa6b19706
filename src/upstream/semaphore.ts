/**
 * What a permit is acquired for, the most urgent first: a client that waits for a manifest can do nothing else, and an additional
 * connection for a segment only makes a download faster.
 */
export type Purpose = 'document' | 'fill' | 'segment';

const BY_URGENCY: readonly Purpose[] = ['document', 'fill', 'segment'];

/** Returns a permit; may be called more than once. */
export type Release = () => void;

/** Who holds a permit that may be asked back before it is returned. */
export interface PermitHolder {
  /** Bytes per second that it brings, for the choice of who rests. */
  pace(): number;
  /** Asks for the permit: the holder stops what it does, returns the permit, and queues for another one. */
  rest(): void;
}

export interface SemaphoreLimits {
  /** Permits in all. */
  readonly total: number;
  /** Permits for one purpose; default `total`. */
  readonly fill?: number;
  readonly segment?: number;
  /** Permits for segments with the same key. */
  readonly segmentPerKey?: number;
}

interface Waiter {
  readonly key: string;
  readonly grant: () => void;
}

/**
 * A counting semaphore with a fair queue: the most urgent purpose first; within a purpose the keys (hosts, registries) take turns, so that one
 * registry with a hundred layers does not hold up another; within a key in order of arrival.
 */
export class Semaphore {
  readonly #limits: SemaphoreLimits;
  readonly #inUse: Record<Purpose, number> = { document: 0, fill: 0, segment: 0 };
  readonly #segmentsOf = new Map<string, number>();
  /** For each purpose a queue per key; the order of the map is that of the turns. */
  readonly #waiting: Record<Purpose, Map<string, Waiter[]>> = {
    document: new Map(),
    fill: new Map(),
    segment: new Map(),
  };

  constructor(limits: SemaphoreLimits) {
    this.#limits = limits;
  }

  get inUse(): number {
    return BY_URGENCY.reduce((sum, purpose) => sum + this.#inUse[purpose], 0);
  }

  get waiting(): number {
    let count = 0;
    for (const purpose of BY_URGENCY) for (const queue of this.#waiting[purpose].values()) count += queue.length;
    return count;
  }

  /** Resolves when a permit is granted; rejects with the signal's reason where that comes first. */
  acquire(purpose: Purpose, key: string, signal: AbortSignal, _holder?: PermitHolder): Promise<Release> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const waiter: Waiter = {
        key,
        grant: () => {
          signal.removeEventListener('abort', onAbort);
          resolve(this.#take(purpose, key));
        },
      };
      const onAbort = (): void => {
        this.#remove(purpose, waiter);
        reject(signal.reason as Error);
      };
      signal.addEventListener('abort', onAbort, { once: true });
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
      if (purpose === 'segment') {
        const left = (this.#segmentsOf.get(key) ?? 1) - 1;
        if (left === 0) this.#segmentsOf.delete(key);
        else this.#segmentsOf.set(key, left);
      }
      this.#grant();
    };
  }

  #grant(): void {
    for (const purpose of BY_URGENCY) {
      const queues = this.#waiting[purpose];
      for (let progress = true; progress; ) {
        progress = false;
        for (const [key, queue] of queues) {
          if (!this.#isWithinLimits(purpose, key)) continue;
          const waiter = queue.shift();
          // This key's next turn comes after those of all other keys.
          queues.delete(key);
          if (queue.length > 0) queues.set(key, queue);
          if (waiter === undefined) continue;
          this.#inUse[purpose]++;
          if (purpose === 'segment') this.#segmentsOf.set(key, (this.#segmentsOf.get(key) ?? 0) + 1);
          waiter.grant();
          progress = true;
          break;
        }
      }
    }
  }

  #isWithinLimits(purpose: Purpose, key: string): boolean {
    if (this.inUse >= this.#limits.total) return false;
    if (purpose === 'document') return true;
    if (this.#inUse[purpose] >= (this.#limits[purpose] ?? this.#limits.total)) return false;
    return purpose === 'fill' || (this.#segmentsOf.get(key) ?? 0) < (this.#limits.segmentPerKey ?? this.#limits.total);
  }

  #remove(purpose: Purpose, waiter: Waiter): void {
    const queues = this.#waiting[purpose];
    const left = (queues.get(waiter.key) ?? []).filter((other) => other !== waiter);
    if (left.length === 0) queues.delete(waiter.key);
    else queues.set(waiter.key, left);
  }
}
