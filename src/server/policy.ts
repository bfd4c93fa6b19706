import { rowNameOf } from '../aliases/lookup.ts';
import type { Config } from '../config/config.ts';
import type { Lifecycle } from '../kit/process.ts';
import { steadyNow } from '../kit/time.ts';
import { Cooldown } from '../policy/cooldown.ts';
import { ImageHistory, namesNeeded } from '../policy/history.ts';
import { ImagePolicy } from '../policy/image-policy.ts';
import { Refusals } from '../policy/refusals.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { State } from './state.ts';

/** What is remembered of images, and what may pass by it and by the operator's rules. */
export interface Passage {
  readonly history: ImageHistory;
  readonly policy: ImagePolicy;
  readonly cooldown: Cooldown;
}

/**
 * What may pass: for a gateway that serves, and for a command on a data directory at rest.
 * @param config as it is now; policy and cooldown take their rules with the core's configuration
 */
export function openPassage(
  config: () => Pick<Config, 'policy'>,
  { table, history: store }: Pick<State, 'table' | 'history'>,
  { metrics, log, lifecycle }: { readonly metrics: Metrics; readonly log: Logger; readonly lifecycle: Lifecycle },
): Passage {
  const history = new ImageHistory({ store, needsNames: () => namesNeeded(config().policy), log });
  lifecycle.defer('what was seen of images', () => history.close());
  const refusals = new Refusals(metrics, log, (registry) => rowNameOf(table.snapshot(), registry));
  const { policy } = config();
  return {
    history,
    policy: new ImagePolicy({ rules: policy.images, history, onRefusal: (refusal) => refusals.note(refusal) }),
    cooldown: new Cooldown({ history, config: policy, now: steadyNow }),
  };
}
