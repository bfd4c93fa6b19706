import type { Migration } from '../database.ts';

/** Hosts outside a registry's own domain that may be sent its credentials, a JSON list. */
export const realms: Migration = {
  name: 'realms of registries',
  sql: "ALTER TABLE registries ADD COLUMN realms TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(realms))",
};
