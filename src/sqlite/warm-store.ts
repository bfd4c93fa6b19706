import type { KeptWarm, WarmRow, WarmRun, WarmStore } from '../images/warm-store.ts';
import { changeFeed, type Database, durable } from './database.ts';

const TOPIC = 'warm';

type RawRow = Omit<WarmRow, 'platforms' | 'referrers' | 'pin'> & {
  readonly platforms: string | null;
  readonly referrers: number;
  readonly pin: number;
};

const RUN_COLUMNS = `image, node, started_at AS startedAt, ended_at AS endedAt, error, retry_at AS retryAt, succeeded_at AS succeededAt, digest, bytes, fetched`;

/** What is kept at hand, in `gateway.db`. */
export class SqliteWarmStore implements WarmStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async load(): Promise<KeptWarm> {
    const rows = this.#database
      .prepare<[], RawRow>(
        'SELECT image, platforms, referrers, pin, schedule, created_at AS createdAt FROM warm_images ORDER BY image',
      )
      .all()
      .map(({ platforms, referrers, pin, ...row }) => ({
        ...row,
        platforms: platforms === null ? null : (JSON.parse(platforms) as string[]),
        referrers: referrers === 1,
        pin: pin === 1,
      }));
    const runs = this.#database.prepare<[], WarmRun>(`SELECT ${RUN_COLUMNS} FROM warm_runs ORDER BY image, node`).all();
    return { rows, runs };
  }

  async put({ platforms, referrers, pin, ...row }: WarmRow): Promise<void> {
    this.#database
      .prepare<[RawRow]>(
        `INSERT INTO warm_images (image, platforms, referrers, pin, schedule, created_at)
         VALUES (:image, :platforms, :referrers, :pin, :schedule, :createdAt)
         ON CONFLICT (image) DO UPDATE SET platforms = excluded.platforms, referrers = excluded.referrers, pin = excluded.pin,
           schedule = excluded.schedule, created_at = excluded.created_at`,
      )
      .run({
        ...row,
        platforms: platforms === null ? null : JSON.stringify(platforms),
        referrers: Number(referrers),
        pin: Number(pin),
      });
    await this.#published();
  }

  async remove(image: string): Promise<boolean> {
    if (this.#database.prepare('DELETE FROM warm_images WHERE image = ?').run(image).changes === 0) return false;
    await this.#published();
    return true;
  }

  async noteRun(run: WarmRun): Promise<void> {
    this.#database
      .prepare<[WarmRun]>(
        `INSERT OR REPLACE INTO warm_runs (image, node, started_at, ended_at, error, retry_at, succeeded_at, digest, bytes, fetched)
         SELECT :image, :node, :startedAt, :endedAt, :error, :retryAt, :succeededAt, :digest, :bytes, :fetched
         WHERE EXISTS (SELECT 1 FROM warm_images WHERE image = :image)`,
      )
      .run(run);
    await durable(this.#database);
  }

  watch(listener: () => void): () => void {
    return changeFeed(this.#database).watch(TOPIC, this, listener);
  }

  async #published(): Promise<void> {
    await durable(this.#database);
    changeFeed(this.#database).publish(TOPIC, this);
  }
}
