import type { SharedState } from '../admin/operation.ts';
import { iso } from '../kit/time.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { State } from './state.ts';

type Fleet = NonNullable<State['fleet']>;

/** The database of a fleet, for an operator. */
export function sharedState({ database, feed, reseal, measure }: Fleet): SharedState {
  return {
    describe() {
      const { reachable, since, trouble } = feed.contact;
      return { where: database.where, reachable, since: iso(since), trouble };
    },
    measure,
    reseal,
  };
}

/**
 * What whoever asks whether the gateway is ready should know although it is; null where that is nothing. Strangers may ask: where the database is, and what it
 * said, is for `gateway status` and the log.
 */
export function remarkOn({ fleet }: Pick<State, 'fleet'>): string | null {
  const contact = fleet?.feed.contact;
  if (contact === undefined || contact.reachable) return null;
  return `the database has not been there since ${iso(contact.since)}: pulls go on as things were then; why: gateway status`;
}

/** What a gateway with a shared database has to say of it. */
export function measureFleet(metrics: Metrics, { feed, nodes }: Fleet): void {
  metrics.gauge('database_up', '1 while the shared database answers, 0 while it does not.', [], (gauge) =>
    gauge.set(feed.contact.reachable ? 1 : 0),
  );
  metrics.gauge('nodes', 'Gateways that share the database, as far as this one knows.', [], (gauge) =>
    gauge.set(nodes.live().length),
  );
}
