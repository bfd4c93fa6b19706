import type { Counter, CounterStore } from '../../src/access/quotas.ts';
import type { UserRow, UserStore } from '../../src/access/users.ts';

export class MemoryUserStore implements UserStore {
  readonly #rows = new Map<string, UserRow>();

  load(): UserRow[] {
    return [...this.#rows.values()];
  }

  add(row: UserRow): boolean {
    if (this.#rows.has(row.name)) return false;
    this.#rows.set(row.name, row);
    return true;
  }

  remove(name: string): boolean {
    return this.#rows.delete(name);
  }
}

export class MemoryCounterStore implements CounterStore {
  #counters: Counter[] = [];

  load(periods: readonly string[]): Counter[] {
    return this.#counters.filter((one) => periods.includes(one.period));
  }

  save(counters: readonly Counter[], keep: readonly string[]): void {
    const given = new Set(counters.map((one) => `${one.period} ${one.client}`));
    const others = this.#counters.filter((one) => !given.has(`${one.period} ${one.client}`));
    this.#counters = [...others, ...counters].filter((one) => keep.includes(one.period));
  }
}
