import type { Migration } from '../database.ts';
import { aliases } from './001-aliases.ts';
import { certificates } from './002-certificates.ts';
import { access } from './003-access.ts';
import { challengesAndLocks } from './004-challenges-and-locks.ts';
import { aliasTableVersion } from './005-alias-table-version.ts';
import { realms } from './006-realms.ts';
import { authorities } from './007-authorities.ts';
import { identity } from './008-identity.ts';
import { tokens } from './009-tokens.ts';
import { dnsChallenges } from './010-dns-challenges.ts';
import { objects } from './011-objects.ts';
import { released } from './012-released.ts';
import { credentials } from './013-credentials.ts';
import { history } from './014-history.ts';
import { warm } from './015-warm.ts';

/** Schema of `gateway.db`: what must never be lost. */
export const gatewayMigrations: readonly Migration[] = [
  aliases,
  certificates,
  access,
  challengesAndLocks,
  aliasTableVersion,
  realms,
  authorities,
  identity,
  tokens,
  dnsChallenges,
  objects,
  released,
  credentials,
  history,
  warm,
];
