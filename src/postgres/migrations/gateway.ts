import type { Migration } from '../schema.ts';
import { state } from './001-state.ts';

/** The schema of the database that a fleet shares. */
export const gatewayMigrations: readonly Migration[] = [state];
