import type { Migration } from '../database.ts';

/**
 * Clients' credentials and the counters of the limits. `token_hash` is the SHA-256 of a random token. A counter's `period` names
 * the day (`2026-11-22`) or month (`2026-11`) in UTC; its `client` is `*` for all clients together.
 */
export const access: Migration = {
  name: 'users and counters',
  sql: `
    CREATE TABLE users (
      name TEXT PRIMARY KEY,
      token_hash BLOB NOT NULL CHECK (length(token_hash) = 32),
      created_at TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE counters (
      period TEXT NOT NULL,
      client TEXT NOT NULL,
      bytes INTEGER NOT NULL,
      PRIMARY KEY (period, client)
    ) STRICT, WITHOUT ROWID;
  `,
};
