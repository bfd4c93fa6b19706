import type { UserRow, UserStore } from '../access/users.ts';
import type { Database } from './database.ts';

/** Users in `gateway.db`. */
export class SqliteUserStore implements UserStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  load(): UserRow[] {
    return this.#database
      .prepare<[], { name: string; token_hash: Buffer; created_at: string }>('SELECT * FROM users')
      .all()
      .map((row) => ({ name: row.name, tokenHash: new Uint8Array(row.token_hash), createdAt: row.created_at }));
  }

  add({ name, tokenHash, createdAt }: UserRow): boolean {
    const insert = 'INSERT INTO users (name, token_hash, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING';
    return this.#database.prepare(insert).run(name, Buffer.from(tokenHash), createdAt).changes === 1;
  }

  remove(name: string): boolean {
    return this.#database.prepare('DELETE FROM users WHERE name = ?').run(name).changes === 1;
  }
}
