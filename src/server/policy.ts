import { rowNameOf } from '../aliases/lookup.ts';
import type { Config } from '../config/config.ts';
import type { Lifecycle } from '../kit/process.ts';
import { steadyNow } from '../kit/time.ts';
import type { RepositoryKey } from '../oci/names.ts';
import { Cooldown } from '../policy/cooldown.ts';
import { ImageHistory } from '../policy/history.ts';
import { ImagePolicy, type ImageRefusal } from '../policy/image-policy.ts';
import { Refusals } from '../policy/refusals.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { State } from './state.ts';

/** What is remembered of images, and what may pass by it and by the operator's rules. */
export interface Passage {
  readonly history: ImageHistory;
  readonly policy: ImagePolicy;
  readonly cooldown: Cooldown;
  /** As `ProxyCoreOptions.share`. */
  readonly share?: (key: RepositoryKey) => Promise<void>;
}

/**
 * What may pass: for a gateway that serves, and for a command on a data directory at rest.
 * @param config as it is now; policy and cooldown take their rules with the core's configuration
 */
export function openPassage(
  config: () => Pick<Config, 'policy'>,
  { table, history: store, fleet }: Pick<State, 'table' | 'history' | 'fleet'>,
  { metrics, log, lifecycle }: { readonly metrics: Metrics; readonly log: Logger; readonly lifecycle: Lifecycle },
): Passage {
  // By the rules in force, which are others before the configuration is.
  const needsNames = (): boolean => policy.needsTags || cooldown.isOn;
  const history = new ImageHistory({ store, needsNames, log });
  lifecycle.defer('what was seen of images', () => history.close());
  const refusals = new Refusals(metrics, log, (registry) => rowNameOf(table.snapshot(), registry));
  const onRefusal = (refusal: ImageRefusal) => refusals.note(refusal);
  const policy = new ImagePolicy({ rules: config().policy.images, history, onRefusal });
  const cooldown = new Cooldown({ history, config: config().policy, now: steadyNow });
  return { history, policy, cooldown, ...(fleet === null ? {} : { share: (key) => history.settled(key) }) };
}
