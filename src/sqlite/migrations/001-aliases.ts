import type { Migration } from '../database.ts';

/** The alias table. `endpoints` is a JSON list of URLs in the order they are tried; `table_state` has its row once the table was filled. */
export const aliases: Migration = {
  name: 'aliases',
  sql: `
    CREATE TABLE registries (
      host TEXT PRIMARY KEY,
      endpoints TEXT NOT NULL CHECK (json_array_length(endpoints) > 0),
      proxy TEXT,
      username TEXT,
      password TEXT,
      public INTEGER NOT NULL DEFAULT 0 CHECK (public IN (0, 1)),
      CHECK ((username IS NULL) = (password IS NULL))
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE aliases (
      name TEXT PRIMARY KEY,
      registry TEXT NOT NULL REFERENCES registries (host),
      certificate INTEGER NOT NULL DEFAULT 1 CHECK (certificate IN (0, 1))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX aliases_registry ON aliases (registry);
    CREATE TABLE table_state (filled INTEGER PRIMARY KEY CHECK (filled = 1)) STRICT;
  `,
};
