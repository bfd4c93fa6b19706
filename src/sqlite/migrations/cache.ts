import type { Migration } from '../database.ts';

/** Schema of `cache.db`: what the cache directory holds. It has a file of its own, since losing it loses nothing and it is written to often. */
export const cacheMigrations: readonly Migration[] = [];
