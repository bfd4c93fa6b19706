import type { Migration } from '../database.ts';

/** Authorities that a registry's certificate may be signed by beside those that the machine trusts: certificates in PEM, one after the other. */
export const authorities: Migration = {
  name: 'authorities of registries',
  sql: 'ALTER TABLE registries ADD COLUMN ca TEXT',
};
