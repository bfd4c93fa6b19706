import { type ImageRule, imageRuleText } from '../config/images.ts';
import { Glob } from '../kit/glob.ts';
import { isPattern, patternExpression } from '../oci/names.ts';
import { ImagePattern } from './image-pattern.ts';

/** A rule that never decides anything, and why, in words. */
export interface FutileRule {
  readonly rule: string;
  readonly why: string;
  /** What to do about it. */
  readonly next: string;
}

/**
 * Rules that can never match, or never decide: their registry is not in the table, whoever they are for is no user, or a later rule is for all that they are for.
 * @param registries hosts and patterns of the table
 */
export function futileRules(
  rules: readonly ImageRule[],
  registries: Iterable<string>,
  users: ReadonlySet<string>,
): FutileRule[] {
  const hosts = [...registries];
  const read = rules.map((rule) => ({ rule, text: imageRuleText(rule), pattern: new ImagePattern(rule.pattern) }));
  return read.flatMap(({ rule, text, pattern }, index) => {
    const registry = pattern.name.split('/')[0] ?? '';
    if (!hosts.some((host) => mayBe(registry, host)))
      return [
        {
          rule: text,
          why: `no registry of the table is called ${registry}`,
          next: registry.includes('*')
            ? 'compare it with: gateway registry ls'
            : `correct it, or add the registry: gateway alias add NAME ${registry}`,
        },
      ];
    if (rule.users.length > 0 && !rule.users.some((user) => users.has(user)))
      return [
        {
          rule: text,
          why: `there is no user ${rule.users.join(' or ')}`,
          next: 'compare it with: gateway user ls',
        },
      ];
    const later = read.slice(index + 1).find((other) => {
      // What opens digests goes on where all of a repository is allowed, too.
      const decides = !(pattern.forDigests && rule.allows) || other.pattern.forDigests || !other.rule.allows;
      return decides && isForAllOf(other.rule, rule) && other.pattern.covers(pattern);
    });
    if (later === undefined) return [];
    return [
      {
        rule: text,
        why: `${later.text} stands behind it and is for all that it is for, and the last that matches decides`,
        next: 'leave it out, or put it behind that one',
      },
    ];
  });
}

/** Whether a name of a registry in a rule can be that of a row of the table; where both have stars, it is taken for possible. */
function mayBe(registry: string, host: string): boolean {
  if (!registry.includes('*')) return isPattern(host) ? patternExpression(host).test(registry) : registry === host;
  // Its star may stand for the slash and what is behind it, so that only its beginning has to fit.
  const begin = registry.slice(0, registry.indexOf('*'));
  return isPattern(host) || new Glob(`${begin}*`).matches(host);
}

/** Whether the one rule holds for everybody for whom the other one does, as far as that is plain to see. */
function isForAllOf(one: ImageRule, other: ImageRule): boolean {
  const same = (left: readonly string[], right: readonly string[]) =>
    left.length === right.length && left.every((item) => right.includes(item));
  return (
    (one.users.length === 0 || same(one.users, other.users)) &&
    (one.networks.length === 0 || same(one.networks, other.networks))
  );
}
