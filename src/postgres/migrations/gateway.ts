import type { Migration } from '../schema.ts';
import { state } from './001-state.ts';
import { nodes } from './004-nodes.ts';

/** The schema of the database that a fleet shares. */
export const gatewayMigrations: readonly Migration[] = [state, nodes];
