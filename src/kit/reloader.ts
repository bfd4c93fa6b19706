/** After a load that failed, ms: what changed must become known although no further change says so. */
const RETRY = 5_000;

/**
 * Loads again whenever it is asked to, one load at a time. Requests that arrive while one waits for its turn share it, so a burst of
 * changes costs two loads at most. It is what a holder of a snapshot hangs behind a store's `watch`.
 */
export class Reloader {
  readonly #load: () => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #running: Promise<void> = Promise.resolve();
  #waiting: Promise<void> | null = null;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  /** @param failed hears of a load that failed after `request`; it is tried again by itself */
  constructor(load: () => Promise<void>, failed: (error: unknown) => void) {
    this.#load = load;
    this.#failed = failed;
  }

  /** Resolves after a load that began after this call; rejects where that failed. */
  now(): Promise<void> {
    if (this.#waiting !== null) return this.#waiting;
    const turn = this.#running.then(() => {
      this.#waiting = null;
      return this.#closed ? undefined : this.#load();
    });
    this.#waiting = turn;
    this.#running = turn.catch(() => {});
    return turn;
  }

  /** The same in the background. */
  readonly request = (): void => {
    clearTimeout(this.#retry);
    this.now().catch((error: unknown) => {
      this.#failed(error);
      if (!this.#closed) this.#retry = setTimeout(this.request, RETRY).unref();
    });
  };

  /** Resolves once no load runs; none begins any more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#running;
  }
}
