import type { Counter, CounterStore } from '../../src/access/counters.ts';
import type { StoredUser, UserStore } from '../../src/access/users.ts';
import { SharedBacking } from './store-harness.ts';

class UserBacking extends SharedBacking {
  readonly rows = new Map<string, StoredUser>();
}

export class MemoryUserStore implements UserStore {
  readonly #backing: UserBacking;

  constructor(backing = new UserBacking()) {
    this.#backing = backing;
  }

  another(): MemoryUserStore {
    return new MemoryUserStore(this.#backing);
  }

  async load(): Promise<StoredUser[]> {
    return [...this.#backing.rows.values()];
  }

  async add(row: StoredUser): Promise<boolean> {
    if (this.#backing.rows.has(row.name)) return false;
    this.#backing.rows.set(row.name, row);
    this.#backing.changedBy(this);
    return true;
  }

  async remove(name: string): Promise<boolean> {
    const removed = this.#backing.rows.delete(name);
    if (removed) this.#backing.changedBy(this);
    return removed;
  }

  watch(listener: () => void): () => void {
    return this.#backing.watch(this, listener);
  }
}

class CounterBacking extends SharedBacking {
  counters = new Map<string, Counter>();
}

export class MemoryCounterStore implements CounterStore {
  readonly #backing: CounterBacking;

  constructor(backing = new CounterBacking()) {
    this.#backing = backing;
  }

  another(): MemoryCounterStore {
    return new MemoryCounterStore(this.#backing);
  }

  async load(periods: readonly string[]): Promise<Counter[]> {
    return [...this.#backing.counters.values()].filter((one) => periods.includes(one.period));
  }

  async add(deltas: readonly Counter[]): Promise<Counter[]> {
    const totals = deltas.map((delta) => {
      const key = `${delta.period} ${delta.client}`;
      const total = { ...delta, bytes: (this.#backing.counters.get(key)?.bytes ?? 0) + delta.bytes };
      this.#backing.counters.set(key, total);
      return total;
    });
    this.#backing.changedBy(this);
    return totals;
  }

  async keepOnly(periods: readonly string[]): Promise<void> {
    for (const [key, { period }] of this.#backing.counters) {
      if (!periods.includes(period)) this.#backing.counters.delete(key);
    }
  }

  watch(listener: () => void): () => void {
    return this.#backing.watch(this, listener);
  }
}
