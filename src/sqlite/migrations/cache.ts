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

/**
 * Links become facts: what a repository said and gave. `said` and `gave` are 0 for nothing, 1 with the operator's credentials, 2 without. A fact
 * counts while its generation is its repository's; a denial raises that one number. `live`: facts were added since it was last raised.
 *
 * Links had one kind. What is here and has a private link was given by the repositories of its private links, with credentials, and to nobody
 * else; anything else that is here was given without. Of what is not here nothing was given: its links may be anybody's claims. The media types of
 * manifests are now the facts'; their old column is left, since SQLite would have to write all manifests anew to drop it.
 */
const facts: Migration = {
  name: 'facts',
  sql: `
    -- KiB, while this runs: a million links are looked up all over three tables, in a few seconds.
    PRAGMA cache_size = -32768;
    ALTER TABLE repositories ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE repositories ADD COLUMN live INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1));

    CREATE TABLE facts (
      repository INTEGER NOT NULL REFERENCES repositories (id),
      digest BLOB NOT NULL,
      said INTEGER NOT NULL CHECK (said BETWEEN 0 AND 2),
      gave INTEGER NOT NULL CHECK (gave BETWEEN 0 AND 2),
      generation INTEGER NOT NULL,
      seen INTEGER NOT NULL,
      media_type TEXT,
      PRIMARY KEY (repository, digest)
    ) STRICT, WITHOUT ROWID;

    CREATE TEMP TABLE closed (digest BLOB PRIMARY KEY) WITHOUT ROWID;
    INSERT OR IGNORE INTO closed SELECT digest FROM links WHERE private = 1;
    INSERT INTO facts
      SELECT links.repository, links.digest, 2 - links.private,
        CASE
          WHEN manifests.id IS NULL AND NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = links.digest) THEN 0
          WHEN links.private = 1 THEN 1
          WHEN EXISTS (SELECT 1 FROM closed WHERE closed.digest = links.digest) THEN 0
          ELSE 2
        END,
        0, links.seen, manifests.media_type
      FROM links LEFT JOIN manifests ON manifests.digest = links.digest
      ORDER BY links.repository, links.digest;
    DROP TABLE closed;
    DROP TABLE links;
    CREATE INDEX facts_given ON facts (digest, gave, seen) WHERE gave > 0;

    ALTER TABLE totals ADD COLUMN tags INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE totals ADD COLUMN facts INTEGER NOT NULL DEFAULT 0;
    UPDATE totals SET tags = (SELECT count(*) FROM tags), facts = (SELECT count(*) FROM facts);
    CREATE TRIGGER tag_in AFTER INSERT ON tags BEGIN
      UPDATE totals SET tags = tags + 1;
    END;
    CREATE TRIGGER tag_out AFTER DELETE ON tags BEGIN
      UPDATE totals SET tags = tags - 1;
    END;
    CREATE TRIGGER fact_in AFTER INSERT ON facts BEGIN
      UPDATE totals SET facts = facts + 1;
    END;
    CREATE TRIGGER fact_out AFTER DELETE ON facts BEGIN
      UPDATE totals SET facts = facts - 1;
    END;
  `,
};

/** When the bytes of a blob were last seen to be right, and how far the scrub has come. */
const scrub: Migration = {
  name: 'scrub',
  sql: `
    ALTER TABLE blobs ADD COLUMN checked INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE scrub (what TEXT PRIMARY KEY, place BLOB NOT NULL) STRICT, WITHOUT ROWID;
  `,
};

/** When a registry gave a manifest last: the age of an answer. */
const manifestTimes: Migration = {
  name: 'when manifests came',
  sql: 'ALTER TABLE manifests ADD COLUMN came INTEGER NOT NULL DEFAULT 0;',
};

/** Blobs whose file is being removed: a process that ends before their rows are removed has lost nothing. */
const removals: Migration = {
  name: 'removals under way',
  sql: 'CREATE TABLE removals (digest BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;',
};

/**
 * The last list of tags or referrers that a repository gave to each question (`question`: its hash), for while its registry fails. It counts while
 * its generation is its repository's; `shown` as a fact's. `sum` tells whether a new one is the same. The shares are kept by triggers; `all` has
 * no name.
 */
const lists: Migration = {
  name: 'lists',
  sql: `
    CREATE TABLE lists (
      id INTEGER PRIMARY KEY,
      repository INTEGER NOT NULL REFERENCES repositories (id),
      question BLOB NOT NULL,
      generation INTEGER NOT NULL,
      checked_at INTEGER NOT NULL,
      shown INTEGER NOT NULL CHECK (shown BETWEEN 1 AND 2),
      registry TEXT NOT NULL,
      client TEXT NOT NULL,
      size INTEGER NOT NULL,
      sum BLOB NOT NULL,
      mark TEXT NOT NULL,
      next TEXT,
      cut_after TEXT,
      body BLOB NOT NULL,
      UNIQUE (repository, question)
    ) STRICT;
    CREATE INDEX lists_by_check ON lists (checked_at);
    CREATE INDEX lists_of_registry ON lists (registry, checked_at);
    CREATE INDEX lists_of_client ON lists (client, checked_at);

    CREATE TABLE list_shares (
      kind TEXT NOT NULL,
      name TEXT NOT NULL,
      bytes INTEGER NOT NULL,
      PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER list_in AFTER INSERT ON lists BEGIN
      INSERT INTO list_shares VALUES ('all', '', new.size), ('registry', new.registry, new.size), ('client', new.client, new.size)
        ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
    END;
    CREATE TRIGGER list_out AFTER DELETE ON lists BEGIN
      UPDATE list_shares SET bytes = bytes - old.size
        WHERE (kind, name) IN (VALUES ('all', ''), ('registry', old.registry), ('client', old.client));
      DELETE FROM list_shares WHERE (kind, name) IN (VALUES ('registry', old.registry), ('client', old.client)) AND bytes <= 0;
    END;
    CREATE TRIGGER list_resized AFTER UPDATE OF size ON lists BEGIN
      UPDATE list_shares SET bytes = bytes + new.size - old.size
        WHERE (kind, name) IN (VALUES ('all', ''), ('registry', old.registry), ('client', old.client));
    END;
  `,
};

/** What is kept here and is to be put into a shared store, in the order of `place`. */
const uploads: Migration = {
  name: 'uploads to a shared store',
  sql: `
    CREATE TABLE uploads (
      place INTEGER PRIMARY KEY,
      digest BLOB NOT NULL UNIQUE,
      kind TEXT NOT NULL CHECK (kind IN ('blob', 'manifest')),
      registry TEXT NOT NULL,
      repository TEXT NOT NULL
    ) STRICT;
  `,
};

/** Images that operators have pinned. Digests are in JSON, since a pin is read and written whole. */
const pins: Migration = {
  name: 'pinned images',
  sql: `
    CREATE TABLE pins (
      id TEXT PRIMARY KEY,
      registry TEXT NOT NULL,
      repository TEXT NOT NULL,
      tag TEXT,
      variant TEXT NOT NULL,
      root TEXT NOT NULL,
      checked_at INTEGER NOT NULL,
      manifests TEXT NOT NULL,
      blobs TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
  `,
};

/** Which of a registry's credentials `said`, `gave` and `shown` were with, where they were: until now its only ones. */
const credentials: Migration = {
  name: 'which credentials opened it',
  sql: `
    ALTER TABLE facts ADD COLUMN said_by INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE facts ADD COLUMN gave_by INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE lists ADD COLUMN shown_by INTEGER NOT NULL DEFAULT 1;
  `,
};

/** Schema of `cache.db`: what the cache directory holds. It has a file of its own, since losing it loses nothing and it is written to often. */
export const cacheMigrations: readonly Migration[] = [
  inventory,
  useLog,
  facts,
  scrub,
  manifestTimes,
  removals,
  lists,
  uploads,
  pins,
  credentials,
];
