import type { Migration } from '../database.ts';

/** A version of the alias table, which grows with each change: a change that was planned on an older table is refused. */
export const aliasTableVersion: Migration = {
  name: 'a version of the alias table',
  sql: 'ALTER TABLE table_state ADD COLUMN version INTEGER NOT NULL DEFAULT 1',
};
