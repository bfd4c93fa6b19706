import type { Progress } from '../../cache/admin.ts';
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
      const pruning = deps.cache().prune({ all, olderThan, registry: named }, throttled(context), context.signal);
      const pruned = await pruning.finally(() => deps.live?.forget());
      // A registry may have left the table and its content the cache not yet, so an unknown one is a mistake only where nothing was dropped.
      if (named !== undefined && pruned.blobs + pruned.manifests + pruned.inUse === 0) deps.table.registry(named);
      return pruned;
    },

    'cache.verify': async (_input, context) => {
      const verifying = deps.cache().verify(throttled(context), context.signal);
      return verifying.finally(() => deps.live?.forget());
    },
  };
}

function throttled(context: OperationContext): (progress: Progress) => void {
  let last = 0;
  return ({ done, total }) => {
    const now = performance.now();
    if (now - last < PROGRESS_EVERY && done < total) return;
    last = now;
    context.step('progress', '', { done, total });
  };
}
