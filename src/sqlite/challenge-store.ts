import { type ChallengeRow, challengeOf, challengeRow } from '../certs/challenge-row.ts';
import type { Challenge, Challenges } from '../certs/challenges.ts';
import type { Fence } from '../kit/locks.ts';
import { type ChangeFeed, changeFeed, type Database, durable } from './database.ts';
import { checkFence } from './locks.ts';

const TOPIC = 'challenges';

/** Pending ACME challenges in `gateway.db`. */
export class SqliteChallenges implements Challenges {
  readonly #database: Database;
  readonly #feed: ChangeFeed;

  constructor(database: Database) {
    this.#database = database;
    this.#feed = changeFeed(database);
  }

  async put(challenge: Challenge, under?: Fence): Promise<void> {
    checkFence(this.#database, under);
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO acme_challenges (type, id, answer, expires_at)
         VALUES (:type, :id, :answer, :expires_at)`,
      )
      .run(challengeRow(challenge));
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async remove(challenge: Challenge): Promise<void> {
    const { changes } = this.#database
      .prepare('DELETE FROM acme_challenges WHERE type = :type AND id = :id AND answer = :answer')
      .run(challengeRow(challenge));
    if (changes === 0) return;
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async list(now: number): Promise<Challenge[]> {
    this.#database.prepare('DELETE FROM acme_challenges WHERE expires_at <= ?').run(now);
    return this.#database.prepare<[], ChallengeRow>('SELECT * FROM acme_challenges').all().map(challengeOf);
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }
}
