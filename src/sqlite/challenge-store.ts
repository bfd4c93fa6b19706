import type { AlpnChallenge, Challenge, Challenges, DnsChallenge } from '../certs/challenges.ts';
import type { Fence } from '../kit/locks.ts';
import { type ChangeFeed, changeFeed, type Database, durable } from './database.ts';
import { checkFence } from './locks.ts';

const TOPIC = 'challenges';

interface Row {
  readonly type: Challenge['type'];
  readonly id: string;
  readonly answer: string;
  readonly expires_at: number;
}

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
      .run(toRow(challenge));
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async remove(challenge: Challenge): Promise<void> {
    const { changes } = this.#database
      .prepare('DELETE FROM acme_challenges WHERE type = :type AND id = :id AND answer = :answer')
      .run(toRow(challenge));
    if (changes === 0) return;
    await durable(this.#database);
    this.#feed.publish(TOPIC, this);
  }

  async list(now: number): Promise<Challenge[]> {
    this.#database.prepare('DELETE FROM acme_challenges WHERE expires_at <= ?').run(now);
    return this.#database.prepare<[], Row>('SELECT * FROM acme_challenges').all().map(fromRow);
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }
}

function toRow(challenge: Challenge): Row {
  const { type, expiresAt } = challenge;
  switch (type) {
    case 'http-01':
      return { type, id: challenge.token, answer: challenge.keyAuthorization, expires_at: expiresAt };
    case 'tls-alpn-01': {
      const { host, chain, key } = challenge;
      return { type, id: host, answer: JSON.stringify({ chain, key }), expires_at: expiresAt };
    }
    case 'dns-01': {
      const { host, zone, name, value } = challenge;
      return { type, id: `${name} ${value}`, answer: JSON.stringify({ host, zone }), expires_at: expiresAt };
    }
  }
}

function fromRow({ type, id, answer, expires_at: expiresAt }: Row): Challenge {
  switch (type) {
    case 'http-01':
      return { type, token: id, keyAuthorization: answer, expiresAt };
    case 'tls-alpn-01':
      return { type, host: id, ...(JSON.parse(answer) as Pick<AlpnChallenge, 'chain' | 'key'>), expiresAt };
    case 'dns-01': {
      const space = id.indexOf(' ');
      const { host, zone } = JSON.parse(answer) as Pick<DnsChallenge, 'host' | 'zone'>;
      return { type, host, zone, name: id.slice(0, space), value: id.slice(space + 1), expiresAt };
    }
  }
}
