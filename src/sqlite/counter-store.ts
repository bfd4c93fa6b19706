import type { Counter, CounterStore } from '../access/quotas.ts';
import type { Database } from './database.ts';

/** Counters of the limits in `gateway.db`. */
export class SqliteCounterStore implements CounterStore {
  readonly #database: Database;
  readonly #save: (counters: readonly Counter[], keep: readonly string[]) => void;

  constructor(database: Database) {
    this.#database = database;
    const put = database.prepare(`
      INSERT INTO counters (period, client, bytes) VALUES (:period, :client, :bytes)
      ON CONFLICT (period, client) DO UPDATE SET bytes = excluded.bytes`);
    const forget = database.prepare('DELETE FROM counters WHERE period NOT IN (SELECT value FROM json_each(?))');
    const transaction = database.transaction((counters: readonly Counter[], keep: readonly string[]) => {
      for (const counter of counters) put.run(counter);
      forget.run(JSON.stringify(keep));
    });
    this.#save = (counters, keep) => transaction.immediate(counters, keep);
  }

  load(periods: readonly string[]): Counter[] {
    return this.#database
      .prepare<[string], Counter>(
        'SELECT period, client, bytes FROM counters WHERE period IN (SELECT value FROM json_each(?))',
      )
      .all(JSON.stringify(periods));
  }

  save(counters: readonly Counter[], keep: readonly string[]): void {
    this.#save(counters, keep);
  }
}
