import type { Migration } from '../database.ts';

/** Any kind of challenge; for dns-01 `id` is the name of the TXT record and its value, `answer` its zone and the host of its order as JSON. */
export const dnsChallenges: Migration = {
  name: 'challenges that are answered in DNS',
  sql: `
    CREATE TABLE acme_challenges_new (
      type TEXT NOT NULL,
      id TEXT NOT NULL,
      answer TEXT NOT NULL,
      expires_at INTEGER NOT NULL,
      PRIMARY KEY (type, id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO acme_challenges_new SELECT type, id, answer, expires_at FROM acme_challenges;
    DROP TABLE acme_challenges;
    ALTER TABLE acme_challenges_new RENAME TO acme_challenges;
  `,
};
