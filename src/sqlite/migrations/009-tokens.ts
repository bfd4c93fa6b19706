import type { Migration } from '../database.ts';

/**
 * Tokens that expire and are replaced, and when each user was last seen. `issued_at` is when the present token was made; the one before it
 * works until `previous_until`. Times are ISO 8601. `first_user` has one row once a user was ever made, and keeps it when the last is removed.
 */
export const tokens: Migration = {
  name: 'expiry, rotation and last use of tokens; whether there ever was a user',
  sql: `
    ALTER TABLE users ADD COLUMN issued_at TEXT NOT NULL DEFAULT '';
    UPDATE users SET issued_at = created_at;
    ALTER TABLE users ADD COLUMN expires_at TEXT;
    ALTER TABLE users ADD COLUMN previous_hash BLOB CHECK (length(previous_hash) = 32);
    ALTER TABLE users ADD COLUMN previous_until TEXT;
    ALTER TABLE users ADD COLUMN last_used_at TEXT;
    CREATE TABLE first_user (created_at TEXT NOT NULL) STRICT;
    INSERT INTO first_user (created_at) SELECT min(created_at) FROM users HAVING count(*) > 0;
  `,
};
