import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { parseAuthorities } from '../kit/authorities.ts';
import { didYouMean } from '../kit/did-you-mean.ts';
import { isGlobalIP } from '../kit/networks.ts';
import { SecretKeys } from '../kit/sealed.ts';
import { type Config, DEFAULT_DOMAIN, KEYS, type ListenAddress, type Settings } from './config.ts';
import { dnsProblems } from './dns.ts';
import { type Facts, Key, KeyList, type KeyTree } from './keys.ts';
import { BadValue, isPublicDomain } from './values.ts';

export type Path = readonly (string | number)[];
export type Tree = Record<string, unknown>;

/** What is wrong with a key. */
export interface Problem {
  readonly path: Path;
  readonly message: string;
}

/** A row of the README's table. `variable` is null where the environment cannot set it. */
export interface KeyRow {
  readonly key: string;
  readonly path: Path;
  readonly variable: string | null;
  readonly doc: string;
}

export const KEY_ROWS: readonly KeyRow[] = rowsOf(KEYS, []);

/** Environment variable → where its value goes. */
export const ENVIRONMENT: ReadonlyMap<string, Path> = new Map(
  KEY_ROWS.flatMap(({ path, variable }) => (variable === null ? [] : [[variable, path] as const])),
);

function rowsOf(keys: KeyTree, at: Path): KeyRow[] {
  return Object.entries(keys).flatMap(([name, entry]): KeyRow[] => {
    const path = [...at, name];
    const key = keyText(path);
    if (entry instanceof KeyList) {
      const ofFirst = rowsOf(entry.item, [...path, 0]);
      return [{ key: `${key}[]`, path, variable: null, doc: entry.doc }, ...ofFirst];
    }
    if (!(entry instanceof Key)) return rowsOf(entry, path);
    // Of a list's items only those keys have a variable, and a row, that name one.
    if (entry.environment === undefined && path.includes(0)) return [];
    return [{ key, path, variable: entry.environment ?? variableOf(path), doc: entry.doc }];
  });
}

function variableOf(path: Path): string {
  return ['GATEWAY', ...path.map((part) => String(part).replace(/[A-Z]/g, '_$&').toUpperCase())].join('_');
}

/** `acme.issuers[0].directory` */
export function keyText(path: Path): string {
  return path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : text === '' ? part : `${text}.${part}`),
    '',
  );
}

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Checks each value of a tree by itself. What is wrong goes to `problems` and is left out, so that all of it is found in one run. */
export function readSettings(raw: Tree, problems: Problem[]): Settings {
  return readTree(raw, KEYS, [], problems) as Settings;
}

function readTree(raw: unknown, keys: KeyTree, path: Path, problems: Problem[]): Tree {
  if (!isTree(raw)) {
    problems.push({ path, message: `must be a mapping with the keys ${Object.keys(keys).join(', ')}` });
    return {};
  }
  const settings: Tree = {};
  for (const [name, value] of Object.entries(raw)) {
    const entry = Object.hasOwn(keys, name) ? keys[name] : undefined;
    const at = [...path, name];
    if (entry === undefined) problems.push({ path: at, message: unknownKey(name, Object.keys(keys)) });
    else if (entry instanceof KeyList) settings[name] = readList(value, entry, at, problems);
    else if (entry instanceof Key) settings[name] = readValue(value, entry, at, problems);
    else settings[name] = readTree(value, entry, at, problems);
  }
  return settings;
}

function readList(raw: unknown, list: KeyList<KeyTree, unknown>, path: Path, problems: Problem[]): Tree[] | undefined {
  if (Array.isArray(raw)) return raw.map((item, index) => readTree(item, list.item, [...path, index], problems));
  problems.push({ path, message: list.noList });
  return undefined;
}

function readValue(raw: unknown, key: Key<unknown, unknown>, path: Path, problems: Problem[]): unknown {
  try {
    return key.parse(raw);
  } catch (error) {
    if (!(error instanceof BadValue)) throw error;
    problems.push({ path, message: error.message });
    return undefined;
  }
}

function unknownKey(name: string, known: readonly string[]): string {
  const meant = didYouMean(name, known);
  return `there is no such key; ${meant === undefined ? `known are ${known.join(', ')}` : `did you mean ${meant}?`}`;
}

/** What is wrong between values that are each fine; `involves` are the keys it was concluded from. */
interface Contradiction extends Problem {
  readonly involves: readonly string[];
}

export function contradictions(settings: Settings, cwd: string): Contradiction[] {
  const found: Contradiction[] = [];
  const { listen } = settings;
  const plain = settings.tls?.mode === 'off';
  const involves = ['listen.https', 'listen.http', 'tls.mode', 'domain'];
  if (listen?.https === null && !plain) {
    const message = 'is off, which is only for tls.mode off (another program in front terminates TLS)';
    found.push({ path: ['listen', 'https'], message, involves });
  }
  if (listen?.http === null && plain) {
    const message = 'is off while tls.mode is off too: nothing would listen';
    found.push({ path: ['listen', 'http'], message, involves });
  }
  if (listen?.http && listen.https && listen.http.port !== 0 && sameAddress(listen.http, listen.https) && !plain) {
    found.push({ path: ['listen', 'http'], message: 'is the same address as listen.https', involves });
  }
  const authorities = settings.upstream?.caFile;
  const unusable = authorities === undefined ? null : unusableAuthorities(cwd, authorities);
  if (unusable !== null) found.push(concluded(['upstream', 'caFile'], unusable));
  for (const problem of dnsProblems(settings, cwd)) {
    const from = ['domain', 'acme.challenges', 'acme.dns.provider'];
    found.push({ ...problem, involves: [problem.path.join('.'), ...from] });
  }
  for (const [index, { directory, caFile, eab }] of (settings.acme?.issuers ?? []).entries()) {
    const path = ['acme', 'issuers', index];
    // The first one alone may leave its directory out: it then is Let's Encrypt's.
    if (index > 0 && directory === undefined) found.push(concluded([...path, 'directory'], 'is missing'));
    const wrong = caFile === undefined ? null : unusableAuthorities(cwd, caFile);
    if (wrong !== null) found.push(concluded([...path, 'caFile'], wrong));
    if (eab !== undefined && eab.keyId === undefined) found.push(concluded([...path, 'eab', 'keyId'], 'is missing'));
    if (eab !== undefined && eab.hmacKey === undefined)
      found.push(concluded([...path, 'eab', 'hmacKey'], 'is missing'));
  }
  found.push(...clusterContradictions(settings));
  return found;
}

function clusterContradictions({ database, secretFile, cluster }: Settings): Contradiction[] {
  const found: Contradiction[] = [];
  const involves = ['database', 'secretFile', 'cluster.listen', 'cluster.address'];
  if (database !== undefined && secretFile === undefined) {
    const message =
      'is missing: private keys and passwords lie encrypted in a shared database. Make one key for all gateways: openssl rand -base64 32 > FILE (mode 0600)';
    found.push({ path: ['secretFile'], message, involves });
  }
  for (const name of ['listen', 'address'] as const) {
    if (database !== undefined || cluster?.[name] === undefined || cluster[name] === null) continue;
    const message = 'is set, and there are no other gateways: that takes a database that several share (database)';
    found.push({ path: ['cluster', name], message, involves });
  }
  const listen = cluster?.listen;
  if (
    database !== undefined &&
    listen &&
    cluster?.address === undefined &&
    (listen.host === undefined || listen.port === 0)
  ) {
    const message = 'is missing: cluster.listen does not say by what host and port other gateways reach this one';
    found.push({ path: ['cluster', 'address'], message, involves });
  }
  if (cluster?.listen === null && cluster.address !== undefined) {
    const message = 'is set while cluster.listen is off: nothing would listen there';
    found.push({ path: ['cluster', 'address'], message, involves });
  }
  return found;
}

function concluded(path: Path, message: string): Contradiction {
  return { path, message, involves: [path.join('.')] };
}

function sameAddress(one: ListenAddress, other: ListenAddress): boolean {
  return one.port === other.port && one.host === other.host;
}

/** What is wrong with a file of authorities, in words; null where nothing is. */
function unusableAuthorities(cwd: string, file: string): string | null {
  let text: string;
  try {
    text = readFileSync(resolve(cwd, file), 'utf8');
  } catch (error) {
    return `"${file}" cannot be read: ${(error as Error).message.split(',')[0]}`;
  }
  try {
    parseAuthorities(text);
    return null;
  } catch (error) {
    return `"${file}" ${(error as Error).message}`;
  }
}

/** Fills in what was left out; `notes` are things that are allowed and probably not meant. */
export function complete(
  settings: Settings,
  surroundings: Pick<Facts, 'cwd' | 'cores' | 'terminal'> & Pick<Config, 'databasePasswordFile'>,
): { config: Config; notes: string[] } {
  const domain = settings.domain ?? DEFAULT_DOMAIN;
  const publicDomain = isPublicDomain(domain);
  const tlsMode = settings.tls?.mode ?? (publicDomain ? 'acme' : 'internal');
  const { databasePasswordFile } = surroundings;
  const cluster = settings.cluster ?? {};
  const dnsProvider = settings.acme?.dns?.provider !== undefined;
  const facts = { ...surroundings, domain, publicDomain, tlsMode, cluster, dnsProvider };
  const config = { ...valuesOf(KEYS, settings, facts), publicDomain, databasePasswordFile } as Config;
  return { config, notes: notesOn(config, settings) };
}

function valuesOf(keys: KeyTree, settings: Tree | undefined, facts: Facts): Tree {
  const values = Object.entries(keys).map(([name, entry]) => {
    const set = settings?.[name];
    if (entry instanceof Key) return [name, entry.value(set, facts)];
    if (entry instanceof KeyList) return [name, entry.value(set as Tree[] | undefined, facts)];
    return [name, valuesOf(entry, set as Tree | undefined, facts)];
  });
  return Object.fromEntries(values) as Tree;
}

function notesOn(config: Config, settings: Settings): string[] {
  const { domain, tls, listen, acme, database, databasePasswordFile, secretFile } = config;
  const notes: string[] = [];
  if (database !== null && new URL(database).password !== '') {
    notes.push('database has a password in it; a file is a better place: name it by GATEWAY_DATABASE_PASSWORD_FILE');
  }
  if (database === null && databasePasswordFile !== null) {
    notes.push('GATEWAY_DATABASE_PASSWORD_FILE is set and not used: no database is configured');
  }
  const open = secretFile === null ? null : SecretKeys.warningOf(secretFile);
  if (open !== null) notes.push(open);
  if (tls.mode === 'off' && settings.listen?.https)
    notes.push('tls.mode is off, so listen.https is not used; the registry is served on listen.http');
  if (tls.mode !== 'acme') return notes;
  if (acme.dns.provider !== null && !acme.challenges.includes('dns-01'))
    notes.push('acme.dns names a provider, but acme.challenges does not name dns-01, so it is not used');
  if (listen.http === null && acme.challenges.every((kind) => kind === 'http-01')) {
    notes.push(
      'listen.http is off, so http-01 is not tried, and acme.challenges names no other: no certificate can be issued',
    );
  }
  if (isIP(domain) === 0 && !domain.includes('.'))
    notes.push(`no public CA gives a certificate to "${domain}", a name of one part`);
  if (isIP(domain) !== 0 && !isGlobalIP(domain))
    notes.push(`no public CA gives a certificate to ${domain}, an address that the internet does not reach`);
  return notes;
}
