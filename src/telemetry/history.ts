import { iso } from '../kit/time.ts';

/** A day of minutes: some 200 KiB. */
const MAX_SAMPLES = 24 * 60;
const EVERY = 60_000;

/** What had been counted at one moment, since the gateway started, and how full the cache was. */
export interface Sample {
  readonly requests: number;
  /** Requests that failed with 500 or more. */
  readonly failed: number;
  readonly bytesSent: number;
  readonly bytesFetched: number;
  readonly hits: number;
  readonly misses: number;
  readonly cacheBytes: number;
}

export type TimedSample = Sample & { /** ISO 8601. */ readonly at: string };

/** The last day, minute by minute, in memory: for the operator's view, where no Prometheus keeps more. */
export class History {
  readonly #read: () => Promise<Sample>;
  readonly #onError: (error: unknown) => void;
  readonly #samples: TimedSample[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(read: () => Promise<Sample>, onError: (error: unknown) => void) {
    this.#read = read;
    this.#onError = onError;
    this.#timer = setInterval(() => void this.#sample(), EVERY).unref();
    void this.#sample();
  }

  /** Oldest first; the last is of now. */
  async samples(): Promise<readonly TimedSample[]> {
    return [...this.#samples, await this.#now()];
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #now(): Promise<TimedSample> {
    return { ...(await this.#read()), at: iso(Date.now()) };
  }

  async #sample(): Promise<void> {
    try {
      this.#samples.push(await this.#now());
      if (this.#samples.length > MAX_SAMPLES) this.#samples.shift();
    } catch (error) {
      this.#onError(error);
    }
  }
}
