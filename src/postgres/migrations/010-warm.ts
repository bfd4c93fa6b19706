import type { Migration } from '../schema.ts';

/** Images that are kept at hand, and how the last run of each went on each node. Times are ISO 8601. */
export const warm: Migration = {
  name: 'images that are kept at hand',
  sql: `
    CREATE TABLE warm_images (
      image text PRIMARY KEY,
      platforms jsonb,
      referrers boolean NOT NULL,
      pin boolean NOT NULL,
      schedule text,
      created_at text NOT NULL
    );
    CREATE TABLE warm_runs (
      image text NOT NULL REFERENCES warm_images (image) ON DELETE CASCADE,
      node text NOT NULL,
      started_at text NOT NULL,
      ended_at text NOT NULL,
      error text,
      retry_at text,
      succeeded_at text,
      digest text,
      bytes bigint NOT NULL,
      fetched bigint NOT NULL,
      PRIMARY KEY (image, node)
    );
    INSERT INTO revisions VALUES ('warm', 0);
  `,
};
