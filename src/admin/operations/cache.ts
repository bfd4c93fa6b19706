import type { Progress } from '../../cache/admin.ts';
import { throttled } from '../../kit/time.ts';
import { canonicalRegistry } from '../../oci/known-registries.ts';
import type { Operation, OperationContext } from '../contract.ts';
import { type OperationsDeps, parseInput } from '../operation.ts';

/** A bar needs no more pictures than this, ms. */
const PROGRESS_EVERY = 100;

export function cacheOperations(deps: OperationsDeps): Record<string, Operation> {
  return {
    'cache.stats': async () => deps.cache().stats(),

    'cache.prune': async (input, context) => {
      const { olderThan, registry } = await parseInput('cache.prune', input);
      const all = olderThan === undefined && registry === undefined;
      const named = registry === undefined ? undefined : canonicalRegistry(registry.toLowerCase());
      const pruning = deps.cache().prune({ all, olderThan, registry: named }, progressOf(context), context.signal);
      const pruned = await pruning.finally(() => deps.live?.forget());
      // A registry may have left the table and its content the cache not yet, so an unknown one is a mistake only where nothing was dropped.
      if (named !== undefined && pruned.blobs + pruned.manifests + pruned.inUse === 0) deps.table.registry(named);
      return pruned;
    },

    'cache.verify': async (_input, context) => {
      const verifying = deps.cache().verify(progressOf(context), context.signal);
      return verifying.finally(() => deps.live?.forget());
    },
  };
}

function progressOf(context: OperationContext): (progress: Progress) => void {
  const tell = throttled<Progress>(PROGRESS_EVERY, ({ done, total }) => context.step('progress', '', { done, total }));
  return (progress) => tell(progress, progress.done >= progress.total);
}
