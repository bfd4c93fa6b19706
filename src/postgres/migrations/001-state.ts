import type { Migration } from '../schema.ts';

/**
 * What the nodes of a fleet must agree on. `revisions` has a row a topic, which grows with each change of it: `NOTIFY` says so, and a poll reads all
 * of them at once. `locks` are leases by the clock of the database: the row of a name stays for a while after its holder is gone, since `fence` must
 * grow. Columns whose name begins with `sealed_` are encrypted.
 */
export const state: Migration = {
  name: 'what nodes agree on',
  sql: `
    CREATE TABLE fleet (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), identity text NOT NULL CHECK (length(identity) = 16));
    INSERT INTO fleet (identity) VALUES (substr(replace(gen_random_uuid()::text, '-', ''), 1, 16));

    CREATE TABLE revisions (topic text PRIMARY KEY, revision bigint NOT NULL);
    INSERT INTO revisions VALUES ('aliases', 0), ('certificates', 0), ('challenges', 0), ('users', 0), ('counters', 0);

    CREATE SEQUENCE lock_fences;
    CREATE TABLE locks (
      name text PRIMARY KEY,
      fence bigint NOT NULL,
      holder text,
      note text,
      expires_at timestamptz NOT NULL,
      waited_for boolean NOT NULL DEFAULT false
    );
    CREATE INDEX locks_by_end ON locks (expires_at);

    CREATE TABLE registries (
      host text PRIMARY KEY,
      endpoints jsonb NOT NULL CHECK (jsonb_array_length(endpoints) > 0),
      sealed_proxy text,
      username text,
      sealed_password text,
      public boolean NOT NULL,
      realms jsonb NOT NULL,
      ca text,
      CHECK ((username IS NULL) = (sealed_password IS NULL))
    );
    CREATE TABLE aliases (
      name text PRIMARY KEY,
      registry text NOT NULL REFERENCES registries (host),
      certificate boolean NOT NULL
    );
    CREATE INDEX aliases_registry ON aliases (registry);
    CREATE TABLE alias_table (only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), version bigint NOT NULL);
    INSERT INTO alias_table (version) VALUES (0);
  `,
};
