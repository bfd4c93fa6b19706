/**
 * Those for whom one thing is done, by name, as they join. What several ask for waits in the turn of each of them, and goes on in the first one's
 * that comes: whoever asks for the same as a greedy one does not wait in that one's line.
 */
export class Askers {
  readonly #names: Set<string>;
  readonly #listeners = new Set<(name: string) => void>();

  /** Nobody, where none is named. */
  constructor(...names: readonly string[]) {
    this.#names = new Set(names);
  }

  get names(): ReadonlySet<string> {
    return this.#names;
  }

  join(name: string): void {
    if (this.#names.has(name)) return;
    this.#names.add(name);
    for (const listener of [...this.#listeners]) listener(name);
  }

  /** Calls the listener with each name that joins, until the function returned is called. */
  onJoin(listener: (name: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
