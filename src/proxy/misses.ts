import type { RegistryError } from '../oci/errors.ts';
import { isMissing } from './access.ts';
import { Lru } from './lru.ts';

/** Long enough for the burst of nodes that all want the same missing image, short enough for the person who then pushes it. */
export const MISS_TTL = 5_000;
const MISSES_KEPT = 4096;

/** What an upstream did not have a moment ago. Only 404 is remembered: 401, 403 and 429 may change with the next request. */
export class Misses {
  readonly #now: () => number;
  readonly #misses = new Lru<{ readonly error: RegistryError; readonly until: number }>(MISSES_KEPT);

  constructor(now: () => number) {
    this.#now = now;
  }

  /** @throws the error of the first asker. */
  check(key: string): void {
    const miss = this.#misses.get(key);
    if (miss === undefined) return;
    if (miss.until > this.#now()) throw miss.error;
    this.#misses.delete(key);
  }

  note(key: string, error: unknown): void {
    if (isMissing(error)) this.#misses.set(key, { error, until: this.#now() + MISS_TTL });
  }

  clear(): void {
    this.#misses.clear();
  }
}
