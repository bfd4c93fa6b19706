import type { Logger } from '../telemetry/log.ts';
import type { CacheError } from './blob-cache.ts';

/** After a failure nothing new is kept for so long, ms; doubled while failures go on. Long enough that not every pull tries. */
const FIRST_PAUSE = 5_000;
const LONGEST_PAUSE = 60_000;
/** A failing disk is logged once in this time, ms, not at every pull. */
const LOG_INTERVAL = 60_000;

/** Remembers that the disk fails, so that pulls go on without the cache for a while. */
export class DiskHealth {
  readonly #log: Logger;
  readonly #onError: (reason: string) => void;
  #pause = FIRST_PAUSE;
  #until = 0;
  #loggedAt = Number.NEGATIVE_INFINITY;
  #unlogged = 0;

  constructor(log: Logger, onError: (reason: string) => void) {
    this.#log = log;
    this.#onError = onError;
  }

  get failing(): boolean {
    return performance.now() < this.#until;
  }

  failed(error: CacheError): void {
    const now = performance.now();
    const cause = error.cause as NodeJS.ErrnoException | undefined;
    this.#onError(cause?.code ?? error.reason);
    if (error.reason !== 'no-room' && now >= this.#until) {
      // The first failure after a pause counts; those of fills that ran already do not lengthen it.
      this.#until = now + this.#pause;
      this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
    }
    if (now - this.#loggedAt < LOG_INTERVAL) {
      this.#unlogged++;
      return;
    }
    this.#log.error(
      { err: error, code: cause?.code, more: this.#unlogged },
      error.reason === 'no-room'
        ? 'all that the cache holds is being read; what does not fit beside it goes straight through: raise cache.maxSize'
        : 'the cache cannot write; pulls go straight through to the upstream until it can: free space or repair the disk',
    );
    this.#loggedAt = now;
    this.#unlogged = 0;
  }

  /** The operator has made room, or allows more: what failed before is tried again at once. */
  tryAgain(): void {
    this.#until = 0;
    this.#pause = FIRST_PAUSE;
  }

  worked(): void {
    if (this.failing) return;
    this.#pause = FIRST_PAUSE;
  }
}
