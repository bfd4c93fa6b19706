import { globSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cruise, type ICruiseResult, type IForbiddenRuleType } from 'dependency-cruiser';

export interface FloorsReport {
  /** Files under src, as the disk has them. */
  readonly files: number;
  /** Those of them that dependency-cruiser read. */
  readonly seen: number;
  /** One line each; empty where nothing is wrong. */
  readonly problems: readonly string[];
  /** Names of the rules that were broken. */
  readonly broken: readonly string[];
}

interface FloorsConfig {
  readonly forbidden: readonly (IForbiddenRuleType & { readonly name: string })[];
  readonly options: Record<string, unknown>;
  readonly rooms: readonly { readonly name: string; readonly floor: number; readonly paths: readonly string[] }[];
}

export const floors = createRequire(import.meta.url)('../../.dependency-cruiser.cjs') as FloorsConfig;

/**
 * Holds the tree under `baseDir`/src against the floors. Besides broken rules, these are problems: a file that was not read (a check
 * that sees less than there is proves nothing), a file in no room, and a room without files (its rules would guard nothing).
 */
export async function checkFloors(baseDir: string, options = floors.options): Promise<FloorsReport> {
  const files = globSync('src/**/*.{ts,mts,cts,js,mjs,cjs,tsx,jsx}', { cwd: baseDir });
  const { forbidden, rooms } = floors;
  const { output } = await cruise(['src'], {
    ...options,
    baseDir,
    ruleSet: { forbidden: [...forbidden] },
    validate: true,
  });
  const result = output as ICruiseResult;
  const read = new Set(result.modules.filter((module) => module.source.startsWith('src/')).map(({ source }) => source));

  const problems = result.summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`);
  for (const file of files) {
    if (!read.has(file)) problems.push(`not read: ${file}`);
    if (!rooms.some(({ paths }) => inRoom(paths, file))) {
      problems.push(`in no room: ${file} (the rooms are in .dependency-cruiser.cjs)`);
    }
  }
  for (const { name, paths } of rooms) {
    if (!files.some((file) => inRoom(paths, file))) problems.push(`a room without files: ${name}`);
  }
  return {
    files: files.length,
    seen: files.filter((file) => read.has(file)).length,
    problems,
    broken: [...new Set(result.summary.violations.map(({ rule }) => rule.name))],
  };
}

function inRoom(paths: readonly string[], file: string): boolean {
  return paths.some((path) => new RegExp(path).test(file));
}
