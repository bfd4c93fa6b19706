import type { Counter, CounterStore } from '../access/counters.ts';
import { changeFeed, type Database, durable } from './database.ts';

const TOPIC = 'counters';

/** Counters of the limits in `gateway.db`. */
export class SqliteCounterStore implements CounterStore {
  readonly #database: Database;
  readonly #add: (deltas: readonly Counter[]) => Counter[];

  constructor(database: Database) {
    this.#database = database;
    const add = database
      .prepare<[Counter], number>(`
        INSERT INTO counters (period, client, bytes) VALUES (:period, :client, :bytes)
        ON CONFLICT (period, client) DO UPDATE SET bytes = bytes + excluded.bytes RETURNING bytes`)
      .pluck();
    const transaction = database.transaction((deltas: readonly Counter[]): Counter[] =>
      deltas.map((delta) => ({ ...delta, bytes: add.get(delta) ?? delta.bytes })),
    );
    this.#add = (deltas) => transaction.immediate(deltas);
  }

  async load(periods: readonly string[]): Promise<Counter[]> {
    return this.#database
      .prepare<[string], Counter>(
        'SELECT period, client, bytes FROM counters WHERE period IN (SELECT value FROM json_each(?))',
      )
      .all(JSON.stringify(periods));
  }

  async add(deltas: readonly Counter[]): Promise<Counter[]> {
    const totals = this.#add(deltas);
    await durable(this.#database);
    changeFeed(this.#database).publish(TOPIC, this);
    return totals;
  }

  async keepOnly(periods: readonly string[]): Promise<void> {
    this.#database
      .prepare('DELETE FROM counters WHERE period NOT IN (SELECT value FROM json_each(?))')
      .run(JSON.stringify(periods));
    await durable(this.#database);
  }

  watch(listener: () => void): () => void {
    return changeFeed(this.#database).watch(TOPIC, this, listener);
  }
}
