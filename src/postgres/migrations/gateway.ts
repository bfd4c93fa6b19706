import type { Migration } from '../schema.ts';
import { state } from './001-state.ts';
import { certificates } from './002-certificates.ts';
import { access } from './003-access.ts';
import { nodes } from './004-nodes.ts';
import { objects } from './005-objects.ts';
import { denials } from './006-denials.ts';
import { released } from './007-released.ts';
import { credentials } from './008-credentials.ts';
import { history } from './009-history.ts';
import { warm } from './010-warm.ts';

/**
 * The schema of the database that a fleet shares. While nodes are updated one after the other, those of the version before go on with the schema of the
 * next: a step adds, and what it replaces is removed a release later.
 */
export const gatewayMigrations: readonly Migration[] = [
  state,
  certificates,
  access,
  nodes,
  objects,
  denials,
  released,
  credentials,
  history,
  warm,
];
