import type { Counter, CounterStore } from '../../src/access/counters.ts';
import type { KeptUsers, StoredUser, UserStore } from '../../src/access/users.ts';
import { SharedBacking } from './store-harness.ts';

class UserBacking extends SharedBacking {
  readonly rows = new Map<string, StoredUser>();
  readonly uses = new Map<string, string>();
  everAdded = false;
}

export class MemoryUserStore implements UserStore {
  readonly #backing: UserBacking;

  constructor(backing = new UserBacking()) {
    this.#backing = backing;
  }

  another(): MemoryUserStore {
    return new MemoryUserStore(this.#backing);
  }

  async load(): Promise<KeptUsers> {
    return { users: [...this.#backing.rows.values()], everAdded: this.#backing.everAdded };
  }

  async add(row: StoredUser): Promise<boolean> {
    if (this.#backing.rows.has(row.name)) return false;
    this.#backing.rows.set(row.name, row);
    this.#backing.everAdded = true;
    this.#backing.changedBy(this);
    return true;
  }

  async replace(row: StoredUser): Promise<boolean> {
    if (!this.#backing.rows.has(row.name)) return false;
    this.#backing.rows.set(row.name, row);
    this.#backing.changedBy(this);
    return true;
  }

  async remove(name: string): Promise<boolean> {
    const removed = this.#backing.rows.delete(name);
    this.#backing.uses.delete(name);
    if (removed) this.#backing.changedBy(this);
    return removed;
  }

  async lastUses(): Promise<ReadonlyMap<string, string>> {
    return new Map(this.#backing.uses);
  }

  async noteUses(times: ReadonlyMap<string, string>): Promise<void> {
    for (const [name, at] of times) {
      if (this.#backing.rows.has(name) && at > (this.#backing.uses.get(name) ?? '')) this.#backing.uses.set(name, at);
    }
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
