import type { PinIndex, PinRow } from '../../src/cache/index-port.ts';

/** The pins of the index in memory. */
export class MemoryPins implements PinIndex {
  readonly #rows = new Map<string, PinRow>();

  all(): PinRow[] {
    return [...this.#rows.values()].sort((one, other) => (one.id < other.id ? -1 : 1));
  }

  put(row: PinRow): void {
    this.#rows.set(row.id, row);
  }

  remove(id: string): void {
    this.#rows.delete(id);
  }
}
