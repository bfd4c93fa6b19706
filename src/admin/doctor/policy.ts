import { futileRules } from '../../policy/futile-rules.ts';
import type { OperationsDeps } from '../operation.ts';
import type { Finding } from './finding.ts';

/** Rules of what may pass that do nothing: most often a name is misspelt, and what they were to refuse passes. */
export async function checkPolicy({
  config: { policy },
  table,
  users,
}: Pick<OperationsDeps, 'config' | 'table' | 'users'>): Promise<Finding[]> {
  const { images, cooldownImages } = policy;
  if (images.length === 0 && cooldownImages.length === 0) return [];
  const hosts = [...table.snapshot().registries.keys()];
  const names = new Set((await users.list()).map(({ name }) => name));
  return Object.entries({ images, cooldownImages }).flatMap(([key, rules]) => {
    const futile = futileRules(rules, hosts, names);
    const name = `policy ${key}`;
    if (futile.length > 0)
      return futile.map(({ rule, why, next }): Finding => {
        return { name, level: 'warn', message: `"${rule}" never decides anything: ${why}`, next };
      });
    const message = `${rules.length} ${rules.length === 1 ? 'pattern' : 'patterns'}, each of which can decide`;
    return rules.length === 0 ? [] : [{ name, level: 'ok', message }];
  });
}
