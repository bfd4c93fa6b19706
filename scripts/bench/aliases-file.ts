import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GATEWAY, ORIGIN_HOST } from './peers.ts';

/** Fills the alias table of a data directory with `count` aliases, before a gateway runs on it. Returns the hosts. */
export function addAliases(dataDir: string, origin: string, count: number): string[] {
  mkdirSync(dataDir, { recursive: true });
  const names = Array.from({ length: count }, (_, index) => `a${index}`);
  const file = join(dataDir, '..', `aliases-${count}.yaml`);
  writeFileSync(
    file,
    `registries:\n  ${ORIGIN_HOST}:\n    endpoints: ['${origin}']\n    aliases: [${names.join(', ')}]\n`,
  );
  execFileSync(GATEWAY, ['alias', 'import', file], {
    env: { ...process.env, GATEWAY_DATA_DIR: dataDir },
    stdio: 'ignore',
  });
  return names.map((name) => `${name}.localhost`);
}
