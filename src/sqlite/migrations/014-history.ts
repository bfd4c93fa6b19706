import type { Migration } from '../database.ts';

/**
 * What was seen of images: the spans in which tags stood for manifests, when content was first and last seen in a repository, and what manifests name.
 * Digests as in src/sqlite/digest-bytes.ts; times are ms since 1970.
 */
export const history: Migration = {
  name: 'history of tags and first sights',
  sql: `
    CREATE TABLE history_repositories (
      id INTEGER PRIMARY KEY,
      registry TEXT NOT NULL,
      repository TEXT NOT NULL,
      UNIQUE (registry, repository)
    ) STRICT;
    CREATE TABLE history_tags (
      id INTEGER PRIMARY KEY,
      repository INTEGER NOT NULL REFERENCES history_repositories (id),
      tag TEXT NOT NULL,
      variant TEXT NOT NULL,
      digest BLOB NOT NULL,
      seen_from INTEGER NOT NULL,
      seen_to INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX history_tags_of ON history_tags (repository, tag, variant, seen_from);
    CREATE INDEX history_tags_for ON history_tags (repository, digest);
    CREATE INDEX history_tags_by_age ON history_tags (seen_to);
    CREATE TABLE history_sights (
      id INTEGER PRIMARY KEY,
      repository INTEGER NOT NULL REFERENCES history_repositories (id),
      digest BLOB NOT NULL,
      first INTEGER NOT NULL,
      last INTEGER NOT NULL,
      UNIQUE (repository, digest)
    ) STRICT;
    CREATE INDEX history_sights_by_age ON history_sights (last);
    CREATE TABLE history_names (
      parent INTEGER NOT NULL REFERENCES history_sights (id) ON DELETE CASCADE,
      child INTEGER NOT NULL REFERENCES history_sights (id) ON DELETE CASCADE,
      PRIMARY KEY (parent, child)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX history_named_by ON history_names (child);
  `,
};
