import type { KeptUsers, StoredUser, UserStore } from '../access/users.ts';
import type { PostgresDatabase, Query } from './database.ts';
import type { PostgresFeed } from './feed.ts';

const TOPIC = 'users';

export interface UserRow {
  readonly name: string;
  readonly token_hash: Buffer;
  readonly created_at: string;
  readonly issued_at: string;
  readonly expires_at: string | null;
  readonly previous_hash: Buffer | null;
  readonly previous_until: string | null;
}

/** Users in PostgreSQL. */
export class PostgresUserStore implements UserStore {
  readonly #database: PostgresDatabase;
  readonly #feed: PostgresFeed;

  constructor(database: PostgresDatabase, feed: PostgresFeed) {
    this.#database = database;
    this.#feed = feed;
  }

  load(): Promise<KeptUsers> {
    return this.#database.read(async (query) => {
      const users = await query<UserRow>(
        'SELECT name, token_hash, created_at, issued_at, expires_at, previous_hash, previous_until FROM users',
      );
      const first = await query('SELECT 1 FROM first_user');
      return { users: users.rows.map(toUser), everAdded: first.rowCount !== 0 };
    });
  }

  add(user: StoredUser): Promise<boolean> {
    return this.#change(async (query) => {
      const { rowCount } = await query(
        `INSERT INTO users (name, token_hash, created_at, issued_at, expires_at, previous_hash, previous_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
        valuesOf(user),
      );
      if (rowCount === 0) return false;
      await query('INSERT INTO first_user (created_at) VALUES ($1) ON CONFLICT DO NOTHING', [user.createdAt]);
      return true;
    });
  }

  replace(user: StoredUser): Promise<boolean> {
    return this.#change(async (query) => {
      const { rowCount } = await query(
        `UPDATE users SET token_hash = $2, created_at = $3, issued_at = $4, expires_at = $5, previous_hash = $6, previous_until = $7
         WHERE name = $1`,
        valuesOf(user),
      );
      return rowCount !== 0;
    });
  }

  remove(name: string): Promise<boolean> {
    return this.#change(async (query) => (await query('DELETE FROM users WHERE name = $1', [name])).rowCount !== 0);
  }

  async lastUses(): Promise<Map<string, string>> {
    const { rows } = await this.#database.query<{ name: string; at: string }>(
      'SELECT name, last_used_at AS at FROM users WHERE last_used_at IS NOT NULL',
    );
    return new Map(rows.map(({ name, at }) => [name, at]));
  }

  async noteUses(times: ReadonlyMap<string, string>): Promise<void> {
    // In one order, so that two nodes do not wait for each other.
    const sorted = [...times].sort(([one], [other]) => (one < other ? -1 : 1));
    await this.#database.write({ by: this, topic: null }, async (query) => {
      await query('SELECT 1 FROM users WHERE name = ANY ($1) ORDER BY name FOR UPDATE', [sorted.map(([name]) => name)]);
      await query(
        `UPDATE users SET last_used_at = used.at FROM unnest($1::text[], $2::text[]) AS used (name, at)
         WHERE users.name = used.name AND coalesce(users.last_used_at, '') < used.at`,
        [sorted.map(([name]) => name), sorted.map(([, at]) => at)],
      );
      return { result: undefined, changed: true };
    });
  }

  watch(listener: () => void): () => void {
    return this.#feed.watch(TOPIC, this, listener);
  }

  /** @param work whether it has changed anything */
  #change(work: (query: Query) => Promise<boolean>): Promise<boolean> {
    return this.#database.write({ by: this, topic: TOPIC }, async (query) => {
      const changed = await work(query);
      return { result: changed, changed };
    });
  }
}

function valuesOf({ name, tokenHash, createdAt, issuedAt, expiresAt, previous }: StoredUser): unknown[] {
  const hash = previous === null ? null : Buffer.from(previous.tokenHash);
  return [name, Buffer.from(tokenHash), createdAt, issuedAt, expiresAt, hash, previous?.until ?? null];
}

export function toUser(row: UserRow): StoredUser {
  const { previous_hash: hash, previous_until: until } = row;
  return {
    name: row.name,
    tokenHash: new Uint8Array(row.token_hash),
    createdAt: row.created_at,
    issuedAt: row.issued_at,
    expiresAt: row.expires_at,
    previous: hash === null || until === null ? null : { tokenHash: new Uint8Array(hash), until },
  };
}
