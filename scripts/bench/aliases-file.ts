import { makeDataDirectory } from '../../test/support/data-directory.ts';
import { ORIGIN_HOST } from './peers.ts';

/** Fills the alias table of a data directory with `count` aliases, before a gateway runs on it. Returns the hosts. */
export async function addAliases(dataDir: string, origin: string, count: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, index) => `a${index}`);
  const yaml = `registries:\n  ${ORIGIN_HOST}:\n    endpoints: ['${origin}']\n    aliases: [${names.join(', ')}]\n`;
  await makeDataDirectory({ GATEWAY_DATA_DIR: dataDir }, [['alias.import', { yaml, file: `${count} aliases` }]]);
  return names.map((name) => `${name}.localhost`);
}
