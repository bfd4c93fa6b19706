import { BadValue, parseCidr, parseList } from './values.ts';

/** One line of `policy.images`: whether images that match a pattern may pass, and for whom the line is. */
export interface ImageRule {
  /** Without the `!` before it: `docker.io/library/*`, `*:latest`. */
  readonly pattern: string;
  /** False for a pattern that refuses. */
  readonly allows: boolean;
  /** Users of the gateway that the line is for; empty where it names none. */
  readonly users: readonly string[];
  /** CIDRs of the clients that it is for; empty where it names none. Where it names users too, it is for those in these networks. */
  readonly networks: readonly string[];
}

/** What a pattern says of an image, part by part; a star in any of them stands for any characters. */
export interface PatternParts {
  /** `docker.io/library/*`: registry and repository, in lower case; `*` for every image. */
  readonly name: string;
  /** Of the tag, whose capitals count; null where the pattern is for every tag and digest. */
  readonly tag: string | null;
  /** `sha256:…`, `*`: the pattern is for what is asked for by a digest that matches; null where it names none. */
  readonly digest: string | null;
}

/** Longest pattern; names of images are shorter. */
const MAX_PATTERN = 512;
/** A host with an optional port, or an IPv6 address in brackets; with stars. */
const REGISTRY = /^(?:[a-z0-9.*_-]+|\[[0-9a-f:.*]+\])(?::[0-9*]+)?$/;
/** One part of a repository's name between slashes, with stars. */
const SEGMENT = /^[a-z0-9._*-]+$/;
const TAG = /^[A-Za-z0-9_.*-]+$/;
const DIGEST = /^(?:\*|(?:sha256|sha512):[0-9a-f*]+)$/;
/** Hexadecimal digits of a whole digest. */
const HEX_LENGTH: Readonly<Record<string, number>> = { sha256: 64, sha512: 128 };

const HOW = 'write registry/repository:tag, where * stands for any characters';

/** `docker.io/library/*`, `!*:latest`. @throws {BadValue} */
export function parseImagePattern(raw: unknown): ImageRule {
  const written = typeof raw === 'string' ? raw.trim() : '';
  if (written === '' || written === '!')
    throw new BadValue('is not a pattern of images; write it like docker.io/library/*, with ! before it to refuse');
  const allows = !written.startsWith('!');
  const pattern = allows ? written : written.slice(1).trim();
  splitPattern(pattern);
  return { pattern, allows, users: [], networks: [] };
}

/** Reads a pattern without its `!`. @throws {BadValue} */
export function splitPattern(pattern: string): PatternParts {
  const refuse = (why: string) => new BadValue(`"${pattern.slice(0, 80)}" ${why}`);
  if (pattern.length > MAX_PATTERN) throw refuse(`is longer than ${MAX_PATTERN} characters`);
  const at = pattern.indexOf('@');
  const digest = at < 0 ? null : pattern.slice(at + 1);
  const named = at < 0 ? pattern : pattern.slice(0, at);
  // The colon of a port has a slash behind it.
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const tag = colon < 0 ? null : named.slice(colon + 1);
  const name = (colon < 0 ? named : named.slice(0, colon)).toLowerCase();
  if (tag !== null && digest !== null) throw refuse('names a tag and a digest; write a pattern for each');
  if (tag !== null && !TAG.test(tag)) throw refuse(`is not a pattern of images; ${HOW}`);
  if (digest !== null) requireDigest(digest, refuse);
  requireName(name, refuse);
  return { name, tag, digest };
}

function requireName(name: string, refuse: (why: string) => BadValue): void {
  if (name === '*') return;
  const [registry = '', ...segments] = name.split('/');
  if (segments.length === 0) {
    if (!REGISTRY.test(registry)) throw refuse(`is not a pattern of images; ${HOW}`);
    const meant = /[.*]|^localhost$/.test(registry) ? `${registry}/*` : `docker.io/library/${registry}`;
    throw refuse(`has no registry with a slash behind it; write ${meant}`);
  }
  if (!REGISTRY.test(registry) || !segments.every((segment) => SEGMENT.test(segment)))
    throw refuse(`is not a pattern of images; ${HOW}`);
  // Without one of these it is a repository of Docker Hub, as image names are read.
  if (!/[.:*]|^localhost$/.test(registry)) throw refuse(`names no registry; write docker.io/${name}`);
}

function requireDigest(digest: string, refuse: (why: string) => BadValue): void {
  const [algorithm = '', hex] = digest.split(':');
  const isWhole = hex === undefined || hex.includes('*') || hex.length === HEX_LENGTH[algorithm];
  if (!DIGEST.test(digest) || !isWhole)
    throw refuse('has no digest behind its @; write sha256: with its 64 hex digits, or * for any');
}

const RULE_KEYS = ['image', 'users', 'networks'];

/** The same, or in the file a mapping `{image, users, networks}`, which is for some clients alone. @throws {BadValue} */
export function parseImageRule(raw: unknown): ImageRule {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return parseImagePattern(raw);
  const { image, users, networks } = raw as Record<string, unknown>;
  const unknown = Object.keys(raw).find((key) => !RULE_KEYS.includes(key));
  if (unknown !== undefined) throw new BadValue(`has the unknown key "${unknown}"; known are ${RULE_KEYS.join(', ')}`);
  return {
    ...parseImagePattern(image),
    users: parseWhom('users', parseUser, users),
    networks: parseWhom('networks', parseCidr, networks),
  };
}

/** A list that is there and empty may have been meant for nobody or for everybody: neither is guessed. */
function parseWhom(key: string, item: (raw: unknown) => string, raw: unknown): string[] {
  if (raw === undefined) return [];
  const whom = parseList(item)(raw);
  if (whom.length === 0) throw new BadValue(`has nobody in ${key}; leave it out where the pattern is for all`);
  return whom;
}

function parseUser(raw: unknown): string {
  if (typeof raw === 'string' && raw.trim() !== '') return raw.trim();
  throw new BadValue('names a user that is no text');
}

/** A rule as it is told to people: `!docker.io/library/* (user ci, 10.0.0.0/8)`. */
export function imageRuleText({ pattern, allows, users, networks }: ImageRule): string {
  const written = `${allows ? '' : '!'}${pattern}`;
  const whom = [...users.map((user) => `user ${user}`), ...networks];
  return whom.length === 0 ? written : `${written} (${whom.join(', ')})`;
}

export const parseImageRules = parseList(parseImageRule);
export const parseImagePatterns = parseList(parseImagePattern);

/** As the configuration has them. */
export function imageRulesText(rules: readonly ImageRule[]): string {
  return rules.length === 0 ? 'none' : rules.map(imageRuleText).join(', ');
}
