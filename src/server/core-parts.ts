import type { Cache } from '../cache/cache.ts';
import type { Config } from '../config/config.ts';
import { Lifecycle } from '../kit/process.ts';
import { UntouchedHistory } from '../policy/untouched-history.ts';
import type { CoreParts, Unplugged } from '../proxy/unplugged.ts';
import { silentLog } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { openPassage, type Passage } from './policy.ts';
import type { State } from './state.ts';

/** What a proxy core answers by, beside the rules of what may pass; as the configuration is when it is made, later changes come by `reconfigure`. */
export function coreParts(config: () => Config, { table }: Pick<State, 'table'>, cache: Cache): CoreParts {
  const { cache: settings } = config();
  return {
    blobs: () => (config().cache.maxSize === 0 ? null : cache),
    facts: cache.facts,
    manifests: cache.manifests,
    lists: cache.lists,
    content: cache.shared,
    table: table.snapshot,
    config: { ...settings, redirect: settings.s3.redirect },
  };
}

/** A gateway, or a data directory at rest. */
export interface Pluggable {
  readonly config: () => Config;
  readonly state: Pick<State, 'table' | 'history'>;
  readonly cache: Cache;
  readonly passage: Passage;
}

/** See `OperationsDeps.unplugged`. */
export async function unplug({ config, state, cache, passage }: Pluggable, signal: AbortSignal): Promise<Unplugged> {
  // What was seen until now counts; it would be written a moment later in any case.
  await passage.history.flush().catch(() => {});
  const lifecycle = new Lifecycle();
  const { table } = state;
  // Rules of its own: what they refuse to a drill nobody was refused, and what a drill is given nobody has seen.
  const { policy, cooldown, history } = openPassage(
    config,
    { table, fleet: null, history: new UntouchedHistory(state.history) },
    { metrics: new Metrics(), log: silentLog(), lifecycle },
  );
  const { createUnpluggedCore } = await import('../proxy/unplugged.ts');
  const kept = cache.untouched(signal);
  const core = createUnpluggedCore({ ...coreParts(config, state, cache), policy, cooldown, history }, kept, null);
  lifecycle.defer('the core', () => core.close());
  return { core, kept, cooldown, close: () => lifecycle.end(() => {}) };
}
