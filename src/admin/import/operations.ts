import type { Additions } from '../../aliases/additions.ts';
import type { RegistryDeclaration } from '../../aliases/import-export.ts';
import { registryOf } from '../../aliases/lookup.ts';
import { OperatorError } from '../../kit/operator-error.ts';
import { steadyNow, throttled } from '../../kit/time.ts';
import { DEFAULT_CREDENTIAL, openerOf } from '../../oci/credentials.ts';
import type { LayersImported, Operation } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';
import { DistributionStorage } from './distribution-storage.ts';
import { importLayers } from './layers.ts';

/** A bar needs no more pictures than this, ms. */
const PROGRESS_EVERY = 100;

/** What `gateway import` does to the table and the cache; files that describe another program are read by the command itself. */
export function importOperations(deps: OperationsDeps): Record<string, Operation> {
  let isRunning = false;
  return {
    'import.table': async (input): Promise<Additions> => {
      const { rows, take } = await parseInput('import.table', input);
      // What was JSON has no key that is undefined.
      const result = await deps.table.additions(rows as RegistryDeclaration[], take);
      if (take) await deps.live?.settled();
      return result;
    },

    'import.layers': async (input, context): Promise<LayersImported> => {
      const { root, registry, closed, link } = await parseInput('import.layers', input);
      const { config, table } = deps;
      if (config.cache.maxSize === 0) {
        throw new OperatorError('IMPORT_NOT_KEPT', 'this gateway keeps nothing: cache.maxSize is 0', {
          next: 'set cache.maxSize to what the layers take, and import them then',
        });
      }
      const own = registry === null ? null : registryOf(table.snapshot(), registry);
      if (own === undefined) {
        throw new OperatorError(
          'REGISTRY_UNKNOWN',
          `the registry ${registry} is not in the table, so none of its layers would be served`,
        );
      }
      if (isRunning) throw new OperatorError('IMPORT_RUNS', 'another import takes layers over already');
      isRunning = true;
      try {
        const tell = throttled<{ done: number; total: number; bytes: number }>(PROGRESS_EVERY, (progress) =>
          context.step('progress', '', progress),
        );
        return await importLayers({
          storage: await DistributionStorage.open(root),
          registry: own?.host ?? null,
          // Of the table, credentials that another program had are those of the row; of a registry alone, as its configuration says.
          shown: (key) => {
            if (own !== null) return closed ? DEFAULT_CREDENTIAL : 'anyone';
            const row = registryOf(table.snapshot(), key.registry);
            return (row === undefined ? null : openerOf(row, key.repository)) ?? 'anyone';
          },
          link,
          table: table.snapshot,
          intake: deps.cache().intake,
          tagTtl: config.cache.tagTtl,
          now: steadyNow(),
          progress: (done, total, bytes) => tell({ done, total, bytes }, done >= total),
          signal: context.signal,
        });
      } finally {
        isRunning = false;
        deps.live?.forget();
      }
    },
  };
}
