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

/** Longest pattern; names of images are shorter. */
const MAX_PATTERN = 512;
/** A registry (a host, perhaps with a port), a repository, perhaps a tag and a digest; a star stands for any characters, slashes too. */
const PATTERN =
  /^(?:\*|[a-z0-9.*_[\]-]+(?::[0-9*]+(?=\/))?(?:\/[a-z0-9._/*-]+)?)(?::[A-Za-z0-9_.*-]+)?(?:@[a-z0-9:*]+)?$/;

/** `docker.io/library/*`, `!*:latest`. @throws {BadValue} */
export function parseImagePattern(raw: unknown): ImageRule {
  const written = typeof raw === 'string' ? raw.trim() : '';
  if (written === '' || written === '!') {
    throw new BadValue('is not a pattern of images; write it like docker.io/library/*, with ! before it to refuse');
  }
  const allows = !written.startsWith('!');
  const pattern = allows ? written : written.slice(1).trim();
  const shown = `"${written.slice(0, 80)}"`;
  if (pattern.length > MAX_PATTERN || !PATTERN.test(pattern))
    throw new BadValue(
      `${shown} is not a pattern of images; write registry/repository:tag, where * stands for anything`,
    );
  const [first = ''] = pattern.split('/');
  if (pattern.includes('/') && !/[.:*]|^localhost$/.test(first))
    throw new BadValue(`${shown} names no registry; write docker.io/${pattern}`);
  return { pattern, allows, users: [], networks: [] };
}

const RULE_KEYS = ['image', 'users', 'networks'];

/** The same, or in the file a mapping `{image, users, networks}`, which is for some clients alone. @throws {BadValue} */
export function parseImageRule(raw: unknown): ImageRule {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return parseImagePattern(raw);
  const { image, users = [], networks = [] } = raw as Record<string, unknown>;
  const unknown = Object.keys(raw).find((key) => !RULE_KEYS.includes(key));
  if (unknown !== undefined) throw new BadValue(`has the unknown key "${unknown}"; known are ${RULE_KEYS.join(', ')}`);
  return {
    ...parseImagePattern(image),
    users: parseList(parseUser)(users),
    networks: parseList(parseCidr)(networks),
  };
}

function parseUser(raw: unknown): string {
  if (typeof raw === 'string' && raw.trim() !== '') return raw.trim();
  throw new BadValue('names a user that is no text');
}

function imageRuleText({ pattern, allows, users, networks }: ImageRule): string {
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
