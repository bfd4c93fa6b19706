import type { KeptWarm, WarmRow, WarmRun, WarmStore } from '../images/warm-store.ts';
import type { PostgresDatabase, Query } from './database.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'warm';

/** What is kept at hand, in PostgreSQL. */
export class PostgresWarmStore implements WarmStore {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;

  constructor(database: PostgresDatabase, feed: PostgresFeed) {
    this.#database = database;
    this.#feed = feed;
  }

  load(): Promise<KeptWarm> {
    return this.#database.read((query) => readWarm(query));
  }

  put({ image, platforms, referrers, pin, schedule, createdAt }: WarmRow): Promise<void> {
    return this.#database.write({ by: this, topic: TOPIC }, async (query) => {
      await query(
        `INSERT INTO warm_images (image, platforms, referrers, pin, schedule, created_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (image) DO UPDATE SET platforms = excluded.platforms, referrers = excluded.referrers, pin = excluded.pin,
           schedule = excluded.schedule, created_at = excluded.created_at`,
        [image, platforms === null ? null : JSON.stringify(platforms), referrers, pin, schedule, createdAt],
      );
      return { result: undefined, changed: true };
    });
  }

  remove(image: string): Promise<boolean> {
    return this.#database.write({ by: this, topic: TOPIC }, async (query) => {
      const changed = (await query('DELETE FROM warm_images WHERE image = $1', [image])).rowCount !== 0;
      return { result: changed, changed };
    });
  }

  noteRun(run: WarmRun): Promise<void> {
    const { image, node, startedAt, endedAt, error, retryAt, succeededAt, digest, bytes, fetched } = run;
    return this.#database.write({ by: this, topic: null }, async (query) => {
      // The row is held, so that it is not taken away between the question and the answer.
      const { rowCount } = await query('SELECT 1 FROM warm_images WHERE image = $1 FOR KEY SHARE', [image]);
      if (rowCount === 0) return { result: undefined, changed: false };
      await query(
        `INSERT INTO warm_runs (image, node, started_at, ended_at, error, retry_at, succeeded_at, digest, bytes, fetched)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (image, node) DO UPDATE SET started_at = excluded.started_at, ended_at = excluded.ended_at, error = excluded.error,
           retry_at = excluded.retry_at, succeeded_at = excluded.succeeded_at, digest = excluded.digest, bytes = excluded.bytes,
           fetched = excluded.fetched`,
        [image, node, startedAt, endedAt, error, retryAt, succeededAt, digest, bytes, fetched],
      );
      return { result: undefined, changed: true };
    });
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }
}

/** All of it, as it is at one moment. */
export async function readWarm(query: Query): Promise<KeptWarm> {
  const { rows } = await query<WarmRow>(
    'SELECT image, platforms, referrers, pin, schedule, created_at AS "createdAt" FROM warm_images ORDER BY image COLLATE "C"',
  );
  const runs = await query<WarmRun>(
    `SELECT image, node, started_at AS "startedAt", ended_at AS "endedAt", error, retry_at AS "retryAt", succeeded_at AS "succeededAt",
       digest, bytes, fetched
     FROM warm_runs ORDER BY image COLLATE "C", node COLLATE "C"`,
  );
  return { rows, runs: runs.rows };
}
