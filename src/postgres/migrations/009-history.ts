import type { Migration } from '../schema.ts';

/**
 * What the nodes saw of images: the spans in which tags stood for manifests, when content was first and last seen in a repository, and what manifests
 * name. Times are ms since 1970, by the clock of the node that saw.
 */
export const history: Migration = {
  name: 'history of tags and first sights',
  sql: `
    CREATE TABLE history_repositories (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      registry text NOT NULL,
      repository text NOT NULL,
      UNIQUE (registry, repository)
    );
    CREATE TABLE history_tags (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      repository bigint NOT NULL REFERENCES history_repositories,
      tag text COLLATE "C" NOT NULL,
      variant text COLLATE "C" NOT NULL,
      digest text COLLATE "C" NOT NULL,
      seen_from bigint NOT NULL,
      seen_to bigint NOT NULL
    );
    CREATE INDEX history_tags_of ON history_tags (repository, tag, variant, seen_from);
    CREATE INDEX history_tags_for ON history_tags (repository, digest);
    CREATE INDEX history_tags_by_age ON history_tags (seen_to);
    CREATE TABLE history_sights (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      repository bigint NOT NULL REFERENCES history_repositories,
      digest text COLLATE "C" NOT NULL,
      first bigint NOT NULL,
      last bigint NOT NULL,
      UNIQUE (repository, digest)
    );
    CREATE INDEX history_sights_by_age ON history_sights (last);
    CREATE TABLE history_names (
      parent bigint NOT NULL REFERENCES history_sights ON DELETE CASCADE,
      child bigint NOT NULL REFERENCES history_sights ON DELETE CASCADE,
      PRIMARY KEY (parent, child)
    );
    CREATE INDEX history_named_by ON history_names (child);
  `,
};
