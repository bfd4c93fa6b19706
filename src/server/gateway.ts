import { randomBytes } from 'node:crypto';
import { Access } from '../access/access.ts';
import { Quotas } from '../access/limits.ts';
import { Users } from '../access/users.ts';
import type { LiveGateway } from '../admin/operation.ts';
import { createOperations } from '../admin/operations/index.ts';
import { probeListener } from '../admin/probe.ts';
import { startAdminServer } from '../admin/socket.ts';
import { createCache } from '../cache/cache.ts';
import type { Config, ListenAddress } from '../config/config.ts';
import { Edge } from '../edge/edge.ts';
import type { BoundAddress, EdgeAddresses } from '../edge/listeners.ts';
import { Lifecycle } from '../kit/lifecycle.ts';
import { version } from '../kit/version.ts';
import { createProxyCore } from '../proxy/core.ts';
import { ManifestCache } from '../proxy/manifest-cache.ts';
import { repliesTally } from '../proxy/reply.ts';
import { openCacheIndex } from '../sqlite/cache-index.ts';
import { SqliteCounterStore } from '../sqlite/counter-store.ts';
import { SqliteUserStore } from '../sqlite/user-store.ts';
import type { LineSink, Logger } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { createUpstream } from '../upstream/registry-upstream.ts';
import { Crew } from './crew.ts';
import { openState } from './state.ts';

/** How long running pulls may go on once the gateway is asked to end, ms: long for a layer, shorter than what service managers wait (90 s). */
const GRACE = 60_000;

export interface RunningGateway {
  /** As they were bound, `host:port`. */
  readonly addresses: {
    readonly https: readonly string[];
    readonly http: readonly string[];
    readonly metrics: string | null;
  };
  /** Stops accepting, lets running pulls end, then ends everything; never rejects. */
  close(reason: string): Promise<void>;
}

/**
 * Builds the house and opens its doors: the one place where rooms are wired. Resolves when the gateway is ready.
 * @throws {OperatorError} where the data directory is in use, a port is taken, the database is newer …
 */
export async function startGateway(options: {
  readonly config: Config;
  readonly log: Logger;
  /** Where the access log writes its lines; null, or left out: through `log`. */
  readonly logLines?: LineSink | null;
  readonly warnings: readonly string[];
}): Promise<RunningGateway> {
  const { config, log, logLines = null, warnings } = options;
  const startedAt = new Date();
  const opened = new Lifecycle();
  const end = () => opened.end((what, error) => log.error({ err: error }, `${what} did not end well`));
  for (const warning of warnings) log.warn(warning);

  try {
    const metrics = new Metrics();
    const state = await openState({ config, log, metrics, activity: 'serve' });
    opened.defer('the state', () => state.close());
    const { database, table, certificates } = state;

    const routes = (registry: string) => table.snapshot().registries.get(registry);
    const upstream = createUpstream({ routes, config: config.upstream, log, metrics });
    opened.defer('the upstream connections', () => upstream.close());

    const index = openCacheIndex(config.dataDir, log);
    const cache = createCache({ dataDir: config.dataDir, config: config.cache, index, log, metrics });
    opened.defer('the cache', () => cache.close());

    const replies = repliesTally(metrics);
    const core = createProxyCore({
      upstream,
      blobs: config.cache.maxSize === 0 ? null : cache,
      manifests: cache.manifests,
      table: () => table.snapshot(),
      config: config.cache,
      log,
      metrics,
      replies,
    });

    opened.defer('the proxy core', () => core.close());
    table.subscribe(() => core.invalidate());

    const users = await Users.open(new SqliteUserStore(database), log);
    opened.defer('the users', () => users.close());
    const quotas = await Quotas.open({ ...config.limits, store: new SqliteCounterStore(database), now: Date.now });
    const access = new Access({ rules: config.access, limits: config.limits, users, quotas, log });
    opened.defer('the access rules', () => access.close());

    let ready: true | string = 'starting';
    const ticketKeys = randomBytes(48);
    let crew: Crew | null = null;
    const edge = new Edge({
      config,
      table: () => table.snapshot(),
      certificates,
      proxy: new ManifestCache({ core, replies }),
      access,
      ready: () => ready,
      log,
      logLines,
      metrics,
      version: version(),
      ticketKeys,
      handOver: (socket, own) => crew?.handOver(socket, own) ?? false,
    });
    await certificates?.start(state.coveredHosts());
    const bound = await edge.listen();
    if (config.listen.workers > 1) {
      const { https, http } = bound;
      crew = new Crew({
        config: { ...config, listen: { ...config.listen, https: asListen(https), http: asListen(http) } },
        version: version(),
        ticketKeys,
        state,
        users,
        access,
        core,
        ready: () => ready,
        serve: (socket) => edge.accept(socket),
        metrics,
        log,
      });
      crew.start().catch((error: unknown) => log.error({ err: error }, 'a worker did not start; the others serve'));
    }
    opened.defer('the listeners', () => Promise.all([edge, crew].map((part) => part?.close({ graceMs: GRACE }))));

    const addresses = asText(bound);
    const live: LiveGateway = {
      pid: process.pid,
      startedAt,
      get workers() {
        return crew?.processes ?? 1;
      },
      addresses,
      upstream,
      traffic: async () => ({
        requests: await metrics.total('http_requests_total'),
        bytesSent: await metrics.total('http_sent_bytes_total'),
        bytesFetched: await metrics.total('upstream_bytes_total'),
      }),
      probe: (host, signal) => probeListener(ownListener(bound), host, signal),
      settled: () => crew?.settled() ?? Promise.resolve(),
      forget: () => core.invalidate(),
    };
    const operations = createOperations({
      config,
      version: version(),
      table,
      users,
      certificates,
      cache: () => cache.admin,
      live,
    });
    const admin = await startAdminServer({ dataDir: config.dataDir, operations, log });
    opened.defer('the admin socket', () => admin.close());

    ready = true;
    await live.settled();
    log.info({ ...addresses, dataDir: config.dataDir, version: version() }, 'ready');
    return {
      addresses,
      async close(reason) {
        log.info({ reason }, 'ending; running pulls may finish');
        ready = 'shutting down';
        await end();
        log.info('ended');
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

/** The listener that `alias add` asks whether it serves the alias. */
function ownListener({ https, http }: EdgeAddresses): { host: string; port: number; tls: boolean } {
  const at = https ?? http;
  if (at === null) throw new Error('nothing listens');
  return { host: reachable(at.address), port: at.port, tls: https !== null };
}

/** An address of this machine that reaches a listener bound to all of them. */
function reachable(address: string): string {
  return address === '::' || address === '0.0.0.0' ? '127.0.0.1' : address;
}

function asListen(bound: BoundAddress | null): ListenAddress | null {
  return bound === null ? null : { host: bound.address, port: bound.port };
}

function asText({ https, http, metrics }: EdgeAddresses): RunningGateway['addresses'] {
  const text = ({ address, port }: BoundAddress) => `${address.includes(':') ? `[${address}]` : address}:${port}`;
  return {
    https: https === null ? [] : [text(https)],
    http: http === null ? [] : [text(http)],
    metrics: metrics === null ? null : text(metrics),
  };
}
