import type { Migration } from '../schema.ts';

/**
 * What registries denied to any of the nodes: of a repository, or of one digest (else empty). `seq` is the revision of the topic with which it was told, so
 * that it grows in the order of the commits; a denial that comes again moves to the end. `denials_seen` is how far each node has applied them.
 */
export const denials: Migration = {
  name: 'denials',
  sql: `
    CREATE TABLE denials (
      seq bigint NOT NULL UNIQUE,
      node text NOT NULL,
      registry text NOT NULL,
      repository text NOT NULL,
      digest text NOT NULL,
      at timestamptz NOT NULL,
      PRIMARY KEY (registry, repository, digest)
    );
    CREATE INDEX denials_by_age ON denials (at);
    CREATE TABLE denials_seen (
      node text PRIMARY KEY,
      seq bigint NOT NULL
    );
    INSERT INTO revisions VALUES ('denials', 0);
  `,
};
