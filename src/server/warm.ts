import type { Access } from '../access/access.ts';
import type { CacheAdmin } from '../cache/admin.ts';
import type { FillBudget } from '../cache/allowance.ts';
import type { ImageSource } from '../images/image-source.ts';
import type { Lifecycle } from '../kit/process.ts';
import { OPERATOR } from '../proxy/core-source.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { WarmKeeper } from '../warm/keeper.ts';
import { WarmService } from '../warm/service.ts';
import { Warmer } from '../warm/warmer.ts';
import type { State } from './state.ts';

/** What the operator fetches by commands and schedules takes nothing of clients' quotas, and is not held up by them. */
export function unlessOperator(clients: Pick<Access, 'fill' | 'mayFetch' | 'fetched'>) {
  return {
    fetched: (client: string, bytes: number): void => {
      if (client !== OPERATOR) clients.fetched(client, bytes);
    },
    fill: (client: string): FillBudget | null => (client === OPERATOR ? null : clients.fill(client)),
    mayFetch: (client: string): boolean => client === OPERATOR || clients.mayFetch(client),
  };
}

/** Keeps images at hand while the gateway runs. */
export function startWarm(
  { log, metrics, lifecycle }: { readonly log: Logger; readonly metrics: Metrics; readonly lifecycle: Lifecycle },
  { state, cache, images }: { readonly state: State; readonly cache: CacheAdmin; readonly images: ImageSource },
): WarmService {
  const { warm: store, nodes, locks } = state;
  const warmer = new Warmer({ images: () => images, cache: () => cache });
  const service = new WarmService({ store, warmer, cache: () => cache, node: nodes.self.id });
  const keeper = WarmKeeper.start({ service, pins: cache.pins, locks, log, metrics });
  lifecycle.defer('what fetches images by their schedules', () => keeper.close());
  return service;
}
