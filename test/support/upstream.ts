import { silentLog } from '../../src/telemetry/log.ts';
import { Metrics } from '../../src/telemetry/metrics.ts';
import { createUpstream, type UpstreamLimits } from '../../src/upstream/registry-upstream.ts';
import type { Route, TagsRequest, Upstream } from '../../src/upstream/upstream.ts';

export interface TestUpstream extends Upstream {
  /** Routes by registry; may be changed while the test runs. */
  readonly routes: Map<string, Route>;
}

/** A question for a page of tags. */
export function tagsRequest(page: string | null = 'list'): TagsRequest {
  return { page: page ?? 'list', n: undefined, last: undefined, isNext: false };
}

/** The real upstream over given endpoints. Proxies of the environment are ignored unless given. */
export function startUpstream(
  routes: Record<string, Partial<Route> & { endpoints: readonly string[] }>,
  options: {
    proxy?: string | null;
    caFile?: string;
    stallTimeout?: number;
    connections?: number;
    environment?: Record<string, string>;
    limits?: Partial<UpstreamLimits>;
  } = {},
): TestUpstream {
  const table = new Map<string, Route>();
  for (const [host, route] of Object.entries(routes))
    table.set(host, { host, proxy: null, credentials: null, realms: [], named: [], ca: null, ...route });
  const upstream = createUpstream({
    route: (registry) => table.get(registry),
    pseudonym: 'registry-gateway-0123456789abcdef',
    config: {
      proxy: options.proxy ?? null,
      caFile: options.caFile ?? null,
      stallTimeout: options.stallTimeout ?? 10_000,
      connections: options.connections ?? 4,
    },
    log: silentLog(),
    metrics: new Metrics(),
    environment: options.environment ?? {},
    limits: options.limits ?? {},
  });
  return Object.assign(upstream, { routes: table });
}
