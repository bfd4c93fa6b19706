import { loadConfig } from '../../src/config/load.ts';
import { runOffline } from '../../src/server/offline.ts';

/**
 * Makes a data directory as the first start of a gateway does, and runs operations on it: commands make none. The settings are those of the
 * environment; each operation is its name and its input.
 */
export async function makeDataDirectory(
  env: Readonly<Record<string, string | undefined>>,
  operations: readonly (readonly [operation: string, input: unknown])[] = [],
): Promise<void> {
  const { config } = loadConfig({ env, cwd: process.cwd(), cores: 1, terminal: false });
  const context = { step: () => {}, signal: new AbortController().signal };
  for (const [operation, input] of [['alias.export', {}] as const, ...operations]) {
    await runOffline(config, operation, input, context);
  }
}
