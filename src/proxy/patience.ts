import { RegistryError } from '../oci/errors.ts';
import { isPassing } from './access.ts';
import { Lru } from './lru.ts';

/** How long a client waits for a revalidation when a kept answer could serve it. Containerd gives up on headers after 30 s. */
const WAIT = 5_000;
/** After a failure the upstream is left alone so long; every asker would otherwise wait for the same failure again. */
export const REST = 10_000;
/** A `Retry-After` is believed up to this. */
const LONGEST_REST = 5 * 60_000;
const KEPT = 10_000;

/** How much waiting on a failing upstream is worth while a kept answer is at hand. */
export class Patience {
  readonly #now: () => number;
  readonly #wait: number;
  readonly #spent = new Lru<number>(KEPT);

  constructor(now: () => number, wait = WAIT) {
    this.#now = now;
    this.#wait = wait;
  }

  /** Whether the upstream failed on this only a moment ago. */
  isSpent(id: string): boolean {
    const until = this.#spent.get(id);
    if (until === undefined) return false;
    if (until > this.#now()) return true;
    this.#spent.delete(id);
    return false;
  }

  /** Takes note of a failure that says nothing about the image; every other one is no reason to wait. */
  note(id: string, error: unknown): void {
    if (!isPassing(error)) return;
    const retryAfter = error instanceof RegistryError ? (error.options.retryAfter ?? 0) * 1000 : 0;
    this.#spent.set(id, this.#now() + Math.min(LONGEST_REST, Math.max(REST, retryAfter)));
  }

  /** The upstream has answered. */
  restore(id: string): void {
    this.#spent.delete(id);
  }

  /** The outcome, or null if it takes too long: whoever asks next does not wait at all, until it comes or another try is due. */
  async within<T>(id: string, running: Promise<T>): Promise<T | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(() => {
        this.#spent.set(id, this.#now() + REST);
        resolve(null);
      }, this.#wait);
    });
    try {
      return await Promise.race([running, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  clear(): void {
    this.#spent.clear();
  }
}
