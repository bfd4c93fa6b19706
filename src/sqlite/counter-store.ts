import type { Counter, CounterStore } from '../access/quotas.ts';
import { changeFeed, type Database, durable } from './database.ts';

const TOPIC = 'counters';

/** Counters of the limits in `gateway.db`. */
export class SqliteCounterStore implements CounterStore {
  readonly #database: Database;
  readonly #add: (deltas: readonly Counter[], keep: readonly string[]) => Counter[];

  constructor(database: Database) {
    this.#database = database;
    const add = database
      .prepare<[Counter], number>(`
        INSERT INTO counters (period, client, bytes) VALUES (:period, :client, :bytes)
        ON CONFLICT (period, client) DO UPDATE SET bytes = bytes + excluded.bytes RETURNING bytes`)
      .pluck();
    const forget = database.prepare('DELETE FROM counters WHERE period NOT IN (SELECT value FROM json_each(?))');
    const transaction = database.transaction((deltas: readonly Counter[], keep: readonly string[]): Counter[] => {
      const totals = deltas.map((delta) => ({ ...delta, bytes: add.get(delta) ?? delta.bytes }));
      forget.run(JSON.stringify(keep));
      return totals;
    });
    this.#add = (deltas, keep) => transaction.immediate(deltas, keep);
  }

  async load(periods: readonly string[]): Promise<Counter[]> {
    return this.#database
      .prepare<[string], Counter>(
        'SELECT period, client, bytes FROM counters WHERE period IN (SELECT value FROM json_each(?))',
      )
      .all(JSON.stringify(periods));
  }

  async add(deltas: readonly Counter[], keep: readonly string[]): Promise<Counter[]> {
    const totals = this.#add(deltas, keep);
    await durable(this.#database);
    changeFeed(this.#database).publish(TOPIC, this);
    return totals;
  }

  watch(listener: () => void): () => void {
    return changeFeed(this.#database).watch(TOPIC, this, listener);
  }
}
