import { RegistryError } from '../oci/errors.ts';

/** After so long, s, some of them are read. */
const RETRY_AFTER = 5;

/**
 * Counts the bodies that clients are being sent, so that none has more than its share of memory: the connections that one may have
 * (`limits.connections`) could carry a hundred each over HTTP/2.
 */
export class Bodies {
  readonly #most: number;
  readonly #running = new Map<string, number>();

  constructor(most: number) {
    this.#most = most;
  }

  /** @returns to be called once at the end of the body. @throws {RegistryError} tooManyRequests */
  begin(client: string): () => void {
    const running = this.#running.get(client) ?? 0;
    if (running >= this.#most) {
      const what = `this client is being sent ${running} bodies at the same time, the most that one may`;
      throw new RegistryError('tooManyRequests', { facts: { what }, retryAfter: RETRY_AFTER });
    }
    this.#running.set(client, running + 1);
    return () => {
      const left = (this.#running.get(client) ?? 1) - 1;
      if (left > 0) this.#running.set(client, left);
      else this.#running.delete(client);
    };
  }
}
