import { Access } from '../access/access.ts';
import { Quotas } from '../access/quotas.ts';
import type { ReloadReport } from '../admin/contract.ts';
import type { LiveGateway } from '../admin/operation.ts';
import { createOperations } from '../admin/operations/index.ts';
import { probeListener } from '../admin/probe.ts';
import { startAdminServer } from '../admin/socket.ts';
import { announceGateway } from '../admin/well-known.ts';
import { registryOf } from '../aliases/lookup.ts';
import { type Cache, createCache } from '../cache/cache.ts';
import { StoreKeeper } from '../cache/store-keeper.ts';
import { baseUrl, gatherFacts } from '../clients/facts.ts';
import type { LoadedConfig } from '../config/load.ts';
import { EDGE_LIMITS } from '../edge/servers.ts';
import { TicketKeys } from '../edge/tls.ts';
import { Lifecycle, version } from '../kit/process.ts';
import { steadyNow } from '../kit/time.ts';
import type { Digest } from '../oci/names.ts';
import { HistoryKeeper } from '../policy/history-keeper.ts';
import { createProxyCore } from '../proxy/core.ts';
import { CoreSource } from '../proxy/core-source.ts';
import { registryOutlines } from '../proxy/outline.ts';
import { repliesTally } from '../proxy/reply.ts';
import { Activity } from '../telemetry/activity.ts';
import { History } from '../telemetry/history.ts';
import type { ProcessLog } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { createUpstream, type ManagedUpstream } from '../upstream/registry-upstream.ts';
import { ConnectionTotals } from '../workers/connection-totals.ts';
import { type AddressTexts, asText, ownListener } from './addresses.ts';
import { announceEnd, joinCluster, serveNodes } from './cluster.ts';
import { coreParts, unplug } from './core-parts.ts';
import { measureFleet, sharedState } from './fleet.ts';
import { buildEdge, startWorkers } from './front.ts';
import { measureGateway, sampleOf } from './own-metrics.ts';
import type { Base, Parts } from './parts.ts';
import { openPassage, type Passage } from './policy.ts';
import { Reloader } from './reload.ts';
import { openState, type State } from './state.ts';
import { openIndex, openSharedStore } from './stores.ts';
import { startWarm, unlessOperator } from './warm.ts';

export interface RunningGateway {
  /** As they were bound, `host:port`. */
  readonly addresses: AddressTexts;
  /** What helps whoever has started it. */
  readonly hints: StartHints;
  /** Reads the configuration again and takes what can change of it. @throws {OperatorError} where it has problems; nothing has changed then */
  reload(): Promise<ReloadReport>;
  /** Stops accepting, lets running pulls end, then ends everything; never rejects. */
  close(reason: string): Promise<void>;
}

/** Where to go on from here; for a person who looks on, and as fields of the log for programs. */
interface StartHints {
  /** The page for people. */
  readonly page: string;
  /** The root that clients have to trust; null where the certificates are not of the internal CA. */
  readonly ca: string | null;
  /** The next command. */
  readonly next: string;
}

/**
 * Starts the gateway, from its state up to its listeners: the one place where rooms are wired. Resolves when the gateway is ready.
 * @throws {OperatorError} where the data directory is in use, a port is taken, the database is newer …
 */
export async function startGateway(options: {
  readonly loaded: LoadedConfig;
  /** Reads the configuration again, as it was read for `loaded`. */
  readonly read: () => Promise<LoadedConfig>;
  readonly processLog: ProcessLog;
  /** Directories in which commands look for it; left out: it is found by its data directory alone. */
  readonly wellKnown?: readonly string[];
}): Promise<RunningGateway> {
  const { read, processLog, wellKnown = [] } = options;
  const { config, warnings } = options.loaded;
  const { log } = processLog;
  const metrics = new Metrics();
  const reloader = new Reloader({ read, config, log });
  const base: Base = {
    config,
    reloader,
    log,
    logLines: processLog.lines,
    wellKnown,
    metrics,
    replies: repliesTally(metrics),
    lifecycle: new Lifecycle(),
    ready: 'starting',
    draining: false,
    workers: null,
    ticketKeys: new TicketKeys(EDGE_LIMITS.ticketKeysMs).current,
    connections: new ConnectionTotals(),
    activity: new Activity(),
  };
  measureGateway(metrics, { config, workers: () => 1 + (base.workers?.ready ?? 0) });
  const end = () => base.lifecycle.end((what, error) => log.error({ err: error }, `${what} did not end well`));
  for (const warning of warnings) log.warn(warning);
  try {
    const state = await startState(base);
    const upstream = startUpstream(base, { state });
    const access = await startAccess(base, { state });
    const cluster = await joinCluster(state, base);
    const cache = await startCache(base, { state, cluster, access });
    const passage = startPassage(base, { state });
    const core = startProxyCore(base, { state, upstream, cache, cluster, access, passage });
    if (cluster !== null) await serveNodes(cluster, config.cluster.listen, core, base.lifecycle);
    const outlines = registryOutlines(state.table.snapshot, upstream);
    const edge = buildEdge(base, { state, core, access, passage, outlines });
    await state.certificates?.start(state.coveredHosts());
    const bound = await edge.listen();
    startWorkers(base, { state, core, access, outlines, edge, bound });
    const live = liveGateway(base, { upstream, cache, core, access, bound });
    reloader.add(processLog, upstream, state, access, cache, core, edge);
    await startAdmin(base, { state, cache, core, passage, live });

    base.ready = true;
    await live.settled();
    await joinNodes(base, { state, live });
    const hints = await startHints(base, { state, bound });
    const { format } = config.log;
    // A person is told in sentences, by whoever has started it.
    const fields = { ...live.addresses, dataDir: config.dataDir, ...(format === 'json' ? hints : {}) };
    log.info({ ...fields, version: version() }, 'ready');
    return {
      addresses: live.addresses,
      hints,
      reload: () => reloader.reload().finally(() => live.settled()),
      async close(reason) {
        log.info({ reason }, 'ending; running pulls may finish');
        await announceEnd(cluster, state, () => {
          base.draining = true;
          base.workers?.settled().catch(() => {});
        });
        base.ready = 'shutting down';
        await end();
        log.info('ended');
      },
    };
  } catch (error) {
    await end();
    throw error;
  }
}

async function startState(base: Base): Promise<State> {
  const { config, log, metrics, lifecycle } = base;
  const published = async () => base.workers?.settled();
  const serving = { ticketKeysMs: EDGE_LIMITS.ticketKeysMs, published };
  const state = await openState({ config, log, metrics, activity: 'serve', serving, published });
  lifecycle.defer('the state', () => state.close());
  if (state.ticketKeys !== null) base.ticketKeys = state.ticketKeys;
  if (state.fleet !== null) measureFleet(metrics, state.fleet);
  return state;
}

/** From now on the other gateways of the same database wait for this one, and know when it ends. */
async function joinNodes({ lifecycle }: Base, { state, live }: Pick<Parts, 'state' | 'live'>): Promise<void> {
  await state.fleet?.nodes.join(() => live.settled());
  lifecycle.defer('the news that this gateway is ending', () => state.nodes.drain());
}

function startUpstream(base: Base, { state: { table, pseudonym } }: Pick<Parts, 'state'>): ManagedUpstream {
  const { config, log, metrics, lifecycle } = base;
  const route = (registry: string) => registryOf(table.snapshot(), registry);
  const rows = () => table.snapshot().registries.values();
  const upstream = createUpstream({ route, rows, pseudonym, config: config.upstream, log, metrics });
  lifecycle.defer('the upstream connections', () => upstream.close());
  return upstream;
}

async function startCache(
  base: Base,
  { state, cluster, access }: Pick<Parts, 'state' | 'cluster' | 'access'>,
): Promise<Cache> {
  const { config, log, metrics, lifecycle } = base;
  const { dataDir } = config;
  const shared = await openSharedStore(config.cache, state.objects);
  const index = openIndex(dataDir, log);
  const owns = (digest: Digest) => cluster?.owns(digest) ?? true;
  const clients = unlessOperator(access);
  const cache = createCache({ dataDir, config: config.cache, index, shared, clients, owns, log, metrics });
  lifecycle.defer('the cache', () => cache.close());
  if (shared !== null) {
    const keeper = StoreKeeper.start({
      ...shared,
      locks: state.locks,
      maxSize: () => base.reloader.config.cache.s3.maxSize,
      log,
    });
    lifecycle.defer('the care of the shared store', () => keeper.close());
  }
  return cache;
}

function startPassage(base: Base, { state }: Pick<Parts, 'state'>): Passage {
  const { log, lifecycle, reloader } = base;
  const config = () => reloader.config;
  const passage = openPassage(config, state, base);
  const { history: store, locks } = state;
  const keeper = HistoryKeeper.start({ store, locks, config: () => config().policy, log });
  lifecycle.defer('the care of what was seen of images', () => keeper.close());
  return passage;
}

function startProxyCore(
  base: Base,
  parts: Pick<Parts, 'state' | 'upstream' | 'cache' | 'cluster' | 'access' | 'passage'>,
): Parts['core'] {
  const { metrics, lifecycle } = base;
  const { upstream, cluster, access } = parts;
  const { table } = parts.state;
  const clients = unlessOperator(access);
  const core = createProxyCore({
    ...coreParts(() => base.reloader.config, parts.state, parts.cache),
    ...parts.passage,
    upstream,
    metrics,
    replies: base.replies,
    fetched: clients.fetched,
    budget: clients.fill,
    prefetch: {
      isOn: () => base.reloader.config.cache.prefetch === 'manifest',
      isContended: () => upstream.isContended,
    },
    ...(cluster === null ? {} : { shared: cluster.downloads }),
    ...(parts.state.denials === null ? {} : { denials: parts.state.denials }),
  });
  lifecycle.defer('the proxy core', () => core.close());
  table.subscribe(() => core.invalidate());
  return core;
}

async function startAccess(base: Base, { state }: Pick<Parts, 'state'>): Promise<Access> {
  const { config, log, lifecycle } = base;
  const { users, counters, nodes, fleet } = state;
  const sharing = fleet === null ? {} : { sharing: { nodes: () => nodes.live().length } };
  const quotas = await Quotas.open({ ...config.limits, store: counters, ...sharing });
  const used = (user: string) => users.used(user);
  const access = new Access({ rules: config.access, limits: config.limits, users, used, quotas, log });
  lifecycle.defer('the access rules', () => access.close());
  return access;
}

async function startHints({ config }: Base, { state, bound }: Pick<Parts, 'state' | 'bound'>): Promise<StartHints> {
  const ports = { https: bound.https?.port, http: bound.http?.port };
  const facts = await gatherFacts({ config, table: state.table.snapshot(), bound: ports, credentials: false });
  const next = facts.registries.length === 0 ? 'gateway alias add NAME REGISTRY' : 'gateway client docker';
  return { page: `${baseUrl(facts)}/`, ca: facts.ca?.file ?? null, next };
}

/** What the operator's commands see of the running gateway. */
function liveGateway(
  base: Base,
  { upstream, cache, core, access, bound }: Pick<Parts, 'upstream' | 'cache' | 'core' | 'access' | 'bound'>,
): LiveGateway {
  const { metrics, log, lifecycle } = base;
  const history = new History(
    () => sampleOf(metrics, cache),
    (error) => log.warn({ err: error }, 'a minute is missing in what the dashboard shows'),
  );
  lifecycle.defer('the history', () => history.close());
  return {
    pid: process.pid,
    startedAt: new Date(steadyNow()),
    get workers() {
      return 1 + (base.workers?.ready ?? 0);
    },
    addresses: asText(bound),
    upstream,
    reading: () => metrics.read(),
    activity: base.activity,
    history,
    limits: () => access.usage(),
    probe: (host, signal) => probeListener(ownListener(bound), host, signal),
    settled: () => base.workers?.settled() ?? Promise.resolve(),
    reload: () => base.reloader.reload(),
    checkStore: cache.checkShared,
    forget: () => core.invalidate(),
  };
}

async function startAdmin(
  base: Base,
  { state, cache, core, passage, live }: Pick<Parts, 'state' | 'cache' | 'core' | 'passage' | 'live'>,
): Promise<void> {
  const { config, reloader, log, lifecycle, wellKnown } = base;
  const { table, users, certificates, pseudonym, nodes, fleet } = state;
  const images = new CoreSource(core);
  const warm = startWarm(base, { state, cache: cache.admin, images });
  const operations = createOperations({
    get config() {
      return reloader.config;
    },
    version: version(),
    pseudonym,
    table,
    users,
    certificates,
    cache: () => cache.admin,
    images: () => images,
    passage: () => passage,
    unplugged: (signal) => unplug({ config: () => reloader.config, state, cache, passage }, signal),
    warm: () => warm,
    snapshot: state.snapshot,
    nodes,
    shared: fleet === null ? null : sharedState(fleet),
    live,
  });
  const admin = await startAdminServer({ dataDir: config.dataDir, operations, images, log });
  lifecycle.defer('the admin socket', () => admin.close());
  if (wellKnown.length === 0) return;
  const place = await announceGateway({ directories: wellKnown, dataDir: config.dataDir, accept: admin.accept, log });
  lifecycle.defer('the well-known socket', () => place.close());
}
