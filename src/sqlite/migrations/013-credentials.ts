import type { Migration } from '../database.ts';

/**
 * Credentials of a registry for some of its repositories (`repositories`: a JSON list of patterns); `id` is what facts remember of them. By which
 * credentials an object of a shared store was given: 1 is the registry's own.
 */
export const credentials: Migration = {
  name: 'several credentials a registry',
  sql: `
    CREATE TABLE registry_credentials (
      registry TEXT NOT NULL REFERENCES registries (host) ON DELETE CASCADE,
      name TEXT NOT NULL,
      id INTEGER NOT NULL CHECK (id > 1),
      repositories TEXT NOT NULL CHECK (json_array_length(repositories) > 0),
      username TEXT NOT NULL,
      password TEXT NOT NULL,
      PRIMARY KEY (registry, name),
      UNIQUE (registry, id)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE object_givers ADD COLUMN credential INTEGER NOT NULL DEFAULT 1;
  `,
};
