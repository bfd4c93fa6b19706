import type { Migration } from '../database.ts';

/** What the gateway calls itself in `Via`, so that it knows a request that comes back to it: one row, random, made once. */
export const identity: Migration = {
  name: 'the identity of the gateway',
  sql: `
    CREATE TABLE identity (id TEXT NOT NULL CHECK (length(id) = 16)) STRICT;
    INSERT INTO identity (id) VALUES (lower(hex(randomblob(8))));
  `,
};
