import type { OperationContext } from '../admin/contract.ts';
import { createOperations } from '../admin/operations/index.ts';
import { type Cache, createCache } from '../cache/cache.ts';
import type { Config } from '../config/config.ts';
import { OperatorError } from '../kit/operator-error.ts';
import { version } from '../kit/process.ts';
import { silentLog } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { sharedState } from './fleet.ts';
import { openState } from './state.ts';
import { holderOf, openIndex } from './stores.ts';

/** Whether a process works on the data directory, a gateway or a command. */
export function isHeld(dataDir: string): boolean {
  return holderOf(dataDir) !== null;
}

/**
 * Runs one operation on a data directory that no gateway works on: the same operations on the same stores, without listeners and
 * without orders. The directory is held meanwhile, so that no gateway starts on half a change;
 * `opened` is told when it is.
 * @throws {OperatorError} `DATA_DIR_IN_USE` where a gateway or another command holds it
 */
export async function runOffline(
  config: Config,
  name: string,
  input: unknown,
  context: OperationContext & { readonly opened?: () => void },
): Promise<unknown> {
  const log = silentLog();
  const metrics = new Metrics();
  const state = await openState({ config, log, metrics, activity: `gateway ${name.replace('.', ' ')}` });
  context.opened?.();
  let cache: Cache | undefined;
  const openCache = (): Cache => {
    const { dataDir, cache: settings } = config;
    const index = openIndex(dataDir, log);
    return createCache({ dataDir, config: settings, index, log, metrics, maintain: false });
  };
  try {
    const { table, users, certificates, fleet } = state;
    // Not started: it knows its hosts and what is stored, and orders nothing.
    certificates?.cover(state.coveredHosts());
    const operations = createOperations({
      config,
      version: version(),
      pseudonym: state.pseudonym,
      table,
      certificates,
      users,
      cache: () => {
        cache ??= openCache();
        return cache.admin;
      },
      snapshot: state.snapshot,
      nodes: state.nodes,
      shared: fleet === null ? null : sharedState(fleet),
      live: null,
    });
    const operation = operations.get(name);
    if (operation === undefined) throw new OperatorError('OPERATION_UNKNOWN', `there is no operation ${name}`);
    return await operation(input, context);
  } finally {
    await cache?.close();
    await state.close();
  }
}
