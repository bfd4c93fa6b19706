import type { Migration } from '../schema.ts';

/**
 * Clients' credentials and the counters of the limits. A hash is the SHA-256 of a random token, which tells nothing of it; times of users are ISO 8601.
 * `first_user` has its row once a user was ever made. `counter_writers` has the last batch that each process has added, by which one whose outcome was
 * not heard is known.
 */
export const access: Migration = {
  name: 'users and counters',
  sql: `
    CREATE TABLE users (
      name text PRIMARY KEY,
      token_hash bytea NOT NULL CHECK (length(token_hash) = 32),
      created_at text NOT NULL,
      issued_at text NOT NULL,
      expires_at text,
      previous_hash bytea CHECK (length(previous_hash) = 32),
      previous_until text,
      last_used_at text
    );
    CREATE TABLE first_user (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), created_at text NOT NULL);
    CREATE TABLE counters (
      period text NOT NULL,
      client text NOT NULL,
      bytes bigint NOT NULL,
      PRIMARY KEY (period, client)
    );
    CREATE TABLE counter_writers (
      writer uuid PRIMARY KEY,
      batch bigint NOT NULL,
      at timestamptz NOT NULL DEFAULT now()
    );
  `,
};
