import type { UntouchedCache } from '../cache/untouched.ts';
import { RegistryError } from '../oci/errors.ts';
import type { Cooldown } from '../policy/cooldown.ts';
import { Metrics } from '../telemetry/metrics.ts';
import type { Upstream } from '../upstream/upstream.ts';
import type { SharedDownloads } from './blob-fills.ts';
import { createProxyCore, type ManagedProxyCore, type ProxyCoreOptions } from './core.ts';
import { type ProxyCore, repliesTally } from './reply.ts';

/** No registry can be reached: every question fails as it does where the network is gone, and nothing is sent. */
class NoUpstream implements Upstream {
  manifest = unreachable;
  statBlob = unreachable;
  openBlob = unreachable;
  download = unreachable;
  tags = unreachable;
  referrers = unreachable;
  async close(): Promise<void> {}

  countsPulls(): boolean {
    return false;
  }

  setAside(): void {}

  budgets(): [] {
    return [];
  }

  outOfReach(): boolean {
    return true;
  }

  health(): [] {
    return [];
  }

  wellbeing(): 'down' {
    return 'down';
  }
}

async function unreachable({ registry }: { readonly registry: string }): Promise<never> {
  throw new RegistryError('upstreamFailed', { facts: { registry, reason: 'it is out of reach' } });
}

/** Of a core, what another one like it needs. */
export type CoreParts = Omit<
  ProxyCoreOptions,
  'upstream' | 'metrics' | 'replies' | 'fetched' | 'budget' | 'denials' | 'prefetch'
>;

/** The gateway with every registry out of reach, for one look at it. */
export interface Unplugged {
  readonly core: ProxyCore;
  readonly kept: UntouchedCache;
  /** By which the core says what is too young. */
  readonly cooldown: Cooldown;
  /** To be called when it has been looked at. */
  close(): Promise<void>;
}

/**
 * A core like that of the gateway, with the same table and rules, over what the cache holds now, whose registries are all out of reach. What it answers is what
 * clients of the gateway would be answered then; to ask it changes nothing.
 * @param shared what other gateways would give; null where there are none
 */
export function createUnpluggedCore(
  parts: CoreParts,
  kept: UntouchedCache,
  shared: SharedDownloads | null,
): ManagedProxyCore {
  const { blobs, facts, shared: _, ...rules } = parts;
  const metrics = new Metrics();
  return createProxyCore({
    ...rules,
    upstream: new NoUpstream(),
    blobs: () => (blobs() === null ? null : kept),
    facts: facts === null ? null : kept.facts,
    manifests: kept.manifests,
    lists: kept.lists,
    content: kept.shared,
    metrics,
    replies: repliesTally(metrics),
    ...(shared === null ? {} : { shared }),
  });
}
