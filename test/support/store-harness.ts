/** What a conformance suite of a store works with. */
export interface StoreHarness<T> {
  readonly store: T;
  /** Another holder of the same store: of this process, or of another node. */
  another(): T | Promise<T>;
  /** The same store, opened anew: what was durable is there. */
  reopen(): T | Promise<T>;
}

/** For stores in memory: every holder shares one backing, whose listeners hear of what the others change. */
export class SharedBacking {
  readonly #watchers = new Set<{ readonly store: object; readonly listener: () => void }>();

  watch(store: object, listener: () => void): () => void {
    const watcher = { store, listener };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  changedBy(store: object): void {
    for (const watcher of [...this.#watchers]) if (watcher.store !== store) watcher.listener();
  }
}
