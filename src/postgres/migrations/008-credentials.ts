import type { Migration } from '../schema.ts';

/**
 * Credentials of a registry for some of its repositories (`repositories`: a list of patterns); `id` is what facts remember of them. By which credentials
 * an object was given: 1 is the registry's own.
 */
export const credentials: Migration = {
  name: 'several credentials a registry',
  sql: `
    CREATE TABLE registry_credentials (
      registry text NOT NULL REFERENCES registries (host) ON DELETE CASCADE,
      name text COLLATE "C" NOT NULL,
      id integer NOT NULL CHECK (id > 1),
      repositories jsonb NOT NULL CHECK (jsonb_array_length(repositories) > 0),
      username text NOT NULL,
      sealed_password text NOT NULL,
      PRIMARY KEY (registry, name),
      UNIQUE (registry, id)
    );
    ALTER TABLE object_givers ADD COLUMN credential integer NOT NULL DEFAULT 1;
  `,
};
