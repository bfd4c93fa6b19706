import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { RegistryRow } from './rows.ts';
import { readAliasYaml } from './yaml.ts';

/**
 * The rows of `aliases/*.yaml` of the package, which fill a new table.
 * The package's root is the first directory above this file with a `package.json`: one place from `src/`, another from `dist/src/`.
 */
export function seedRows(root = packageRoot(import.meta.dirname)): RegistryRow[] {
  const directory = join(root, 'aliases');
  return readdirSync(directory)
    .filter((name) => name.endsWith('.yaml'))
    .sort()
    .flatMap((name) => readAliasYaml(readFileSync(join(directory, name), 'utf8'), `aliases/${name}`));
}

function packageRoot(from: string): string {
  for (let directory = from; ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'package.json'))) return directory;
    if (dirname(directory) === directory) throw new Error(`no package.json above ${from}`);
  }
}
