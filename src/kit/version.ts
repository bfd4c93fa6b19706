import { existsSync, readFileSync } from 'node:fs';

/** The program's version, from its package.json: one directory above `src/`, two above `dist/src/`. */
export function version(): string {
  for (const place of ['../../package.json', '../../../package.json']) {
    const file = new URL(place, import.meta.url);
    if (existsSync(file)) return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
  }
  return 'unknown';
}
