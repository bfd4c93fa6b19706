import type { Migration } from '../database.ts';

/** Images that are kept at hand, and how the last run of each went. Times are ISO 8601; platforms are a JSON array. */
export const warm: Migration = {
  name: 'images that are kept at hand',
  sql: `
    CREATE TABLE warm_images (
      image TEXT PRIMARY KEY,
      platforms TEXT,
      referrers INTEGER NOT NULL,
      pin INTEGER NOT NULL,
      schedule TEXT,
      created_at TEXT NOT NULL
    ) STRICT;
    CREATE TABLE warm_runs (
      image TEXT NOT NULL REFERENCES warm_images (image) ON DELETE CASCADE,
      node TEXT NOT NULL,
      started_at TEXT NOT NULL,
      ended_at TEXT NOT NULL,
      error TEXT,
      retry_at TEXT,
      succeeded_at TEXT,
      digest TEXT,
      bytes INTEGER NOT NULL,
      fetched INTEGER NOT NULL,
      PRIMARY KEY (image, node)
    ) STRICT, WITHOUT ROWID;
  `,
};
