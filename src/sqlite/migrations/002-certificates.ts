import type { Migration } from '../database.ts';

/**
 * Certificates with their keys, ACME accounts, unfinished orders, the status of each host and its events, and what counts
 * against a CA's limits. Times in epoch milliseconds; `names`, `last_error`, `holds` and `renewal` are JSON.
 */
export const certificates: Migration = {
  name: 'certificates',
  sql: `
    CREATE TABLE certificates (
      source TEXT NOT NULL CHECK (source IN ('acme', 'import')),
      name TEXT NOT NULL,
      directory TEXT,
      obtained_at INTEGER NOT NULL,
      names TEXT NOT NULL CHECK (json_array_length(names) > 0),
      not_before INTEGER NOT NULL,
      not_after INTEGER NOT NULL,
      serial TEXT NOT NULL,
      issuer TEXT NOT NULL,
      fingerprint TEXT NOT NULL,
      chain TEXT NOT NULL,
      private_key TEXT NOT NULL,
      PRIMARY KEY (source, name)
    ) STRICT;
    CREATE TABLE certificate_hosts (
      host TEXT PRIMARY KEY,
      failures INTEGER NOT NULL,
      failing_since INTEGER,
      next_attempt INTEGER,
      last_error TEXT,
      holds TEXT NOT NULL,
      unchecked_at INTEGER,
      challenge TEXT,
      renewal TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE certificate_events (
      id INTEGER PRIMARY KEY,
      host TEXT NOT NULL,
      at INTEGER NOT NULL,
      event TEXT NOT NULL
    ) STRICT;
    CREATE INDEX certificate_events_host ON certificate_events (host, id);
    CREATE TABLE acme_accounts (
      directory TEXT PRIMARY KEY,
      private_key TEXT NOT NULL,
      url TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE acme_orders (
      host TEXT NOT NULL,
      directory TEXT NOT NULL,
      url TEXT NOT NULL,
      private_key TEXT NOT NULL,
      created_at INTEGER NOT NULL,
      PRIMARY KEY (host, directory)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE acme_ledger (
      directory TEXT NOT NULL,
      at INTEGER NOT NULL,
      kind TEXT NOT NULL,
      host TEXT NOT NULL
    ) STRICT;
    CREATE INDEX acme_ledger_at ON acme_ledger (directory, at);
  `,
};
