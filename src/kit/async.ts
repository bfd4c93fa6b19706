import { Askers } from './askers.ts';

export type MaybePromise<T> = T | Promise<T>;

/**
 * Calls `next` with the value: at once where it is there already, without the microtask that a promise costs on the path of every
 * request. What `next` throws is thrown in the first case and rejects the returned promise in the second.
 */
export function andThen<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** A promise that another part settles, and that may be rejected while nobody waits for it. */
export function awaited<T>(): PromiseWithResolvers<T> {
  const made = Promise.withResolvers<T>();
  made.promise.catch(() => {});
  return made;
}

/** Waits for what others wait for too; the signal ends only this wait. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/**
 * Gives each task a signal of its own, and aborts them all at the end. A signal that thousands of tasks wait on together would look at all of
 * its listeners with each one that joins.
 */
export class Lifetime {
  readonly #running = new Set<AbortController>();
  #ended: Error | null = null;

  /** @throws the reason of the end, when that has come; else what the task throws */
  async run<T>(task: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#ended !== null) throw this.#ended;
    const controller = new AbortController();
    this.#running.add(controller);
    try {
      return await task(controller.signal);
    } finally {
      this.#running.delete(controller);
    }
  }

  end(reason: Error): void {
    this.#ended ??= reason;
    for (const controller of this.#running) controller.abort(reason);
  }

  /** Tasks that run. */
  get size(): number {
    return this.#running.size;
  }
}

/** Runs tasks one after the other, in order of arrival (an asynchronous mutex). A task that fails does not stop the next. */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  /** Resolves or rejects as the task does. A task that calls `run` of the same mutex and awaits it never ends. */
  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => {});
    return result;
  }
}

/** Runs one task per key at a time; whoever asks meanwhile gets the same outcome, and is one of those for whom the task is done. */
export class SingleFlight<T> {
  readonly #running = new Map<string, { readonly outcome: Promise<T>; readonly askers: Askers }>();

  /** @param by who asks; left out where it does not matter */
  do(key: string, task: (askers: Askers) => Promise<T>, by?: string | Askers): Promise<T> {
    let flight = this.#running.get(key);
    if (flight === undefined) {
      const askers = new Askers();
      const outcome = Promise.resolve()
        .then(() => task(askers))
        .finally(() => this.#running.delete(key));
      flight = { outcome, askers };
      this.#running.set(key, flight);
    }
    const { outcome, askers } = flight;
    if (typeof by === 'string') askers.join(by);
    else if (by !== undefined) {
      const leave = by.onJoin((name) => askers.join(name));
      outcome.then(leave, leave);
      for (const name of by.names) askers.join(name);
    }
    return outcome;
  }

  get size(): number {
    return this.#running.size;
  }
}

/** After a load that failed, ms: what changed must become known although no further change says so. It doubles up to the most, for a store that is away for days. */
const RETRY = { least: 5_000, most: 60_000 };

/**
 * Loads again on request, one load at a time. Requests that arrive while a load waits for its turn share that load, so a burst of changes
 * costs two loads at most. A holder of a snapshot gives `request` to its store's `watch`.
 */
export class Reloader {
  readonly #load: () => Promise<void>;
  readonly #failed: (error: unknown) => void;
  #running: Promise<void> = Promise.resolve();
  #waiting: Promise<void> | null = null;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
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
    this.now().then(
      () => {
        this.#failures = 0;
      },
      (error: unknown) => {
        this.#failed(error);
        const wait = Math.min(RETRY.most, RETRY.least * 2 ** this.#failures++);
        clearTimeout(this.#retry);
        if (!this.#closed) this.#retry = setTimeout(this.request, wait).unref();
      },
    );
  };

  /** Resolves once no load runs; none begins any more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#running;
  }
}
