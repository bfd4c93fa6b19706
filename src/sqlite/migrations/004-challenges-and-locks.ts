import type { Migration } from '../database.ts';

/**
 * Answers to ACME challenges while a CA may ask for them, with an end in epoch milliseconds: `id` is the token of http-01 or the host of
 * tls-alpn-01, `answer` the key authorization or the certificate and key as JSON. `lock_fence` has one row, the highest fencing number
 * that was given out or reserved.
 */
export const challengesAndLocks: Migration = {
  name: 'challenges and locks',
  sql: `
    CREATE TABLE acme_challenges (
      type TEXT NOT NULL CHECK (type IN ('http-01', 'tls-alpn-01')),
      id TEXT NOT NULL,
      answer TEXT NOT NULL,
      expires_at INTEGER NOT NULL,
      PRIMARY KEY (type, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE lock_fence (reserved INTEGER NOT NULL) STRICT;
    INSERT INTO lock_fence (reserved) VALUES (0);
  `,
};
