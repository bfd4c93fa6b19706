import { randomInt } from 'node:crypto';
import { OperatorError } from '../kit/operator-error.ts';
import { type Credentials, DEFAULT_CREDENTIAL, MAX_PATTERN, type NamedCredentials } from '../oci/credentials.ts';
import { isRepositoryName } from '../oci/names.ts';
import type { RegistryEntry } from './table.ts';

/** A change to one of a registry's named credentials. What is left out stays as it is; one that is new needs all of it. */
export interface NamedCredentialsChange {
  readonly name: string;
  /** Patterns of repositories, in place of those before. */
  readonly for?: readonly string[] | undefined;
  /** Null removes it. */
  readonly credentials?: Credentials | null | undefined;
}

/** Credentials of one registry: owners whose private images one gateway serves, a number that a person can look over. */
const MAX_NAMED = 100;
const MAX_PATTERNS = 100;
/** Ids are drawn from these, so that what was removed is not given again; they go into a column of 31 bits. */
const MAX_ID = 2 ** 31 - 1;

const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;
/** `default` is what people call the registry's own. */
const RESERVED = new Set(['default', 'none']);

/** RFC 7617: a user name has no colon and no control character. @throws {OperatorError} usage, `CREDENTIALS_INVALID` */
export function parseCredentials(given: Credentials): Credentials {
  const refuse = (problem: string) =>
    refused(
      problem,
      'give the user name with --username and the password or token on standard input with --password-stdin',
    );
  const { username, password } = given;
  if (username === '') throw refuse('the user name is empty');
  if (username.includes(':')) throw refuse('the user name has a colon');
  if (password === '') throw refuse('the password is empty');
  if (/\p{Cc}/u.test(username)) throw refuse('the user name has a control character');
  // The password may have line breaks: Google's `_json_key` is a key file of several lines, and goes out in base64 like every other.
  return { username, password };
}

/**
 * A pattern of a registry's repositories, in which a star stands for any characters, slashes too: `team/*`. At Docker Hub a name without a slash is an
 * official image's, as everywhere: `redis` is `library/redis`.
 * @throws {OperatorError} usage, `CREDENTIALS_INVALID`
 */
export function parseRepositoryPattern(text: string, host: string): string {
  const refuse = (
    problem: string,
    next = 'write a repository without its registry, where * stands for anything: team/*',
  ) => refused(`the pattern "${text.slice(0, 100)}" ${problem}`, next);
  if (text === '') throw refused('a pattern of repositories is empty', 'write a repository, or team/*');
  if (text.startsWith(`${host}/`)) {
    throw refuse('names the registry too', `write it without the registry: ${text.slice(host.length + 1, 100)}`);
  }
  const pattern = text.replaceAll(/\*{2,}/g, '*');
  // With a letter in the place of each star it is a name like any other; some registries have capitals in theirs.
  if (pattern.length >= MAX_PATTERN || !isRepositoryName(pattern.replaceAll('*', 'x').toLowerCase())) {
    throw refuse('can be no repository');
  }
  if (host !== 'docker.io' || pattern.includes('/') || pattern === '*') return pattern;
  if (pattern.includes('*')) {
    throw refuse(
      'has no slash',
      `write whose repositories are meant: ${pattern}/*, or library/${pattern} for official images`,
    );
  }
  return `library/${pattern}`;
}

/**
 * The named credentials of a row after a change, in the order of their names.
 * @throws {OperatorError} usage, `CREDENTIALS_INVALID`; `CREDENTIALS_UNKNOWN` where one is to be removed that is not there; `CREDENTIALS_CONFLICT` where
 *   another one has the same pattern
 */
export function applyNamed(
  { host, named }: Pick<RegistryEntry, 'host' | 'named'>,
  { name, for: texts, credentials }: NamedCredentialsChange,
): readonly NamedCredentials[] {
  if (!NAME.test(name) || RESERVED.has(name)) {
    throw refused(
      `"${name.slice(0, 100)}" is no name for credentials`,
      'use small letters, digits, dots and dashes: --credential team-a',
    );
  }
  const known = named.find((one) => one.name === name);
  const others = named.filter((one) => one !== known);
  if (credentials === null) {
    if (known !== undefined) return others;
    const names = named.map((one) => one.name).join(', ');
    throw new OperatorError('CREDENTIALS_UNKNOWN', `${host} has no credentials called ${name}`, {
      next: names === '' ? `see what it has: gateway registry show ${host}` : `it has ${names}`,
    });
  }
  const patterns = texts === undefined ? known?.for : patternsOf(texts, host);
  const login = credentials === undefined ? known : parseCredentials(credentials);
  if (patterns === undefined || login === undefined) {
    throw refused(
      `${name} is new at ${host}, and ${patterns === undefined ? 'no repositories are given that it is for' : 'no user name is given'}`,
      `gateway registry set ${host} --credential ${name} --for 'team/*' --username U --password-stdin`,
    );
  }
  if (known === undefined && named.length >= MAX_NAMED) {
    throw refused(
      `${host} has ${MAX_NAMED} credentials already`,
      'remove one that is not used any more, or give one more patterns',
    );
  }
  for (const other of others) {
    const same = other.for.find((pattern) => patterns.includes(pattern));
    if (same === undefined) continue;
    throw new OperatorError(
      'CREDENTIALS_CONFLICT',
      `${same} at ${host} is what the credentials ${other.name} are for`,
      {
        next: `one pattern has one account: take it from ${other.name}, or write a more exact one`,
      },
    );
  }
  // Another user is another account: what the one before opened, this one has to open anew.
  const id = known !== undefined && known.username === login.username ? known.id : newId(named);
  const changed: NamedCredentials = { name, id, for: patterns, username: login.username, password: login.password };
  return [...others, changed].sort((one, other) => (one.name < other.name ? -1 : 1));
}

export function sameNamed(one: readonly NamedCredentials[], other: readonly NamedCredentials[]): boolean {
  return JSON.stringify(one.map(fieldsOf)) === JSON.stringify(other.map(fieldsOf));
}

function fieldsOf({ name, id, for: patterns, username, password }: NamedCredentials): unknown {
  return [name, id, patterns, username, password];
}

function patternsOf(texts: readonly string[], host: string): readonly string[] {
  const patterns = [...new Set(texts.map((text) => parseRepositoryPattern(text, host)))];
  if (patterns.length === 0)
    throw refused('no repositories are given that the credentials are for', "give them: --for 'team/*'");
  if (patterns.length > MAX_PATTERNS) {
    throw refused(
      `${patterns.length} patterns are given, and ${MAX_PATTERNS} are the most`,
      'a shorter pattern stands for more',
    );
  }
  return patterns;
}

function newId(named: readonly NamedCredentials[]): number {
  for (;;) {
    const id = randomInt(DEFAULT_CREDENTIAL + 1, MAX_ID);
    if (!named.some((one) => one.id === id)) return id;
  }
}

function refused(problem: string, next: string): OperatorError {
  return new OperatorError('CREDENTIALS_INVALID', problem, { next });
}
