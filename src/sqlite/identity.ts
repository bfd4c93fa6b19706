import type { Database } from './database.ts';

/** The identity of the gateway whose database it is, as migration 008 made it: 16 hex digits. */
export function readIdentity(database: Database): string {
  const id = database.prepare<[], string>('SELECT id FROM identity').pluck().get();
  if (id === undefined) throw new Error('the database has lost the identity of its gateway');
  return id;
}
