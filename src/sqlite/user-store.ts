import type { KeptUsers, StoredUser, UserStore } from '../access/users.ts';
import { changeFeed, type Database, durable } from './database.ts';

const TOPIC = 'users';

interface Row {
  readonly name: string;
  readonly token_hash: Buffer;
  readonly created_at: string;
  readonly issued_at: string;
  readonly expires_at: string | null;
  readonly previous_hash: Buffer | null;
  readonly previous_until: string | null;
}

/** Users in `gateway.db`. */
export class SqliteUserStore implements UserStore {
  readonly #database: Database;
  readonly #insert: (row: Row) => boolean;
  readonly #use: (times: ReadonlyMap<string, string>) => void;

  constructor(database: Database) {
    this.#database = database;
    const user = database.prepare<[Row]>(`
      INSERT INTO users (name, token_hash, created_at, issued_at, expires_at, previous_hash, previous_until)
      VALUES (:name, :token_hash, :created_at, :issued_at, :expires_at, :previous_hash, :previous_until) ON CONFLICT DO NOTHING`);
    const first = database.prepare<[string]>(
      'INSERT INTO first_user (created_at) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM first_user)',
    );
    const insert = database.transaction((row: Row): boolean => {
      if (user.run(row).changes === 0) return false;
      first.run(row.created_at);
      return true;
    });
    this.#insert = (row) => insert.immediate(row);
    const use = database.prepare<[{ name: string; at: string }]>(
      "UPDATE users SET last_used_at = :at WHERE name = :name AND coalesce(last_used_at, '') < :at",
    );
    const uses = database.transaction((times: ReadonlyMap<string, string>): void => {
      for (const [name, at] of times) use.run({ name, at });
    });
    this.#use = (times) => uses.immediate(times);
  }

  async load(): Promise<KeptUsers> {
    const users = this.#database
      .prepare<[], Row>(
        'SELECT name, token_hash, created_at, issued_at, expires_at, previous_hash, previous_until FROM users',
      )
      .all()
      .map(fromRow);
    const everAdded = this.#database.prepare('SELECT 1 FROM first_user').get() !== undefined;
    return { users, everAdded };
  }

  async add(user: StoredUser): Promise<boolean> {
    return this.#published(this.#insert(toRow(user)));
  }

  async replace(user: StoredUser): Promise<boolean> {
    const update = this.#database.prepare<[Row]>(`
      UPDATE users SET token_hash = :token_hash, created_at = :created_at, issued_at = :issued_at, expires_at = :expires_at,
        previous_hash = :previous_hash, previous_until = :previous_until
      WHERE name = :name`);
    return this.#published(update.run(toRow(user)).changes === 1);
  }

  async remove(name: string): Promise<boolean> {
    return this.#published(this.#database.prepare('DELETE FROM users WHERE name = ?').run(name).changes === 1);
  }

  async lastUses(): Promise<Map<string, string>> {
    const rows = this.#database
      .prepare<[], { name: string; at: string }>(
        'SELECT name, last_used_at AS at FROM users WHERE last_used_at IS NOT NULL',
      )
      .all();
    return new Map(rows.map(({ name, at }) => [name, at]));
  }

  async noteUses(times: ReadonlyMap<string, string>): Promise<void> {
    this.#use(times);
    await durable(this.#database);
  }

  watch(listener: () => void): () => void {
    return changeFeed(this.#database).watch(TOPIC, this, listener);
  }

  async #published(changed: boolean): Promise<boolean> {
    if (!changed) return false;
    await durable(this.#database);
    changeFeed(this.#database).publish(TOPIC, this);
    return true;
  }
}

function toRow({ name, tokenHash, createdAt, issuedAt, expiresAt, previous }: StoredUser): Row {
  return {
    name,
    token_hash: Buffer.from(tokenHash),
    created_at: createdAt,
    issued_at: issuedAt,
    expires_at: expiresAt,
    previous_hash: previous === null ? null : Buffer.from(previous.tokenHash),
    previous_until: previous?.until ?? null,
  };
}

function fromRow(row: Row): StoredUser {
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
