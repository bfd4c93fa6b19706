import type { Migration } from '../schema.ts';

/**
 * Certificates with their keys, ACME accounts, unfinished orders, the status of each host and its events, what counts against a CA's limits, and the
 * answers to challenges. Times in epoch milliseconds. `sum` of a challenge is the SHA-256 of its answer, by which one is known that is sealed.
 */
export const certificates: Migration = {
  name: 'certificates',
  sql: `
    CREATE TABLE certificates (
      source text NOT NULL CHECK (source IN ('acme', 'import')),
      name text NOT NULL,
      directory text,
      obtained_at bigint NOT NULL,
      names jsonb NOT NULL CHECK (jsonb_array_length(names) > 0),
      not_before bigint NOT NULL,
      not_after bigint NOT NULL,
      serial text NOT NULL,
      issuer text NOT NULL,
      fingerprint text NOT NULL,
      chain text NOT NULL,
      sealed_key text NOT NULL,
      PRIMARY KEY (source, name)
    );
    CREATE TABLE certificate_hosts (
      host text PRIMARY KEY,
      failures int NOT NULL,
      failing_since bigint,
      next_attempt bigint,
      last_error jsonb,
      holds jsonb NOT NULL,
      unchecked_at bigint,
      challenge text,
      renewal jsonb
    );
    CREATE TABLE certificate_events (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      host text NOT NULL,
      at bigint NOT NULL,
      event text NOT NULL
    );
    CREATE INDEX certificate_events_host ON certificate_events (host, id);
    CREATE TABLE acme_accounts (
      directory text PRIMARY KEY,
      sealed_key text NOT NULL,
      url text
    );
    CREATE TABLE acme_orders (
      host text NOT NULL,
      directory text NOT NULL,
      url text NOT NULL,
      sealed_key text NOT NULL,
      created_at bigint NOT NULL,
      PRIMARY KEY (host, directory)
    );
    CREATE TABLE acme_ledger (
      directory text NOT NULL,
      at bigint NOT NULL,
      kind text NOT NULL,
      host text NOT NULL
    );
    CREATE INDEX acme_ledger_at ON acme_ledger (directory, at);
    CREATE TABLE acme_challenges (
      type text NOT NULL,
      id text NOT NULL,
      sealed_answer text NOT NULL,
      sum bytea NOT NULL,
      expires_at bigint NOT NULL,
      PRIMARY KEY (type, id)
    );
  `,
};
