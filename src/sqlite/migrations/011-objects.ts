import type { Migration } from '../database.ts';

/**
 * What lies in a shared store of content, and which repositories gave it. Digests as in src/sqlite/digest-bytes.ts; times are ms since 1970.
 * `open`: 1 where it was given without a credential.
 */
export const objects: Migration = {
  name: 'objects of a shared store',
  sql: `
    CREATE TABLE objects (
      digest BLOB PRIMARY KEY,
      kind TEXT NOT NULL CHECK (kind IN ('blob', 'manifest')),
      size INTEGER NOT NULL,
      last_use INTEGER NOT NULL,
      condemned_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX objects_by_use ON objects (last_use) WHERE condemned_at IS NULL;
    CREATE INDEX objects_condemned ON objects (condemned_at) WHERE condemned_at IS NOT NULL;
    CREATE TABLE object_givers (
      digest BLOB NOT NULL REFERENCES objects (digest) ON DELETE CASCADE,
      registry TEXT NOT NULL,
      repository TEXT NOT NULL,
      open INTEGER NOT NULL,
      PRIMARY KEY (digest, registry, repository)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX object_givers_of ON object_givers (registry, repository);
    CREATE TABLE object_totals (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL) STRICT;
    INSERT INTO object_totals (one, bytes) VALUES (1, 0);
    CREATE TRIGGER object_in AFTER INSERT ON objects WHEN new.condemned_at IS NULL BEGIN
      UPDATE object_totals SET bytes = bytes + new.size;
    END;
    CREATE TRIGGER object_out AFTER DELETE ON objects WHEN old.condemned_at IS NULL BEGIN
      UPDATE object_totals SET bytes = bytes - old.size;
    END;
    CREATE TRIGGER object_changed AFTER UPDATE OF size, condemned_at ON objects BEGIN
      UPDATE object_totals SET bytes = bytes
        - CASE WHEN old.condemned_at IS NULL THEN old.size ELSE 0 END
        + CASE WHEN new.condemned_at IS NULL THEN new.size ELSE 0 END;
    END;
  `,
};
