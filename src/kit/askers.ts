/**
 * The clients for whom one thing is done, as they join. What several ask for waits in the turn of each of them, and goes on in the first one's
 * that comes: whoever asks for the same as a greedy client does not wait in that client's line.
 */
export class Askers {
  readonly #clients: Set<string>;
  readonly #listeners = new Set<(client: string) => void>();

  /** Nobody: what the gateway does for itself. */
  constructor(...clients: readonly string[]) {
    this.#clients = new Set(clients);
  }

  get clients(): ReadonlySet<string> {
    return this.#clients;
  }

  join(client: string): void {
    if (this.#clients.has(client)) return;
    this.#clients.add(client);
    for (const listener of [...this.#listeners]) listener(client);
  }

  /** Calls the listener with each client that joins, until the function returned is called. */
  onJoin(listener: (client: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
