/** So many tasks at a time, the others in order of arrival. */
export class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Resolves or rejects as the task does. A task that waits for another of the same slots may wait for good. */
  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

/** Runs a task for each item; the first failure aborts the others, which have ended when it is thrown. */
export async function allOrNone<T>(
  items: readonly T[],
  signal: AbortSignal,
  task: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failing = new AbortController();
  const within = AbortSignal.any([signal, failing.signal]);
  const failed = { first: null as { readonly error: unknown } | null };
  await Promise.all(
    items.map(async (item) => {
      try {
        within.throwIfAborted();
        await task(item, within);
      } catch (error) {
        failed.first ??= { error };
        failing.abort(error);
      }
    }),
  );
  if (failed.first !== null) throw failed.first.error;
}
