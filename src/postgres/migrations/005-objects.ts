import type { Migration } from '../schema.ts';

/** What lies in a store of content that the nodes share, and which repositories gave it. `open`: without a credential. */
export const objects: Migration = {
  name: 'objects of the shared store',
  sql: `
    CREATE TABLE objects (
      digest text COLLATE "C" PRIMARY KEY,
      kind text NOT NULL CHECK (kind IN ('blob', 'manifest')),
      size bigint NOT NULL,
      last_use timestamptz NOT NULL DEFAULT clock_timestamp(),
      condemned_at timestamptz
    );
    CREATE INDEX objects_by_use ON objects (last_use) INCLUDE (size) WHERE condemned_at IS NULL;
    CREATE INDEX objects_condemned ON objects (condemned_at) WHERE condemned_at IS NOT NULL;
    CREATE TABLE object_givers (
      digest text COLLATE "C" NOT NULL REFERENCES objects (digest) ON DELETE CASCADE,
      registry text NOT NULL,
      repository text NOT NULL,
      open boolean NOT NULL,
      PRIMARY KEY (digest, registry, repository)
    );
    CREATE INDEX object_givers_of ON object_givers (registry, repository);
  `,
};
