import type { Migration } from '../schema.ts';

/**
 * The gateways of a fleet, and the secrets that they share. A node is `live` from its first heartbeat until another finds that `beat_at` is too long
 * ago; `taken` has the revision of each topic that it serves by; `key_ids` are those of the keys that it can open;
 * its certificate is the one it shows to other nodes. `made_at` is the age of a secret.
 */
export const nodes: Migration = {
  name: 'nodes, and the secrets that they share',
  sql: `
    CREATE TABLE nodes (
      id text PRIMARY KEY CHECK (length(id) = 16),
      address text,
      version text NOT NULL,
      draining boolean NOT NULL,
      live boolean NOT NULL,
      beat_at timestamptz NOT NULL,
      taken jsonb NOT NULL,
      key_ids jsonb NOT NULL,
      sealed_certificate text NOT NULL
    );
    CREATE INDEX nodes_beats ON nodes (beat_at) WHERE live;
    CREATE TABLE secrets (
      name text PRIMARY KEY,
      sealed_value text NOT NULL,
      made_at timestamptz NOT NULL
    );
    INSERT INTO revisions VALUES ('nodes', 0), ('secrets', 0);
  `,
};
