import { rowNameOf } from '../aliases/lookup.ts';
import type { Config } from '../config/config.ts';
import { ImagePolicy } from '../policy/image-policy.ts';
import { Refusals } from '../policy/refusals.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { State } from './state.ts';

/** What may pass: for a gateway that serves, and for a command on a data directory at rest. */
export function openPolicy(
  config: Pick<Config, 'policy'>,
  { table }: Pick<State, 'table'>,
  { metrics, log }: { readonly metrics: Metrics; readonly log: Logger },
): ImagePolicy {
  const refusals = new Refusals(metrics, log, (registry) => rowNameOf(table.snapshot(), registry));
  return new ImagePolicy({
    rules: config.policy.images,
    history: null,
    onRefusal: (refusal) => refusals.note(refusal),
  });
}
