import type { TableSnapshot } from '../aliases/table.ts';
import { type Address, type PullRoute, resolvePull } from './target.ts';

/** Routes remembered: what a few thousand nodes pull at a time is far less. */
const MAX_ROUTES = 2_048;
/** Longest path and query that are worth remembering. */
const MAX_LENGTH = 512;

/** Where pulls lead, remembered: the same images are asked for again and again, and nothing but the table changes where they lead. */
export class Routes {
  readonly #table: () => TableSnapshot;
  readonly #found = new Map<string, PullRoute | null>();
  #of: TableSnapshot | null = null;

  constructor(table: () => TableSnapshot) {
    this.#table = table;
  }

  /** As `resolvePull`; what it throws is not remembered. @throws {RegistryError} */
  resolve(address: Address): PullRoute | null {
    const table = this.#table();
    if (table !== this.#of) {
      this.#found.clear();
      this.#of = table;
    }
    // The first space and the first question mark part them: a host has no space, and a path no question mark.
    const key = `${address.host} ${address.path}?${address.query}`;
    const found = this.#found.get(key);
    if (found !== undefined) return found;
    const route = resolvePull(address, table);
    if (key.length <= MAX_LENGTH) {
      if (this.#found.size >= MAX_ROUTES) this.#found.clear();
      this.#found.set(key, route);
    }
    return route;
  }
}
