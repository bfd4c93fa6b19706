import type { Migration } from '../database.ts';

/**
 * What the cache directory holds. A digest is one byte for its algorithm (1: sha256, 2: sha512) and the raw hash. Times are ms since 1970, `seen`
 * is days. The totals are kept by triggers, in the same transaction as what they count, so that nobody ever has to count the rows.
 */
const inventory: Migration = {
  name: 'blobs, links, manifests, tags',
  sql: `
    CREATE TABLE blobs (
      digest BLOB PRIMARY KEY,
      size INTEGER NOT NULL CHECK (size >= 0),
      created INTEGER NOT NULL,
      last_use INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blobs_by_use ON blobs (last_use, digest);

    CREATE TABLE repositories (
      id INTEGER PRIMARY KEY,
      registry TEXT NOT NULL,
      name TEXT NOT NULL,
      UNIQUE (registry, name)
    ) STRICT;

    CREATE TABLE links (
      repository INTEGER NOT NULL REFERENCES repositories (id),
      digest BLOB NOT NULL,
      private INTEGER NOT NULL CHECK (private IN (0, 1)),
      seen INTEGER NOT NULL,
      PRIMARY KEY (repository, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX links_by_digest ON links (digest);

    CREATE TABLE manifests (
      id INTEGER PRIMARY KEY,
      digest BLOB NOT NULL UNIQUE,
      media_type TEXT NOT NULL,
      size INTEGER NOT NULL,
      last_use INTEGER NOT NULL,
      body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX manifests_by_use ON manifests (last_use, digest);

    CREATE TABLE tags (
      repository INTEGER NOT NULL REFERENCES repositories (id),
      tag TEXT NOT NULL,
      variant TEXT NOT NULL,
      digest BLOB NOT NULL,
      checked_at INTEGER NOT NULL,
      PRIMARY KEY (repository, tag, variant)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tags_by_check ON tags (checked_at);

    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE totals (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      blobs INTEGER NOT NULL,
      bytes INTEGER NOT NULL,
      manifests INTEGER NOT NULL,
      manifest_bytes INTEGER NOT NULL
    ) STRICT;
    INSERT INTO totals VALUES (1, 0, 0, 0, 0);
    CREATE TRIGGER blob_in AFTER INSERT ON blobs BEGIN
      UPDATE totals SET blobs = blobs + 1, bytes = bytes + new.size;
    END;
    CREATE TRIGGER blob_out AFTER DELETE ON blobs BEGIN
      UPDATE totals SET blobs = blobs - 1, bytes = bytes - old.size;
    END;
    CREATE TRIGGER blob_resized AFTER UPDATE OF size ON blobs BEGIN
      UPDATE totals SET bytes = bytes + new.size - old.size;
    END;
    CREATE TRIGGER manifest_in AFTER INSERT ON manifests BEGIN
      UPDATE totals SET manifests = manifests + 1, manifest_bytes = manifest_bytes + new.size;
    END;
    CREATE TRIGGER manifest_out AFTER DELETE ON manifests BEGIN
      UPDATE totals SET manifests = manifests - 1, manifest_bytes = manifest_bytes - old.size;
    END;
    CREATE TRIGGER manifest_resized AFTER UPDATE OF size ON manifests BEGIN
      UPDATE totals SET manifest_bytes = manifest_bytes + new.size - old.size;
    END;
  `,
};

/**
 * Uses become a log: appended to, and swept of what is outdated, instead of a row and an index entry changed for each use. `blob` is a number that
 * no other blob has had, by which the newest use of each is kept in memory.
 */
const useLog: Migration = {
  name: 'uses as a log',
  sql: `
    CREATE TABLE numbered (
      digest BLOB PRIMARY KEY,
      number INTEGER NOT NULL,
      size INTEGER NOT NULL CHECK (size >= 0),
      created INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO numbered SELECT digest, row_number() OVER (ORDER BY digest), size, created FROM blobs ORDER BY digest;

    CREATE TABLE uses (
      at INTEGER NOT NULL,
      digest BLOB NOT NULL,
      blob INTEGER NOT NULL,
      PRIMARY KEY (at, digest)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO uses SELECT last_use, digest, number FROM blobs JOIN numbered USING (digest) ORDER BY last_use, digest;

    DROP TABLE blobs;
    ALTER TABLE numbered RENAME TO blobs;
    ALTER TABLE totals ADD COLUMN next_number INTEGER NOT NULL DEFAULT 0;
    UPDATE totals SET next_number = (SELECT count(*) FROM blobs) + 1;
    CREATE TRIGGER blob_in AFTER INSERT ON blobs BEGIN
      UPDATE totals SET blobs = blobs + 1, bytes = bytes + new.size, next_number = next_number + 1;
    END;
    CREATE TRIGGER blob_out AFTER DELETE ON blobs BEGIN
      UPDATE totals SET blobs = blobs - 1, bytes = bytes - old.size;
    END;
    CREATE TRIGGER blob_resized AFTER UPDATE OF size ON blobs BEGIN
      UPDATE totals SET bytes = bytes + new.size - old.size;
    END;
  `,
};

/** Schema of `cache.db`: what the cache directory holds. It has a file of its own, since losing it loses nothing and it is written to often. */
export const cacheMigrations: readonly Migration[] = [inventory, useLog];
