import { Glob } from '../kit/glob.ts';

/** The operator's user name and password at a registry. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** A refresh token that a login has brought in place of a password, which is empty then (distribution, *OAuth2 Token Authentication*). */
  readonly identityToken?: string;
}

/**
 * By which what is known of content remembers which of a registry's credentials opened it: a small number, which is no secret. It belongs to one set of
 * credentials of one registry, and is never given to another of that registry.
 */
export type CredentialId = number;

/** Of the credentials that a registry has for every repository without others. */
export const DEFAULT_CREDENTIAL: CredentialId = 1;

/** How far a proof of what a registry holds reaches: what was shown without credentials, to anyone, or only to these credentials of the operator's. */
export type Shown = 'anyone' | CredentialId;

/** Credentials for some repositories of a registry: another owner's account. */
export interface NamedCredentials extends Credentials {
  /** As the operator calls them; unique in the registry. */
  readonly name: string;
  /** Not {@link DEFAULT_CREDENTIAL}. Made with them; another user name, or the same name after they were removed, is another one. */
  readonly id: CredentialId;
  /** Patterns of repositories as the registry calls them, `team/*`: see {@link Glob}. Never empty. */
  readonly for: readonly string[];
}

/** What a registry's row has to log in with. */
export interface HasCredentials {
  /** For every repository that no pattern of `named` stands for; null for none. */
  readonly credentials: Credentials | null;
  /** In the order of their names. No pattern is in two of them. */
  readonly named: readonly NamedCredentials[];
}

/** The credentials of one repository. */
export interface RepositoryCredentials extends Credentials {
  readonly id: CredentialId;
}

interface Line {
  readonly pattern: string;
  readonly glob: Glob;
  readonly credentials: NamedCredentials;
}

/** By the list that a row has, so that it is put in order once for each table. */
const linesOf = new WeakMap<HasCredentials['named'], readonly Line[]>();

/**
 * The credentials that requests for a repository are sent with: those whose pattern says the most of its name (the most characters that are no star;
 * of patterns alike in that the one with fewer stars, then the first in alphabetical order), else the registry's own, else none.
 */
export function credentialsFor(row: HasCredentials, repository: string): RepositoryCredentials | null {
  const found = row.named.length === 0 ? undefined : lines(row.named).find(({ glob }) => glob.matches(repository));
  if (found !== undefined) return found.credentials;
  return row.credentials === null ? null : { ...row.credentials, id: DEFAULT_CREDENTIAL };
}

/** Which credentials open a repository now; null where none do. */
export function openerOf(row: HasCredentials, repository: string): CredentialId | null {
  if (row.named.length === 0) return row.credentials === null ? null : DEFAULT_CREDENTIAL;
  return credentialsFor(row, repository)?.id ?? null;
}

/** Whether the registry still has these credentials. */
export function hasCredential(row: HasCredentials, id: CredentialId): boolean {
  return id === DEFAULT_CREDENTIAL ? row.credentials !== null : row.named.some((one) => one.id === id);
}

/** Whether every repository has the same credentials in both rows, whatever their passwords; left out: a row without any. */
export function haveSameOpeners(one: HasCredentials | undefined, other: HasCredentials | undefined): boolean {
  const openers = (row: HasCredentials | undefined) =>
    JSON.stringify([row?.credentials != null, row?.named.map((each) => [each.id, each.for]) ?? []]);
  return openers(one) === openers(other);
}

/** All that a registry's row has. */
export function allCredentials({ credentials, named }: HasCredentials): readonly Credentials[] {
  return credentials === null ? named : [credentials, ...named];
}

/** The row as one repository is asked for: its credentials are that repository's, and there are no others. */
export function forRepository<T extends HasCredentials>(row: T, repository: string): T {
  return row.named.length === 0 ? row : { ...row, credentials: credentialsFor(row, repository), named: [] };
}

function lines(named: HasCredentials['named']): readonly Line[] {
  const known = linesOf.get(named);
  if (known !== undefined) return known;
  const sorted = named
    .flatMap((credentials) =>
      credentials.for.map((pattern): Line => ({ pattern, glob: new Glob(pattern), credentials })),
    )
    .sort((one, other) => exactness(other) - exactness(one) || (one.pattern < other.pattern ? -1 : 1));
  linesOf.set(named, sorted);
  return sorted;
}

/** A character that is no star counts for more than all stars that a pattern can have. */
function exactness({ pattern }: Line): number {
  const stars = pattern.split('*').length - 1;
  return (pattern.length - stars) * MAX_PATTERN - stars;
}

/** Longest pattern of repositories; their names are shorter. */
export const MAX_PATTERN = 256;
