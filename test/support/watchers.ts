/** Who watches a store in memory that several holders share. */
export class Watchers {
  readonly #watchers = new Set<{ readonly holder: object; readonly listener: () => void }>();

  add(holder: object, listener: () => void): () => void {
    const watcher = { holder, listener };
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Calls the listeners of every other holder. */
  changed(holder: object): void {
    for (const watcher of [...this.#watchers]) if (watcher.holder !== holder) watcher.listener();
  }
}
