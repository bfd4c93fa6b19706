import type { Counter, CounterStore } from '../access/counters.ts';
import { Mutex } from '../kit/async.ts';
import type { PostgresDatabase, Query } from './database.ts';
import { isAway } from './failures.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'counters';
/** Rows of processes that have added nothing for so long are removed, days: longer than any is cut off and lives. */
const WRITER_KEPT = 30;

interface Batch {
  readonly number: number;
  readonly deltas: readonly Counter[];
}

/**
 * Counters in PostgreSQL: a batch is one statement. Others find what was added when they look, within some seconds, and are not told at once: every
 * node adds all the time.
 */
export class PostgresCounterStore implements CounterStore {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;
  readonly #writer = crypto.randomUUID();
  readonly #mutex = new Mutex();
  #number = 0;
  /** Batches whose commit was asked for, and whose answer never came: the caller was told that nothing was added. */
  #unsure: readonly Batch[] = [];

  constructor(database: PostgresDatabase, feed: PostgresFeed) {
    this.#database = database;
    this.#feed = feed;
  }

  async load(periods: readonly string[]): Promise<Counter[]> {
    const { rows } = await this.#database.query<Counter>(
      'SELECT period, client, bytes FROM counters WHERE period = ANY ($1)',
      [periods],
    );
    return rows;
  }

  add(deltas: readonly Counter[]): Promise<Counter[]> {
    return this.#mutex.run(() => this.#add(deltas));
  }

  async #add(deltas: readonly Counter[]): Promise<Counter[]> {
    const batch = { number: ++this.#number, deltas };
    const unsure = this.#unsure;
    try {
      const totals = await this.#database.write({ by: this, topic: TOPIC, tell: false }, async (query) => {
        const undone = await this.#applied(query, unsure);
        await query(
          `INSERT INTO counter_writers (writer, batch) VALUES ($1, $2)
           ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, at = now()`,
          [this.#writer, batch.number],
        );
        const changes = [...deltas, ...undone.map((delta) => ({ ...delta, bytes: -delta.bytes }))];
        return { result: await addAll(query, changes), changed: true };
      });
      this.#unsure = this.#unsure.filter((one) => !unsure.includes(one));
      return deltas.map(({ period, client, bytes }) => ({
        period,
        client,
        bytes: totals.get(keyOf(period, client)) ?? bytes,
      }));
    } catch (error) {
      if (isAway(error)) this.#unsure = [...this.#unsure, batch];
      throw error;
    }
  }

  async keepOnly(periods: readonly string[]): Promise<void> {
    await this.#database.query('DELETE FROM counters WHERE period <> ALL ($1)', [periods]);
    await this.#database.query(`DELETE FROM counter_writers WHERE at < now() - interval '${WRITER_KEPT} days'`);
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }

  /** What the batches in question have added after all. Waits for a commit that is still on its way: it holds this row. */
  async #applied(query: Query, unsure: readonly Batch[]): Promise<readonly Counter[]> {
    if (unsure.length === 0) return [];
    const { rows } = await query<{ batch: number }>('SELECT batch FROM counter_writers WHERE writer = $1 FOR UPDATE', [
      this.#writer,
    ]);
    // Batches are added one after the other, and each leaves its number: of those in question the newest alone can be the one that stands there.
    const [last] = rows;
    return unsure.filter(({ number }) => number === last?.batch).flatMap(({ deltas }) => deltas);
  }
}

/** Adds in one order, so that two nodes do not wait for each other. @returns the totals by `keyOf` */
async function addAll(query: Query, changes: readonly Counter[]): Promise<Map<string, number>> {
  const sums = new Map<string, Counter>();
  for (const { period, client, bytes } of changes) {
    const before = sums.get(keyOf(period, client))?.bytes ?? 0;
    sums.set(keyOf(period, client), { period, client, bytes: before + bytes });
  }
  const sorted = [...sums].sort(([one], [other]) => (one < other ? -1 : 1)).map(([, delta]) => delta);
  const { rows } = await query<Counter>(
    `INSERT INTO counters (period, client, bytes)
     SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
     ON CONFLICT (period, client) DO UPDATE SET bytes = counters.bytes + excluded.bytes
     RETURNING period, client, bytes`,
    [sorted.map(({ period }) => period), sorted.map(({ client }) => client), sorted.map(({ bytes }) => bytes)],
  );
  return new Map(rows.map(({ period, client, bytes }) => [keyOf(period, client), bytes]));
}

function keyOf(period: string, client: string): string {
  return `${period}\n${client}`;
}
