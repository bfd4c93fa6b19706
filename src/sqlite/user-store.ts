import type { StoredUser, UserStore } from '../access/users.ts';
import { changeFeed, type Database, durable } from './database.ts';

const TOPIC = 'users';

/** Users in `gateway.db`. */
export class SqliteUserStore implements UserStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async load(): Promise<StoredUser[]> {
    return this.#database
      .prepare<[], { name: string; token_hash: Buffer; created_at: string }>('SELECT * FROM users')
      .all()
      .map((row) => ({ name: row.name, tokenHash: new Uint8Array(row.token_hash), createdAt: row.created_at }));
  }

  async add({ name, tokenHash, createdAt }: StoredUser): Promise<boolean> {
    const insert = 'INSERT INTO users (name, token_hash, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING';
    return this.#published(this.#database.prepare(insert).run(name, Buffer.from(tokenHash), createdAt).changes === 1);
  }

  async remove(name: string): Promise<boolean> {
    return this.#published(this.#database.prepare('DELETE FROM users WHERE name = ?').run(name).changes === 1);
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
