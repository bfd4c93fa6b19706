import { createHash } from 'node:crypto';
import { type ChallengeRow, challengeOf, challengeRow } from '../certs/challenge-row.ts';
import type { Challenge, Challenges } from '../certs/challenges.ts';
import type { Fence } from '../kit/locks.ts';
import type { Sealer } from '../kit/sealed.ts';
import type { PostgresDatabase } from './database.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'challenges';

/** Pending ACME challenges in PostgreSQL, sealed: the answer to tls-alpn-01 has a private key. */
export class PostgresChallenges implements Challenges {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;
  readonly #sealer: Sealer;

  constructor(database: PostgresDatabase, feed: PostgresFeed, sealer: Sealer) {
    this.#database = database;
    this.#feed = feed;
    this.#sealer = sealer;
  }

  put(challenge: Challenge, under?: Fence): Promise<void> {
    const { type, id, answer, expires_at: expiresAt } = challengeRow(challenge);
    return this.#database.write({ by: this, topic: TOPIC, under }, async (query) => {
      await query(
        `INSERT INTO acme_challenges (type, id, sealed_answer, sum, expires_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (type, id) DO UPDATE SET sealed_answer = excluded.sealed_answer, sum = excluded.sum,
           expires_at = excluded.expires_at`,
        [type, id, this.#sealer.seal(answer, answerOf(type, id)), sum(answer), expiresAt],
      );
      return { result: undefined, changed: true };
    });
  }

  remove(challenge: Challenge): Promise<void> {
    const { type, id, answer } = challengeRow(challenge);
    return this.#database.write({ by: this, topic: TOPIC }, async (query) => {
      const { rowCount } = await query('DELETE FROM acme_challenges WHERE type = $1 AND id = $2 AND sum = $3', [
        type,
        id,
        sum(answer),
      ]);
      return { result: undefined, changed: rowCount !== 0 };
    });
  }

  async list(now: number): Promise<Challenge[]> {
    const { rows } = await this.#database.query<ChallengeRow>(
      `WITH forgotten AS (DELETE FROM acme_challenges WHERE expires_at <= $1)
       SELECT type, id, sealed_answer AS answer, expires_at FROM acme_challenges WHERE expires_at > $1`,
      [now],
    );
    return rows.map((row) =>
      challengeOf({ ...row, answer: this.#sealer.open(row.answer, answerOf(row.type, row.id)) }),
    );
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }
}

/** Where an answer is sealed for: see `Sealer`. */
function answerOf(type: string, id: string): string {
  return `acme_challenges.sealed_answer ${type} ${id}`;
}

function sum(answer: string): Buffer {
  return createHash('sha256').update(answer).digest();
}
