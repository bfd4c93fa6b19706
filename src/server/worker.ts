import type { Server } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { Access, type AccessRequest, type Grant } from '../access/access.ts';
import type { ByteQuota } from '../access/quotas.ts';
import { UserSnapshot } from '../access/user-snapshot.ts';
import { rowNameOf } from '../aliases/lookup.ts';
import type { AliasEntry, RegistryEntry, TableSnapshot } from '../aliases/table.ts';
import { publicHostOf } from '../clients/facts.ts';
import type { Config } from '../config/config.ts';
import { Edge } from '../edge/edge.ts';
import type { AccessPort } from '../edge/request-context.ts';
import { Mutex } from '../kit/async.ts';
import { Freshness } from '../kit/freshness.ts';
import { collectAfterStart, ignoreDebuggerSignal } from '../kit/process.ts';
import { shareSteadyClock, steadyNow } from '../kit/time.ts';
import { Audiences } from '../policy/audiences.ts';
import { ManifestCache } from '../proxy/manifest-cache.ts';
import type { RegistryOutline } from '../proxy/outline.ts';
import { repliesTally } from '../proxy/reply.ts';
import { Activity } from '../telemetry/activity.ts';
import { createLog, type Logger, type ProcessLog } from '../telemetry/log.ts';
import { Metrics } from '../telemetry/metrics.ts';
import { Channel } from '../workers/channel.ts';
import { ConnectionShare } from '../workers/connection-totals.ts';
import type { FreshMessage, StartMessage, StateMessage } from '../workers/protocol.ts';
import { RemoteAccess } from '../workers/remote-access.ts';
import { RemoteCertificates } from '../workers/remote-certificates.ts';
import { RemoteCore } from '../workers/remote-core.ts';

/** How often the owner is told of clients and troubles, ms. */
const TELL_EVERY = 1_000;
/** Less than the owner's: there may be many workers, and what one does not have ready comes from the owner. */
const MANIFEST_CACHE_BYTES = 4 * 1024 * 1024;

/**
 * The program of a worker: an edge like the owner's, over the owner's core. It opens no port and no database: it accepts connections from
 * the owner's listening socket, and ends with the owner.
 */
const channel = new Channel({
  send: (message) => process.connected && (process.send?.(message, undefined, {}, () => {}) ?? false),
  onMessage: (listener) => void process.on('message', (message, server) => listener(message, server as Server)),
  onClose: (listener) => void process.once('disconnect', listener),
});
// Terminals send Ctrl-C to every process; the owner says when a worker ends.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => {});
process.on('SIGHUP', () => {});
ignoreDebuggerSignal();
channel.onClose(() => process.exit(0));
// The owner may have ended while this program was loading.
if (!process.connected) process.exit(0);

channel.handle('start', async (start: StartMessage) => {
  shareSteadyClock(start.clock);
  const worker = new Worker(start);
  await worker.update(start.state);
  channel.handle('state', (state: StateMessage) => worker.update(state));
  channel.handle('listen', (_: null, { server }) => {
    if (server === undefined) throw new Error('no listening socket came with the message');
    worker.edge.acceptFrom(server);
    collectAfterStart();
  });
  channel.handle('metrics', () => worker.metrics.values());
  channel.handle('drain', ({ graceMs }: { graceMs: number }) =>
    worker.edge.close({ graceMs }).finally(() => worker.tellActivity()),
  );
  setInterval(() => worker.tellActivity(), TELL_EVERY).unref();
});

class Worker {
  readonly edge: Edge;
  readonly #core: RemoteCore;
  readonly metrics = new Metrics();
  readonly #activity = new Activity();
  readonly #certificates = new RemoteCertificates(channel);
  readonly #updates = new Mutex();
  readonly #freshness = new Freshness(async () => {
    const { steady, date } = await channel.call<FreshMessage>('fresh', null);
    // A state that was sent before is in use by then.
    await this.#updates.run(async () => {});
    const until = { steady: performance.now() + steady - steadyNow(), date };
    this.#freshness.extend(until);
  });
  readonly #processLog: ProcessLog;
  readonly #access: WorkerAccess;
  readonly #peers: ConnectionShare;
  #audiences: Audiences;
  #state: StateMessage;
  #ticketKeys: Buffer;
  #table;
  #users: UserSnapshot;

  constructor(start: StartMessage) {
    const { version, pseudonym, state } = start;
    const { config } = state;
    this.metrics.ofProcess();
    this.#state = state;
    this.#ticketKeys = Buffer.from(state.ticketKeys);
    this.#table = tableOf(state);
    this.#users = new UserSnapshot(state.users);
    // The owner's lines name no process: it is the gateway.
    this.#processLog = createLog(config.log);
    const log = this.#processLog.log.child({ worker: process.pid });
    this.#access = new WorkerAccess(config, () => this.#users, log);
    this.#core = new RemoteCore(channel);
    this.#audiences = new Audiences(config.policy.images);
    const { connections } = config.limits;
    this.#peers = new ConnectionShare(connections, config.listen.workers, (own) => channel.tell('connections', own));
    channel.on('connections', this.#peers.hear);
    this.edge = new Edge({
      config: { ...config, metrics: { listen: null } },
      table: () => this.#table,
      certificates: config.tls.mode === 'off' ? null : this.#certificates,
      proxy: new ManifestCache({
        core: this.#core,
        replies: repliesTally(this.metrics),
        rowName: (registry) => rowNameOf(this.#table, registry),
        maxBytes: MANIFEST_CACHE_BYTES,
      }),
      access: this.#access,
      audience: (user, address) => this.#audiences.of(user, address),
      freshness: this.#freshness,
      ready: () => this.#state.ready,
      remark: () => this.#state.remark,
      draining: () => this.#state.draining,
      log,
      logLines: this.#processLog.lines,
      metrics: this.metrics,
      activity: this.#activity,
      version,
      pseudonym,
      outlines: () => channel.call<readonly RegistryOutline[]>('outlines', null),
      ticketKeys: () => this.#ticketKeys,
      peers: this.#peers,
    });
  }

  /** One after the other, in the order in which they came: the last state must win. */
  update(state: StateMessage): Promise<void> {
    return this.#updates.run(async () => {
      await this.#certificates.update(state);
      this.#core.ownerIsAt(state.generation);
      if (!isDeepStrictEqual(state.config, this.#state.config)) await this.#reconfigure(state.config);
      this.#state = state;
      if (!this.#ticketKeys.equals(state.ticketKeys)) this.#ticketKeys = Buffer.from(state.ticketKeys);
      this.#table = tableOf(state);
      this.#users = new UserSnapshot(state.users);
    });
  }

  tellActivity(): void {
    const seen = this.#activity.take();
    if (seen !== null) channel.tell('activity', seen);
  }

  async #reconfigure(config: Config): Promise<void> {
    this.#processLog.reconfigure(config);
    await this.#access.reconfigure(config);
    this.#audiences = new Audiences(config.policy.images);
    this.#peers.reconfigure(config.limits.connections);
    this.edge.reconfigure({ ...config, metrics: { listen: null } });
  }
}

/** Limits hold for all processes together, so the owner counts; rules and users are looked up here. */
class WorkerAccess implements AccessPort {
  readonly #own: Access;
  readonly #owners = new RemoteAccess(channel);
  #limits: Config['limits'];

  constructor({ access: rules, limits }: Config, users: () => UserSnapshot, log: Logger) {
    this.#limits = limits;
    this.#own = new Access({
      rules,
      limits,
      users: {
        get count() {
          return users().count;
        },
        get everAdded() {
          return users().everAdded;
        },
        verify: (authorization) => users().verify(authorization),
      },
      used: lastUses(),
      quotas: null,
      log,
    });
  }

  check(request: AccessRequest): Grant | Promise<Grant> {
    const isLimited = this.#countsBytes || this.#limits.requestsPerMinute !== null;
    return isLimited ? this.#owners.check(request) : this.#own.check(request);
  }

  get quota(): ByteQuota | null {
    return this.#countsBytes ? this.#owners.quota : null;
  }

  get #countsBytes(): boolean {
    return this.#limits.bytesPerDay !== null || this.#limits.bytesPerMonth !== null;
  }

  async reconfigure(config: Config): Promise<void> {
    this.#limits = config.limits;
    await this.#own.reconfigure(config);
  }
}

/** How often the owner is told that a user is still seen, ms: it keeps the minute. */
const USE_TOLD_EVERY = 60_000;

/** Tells the owner which users are let in here, each once in a while. */
function lastUses(): (user: string) => void {
  const told = new Map<string, number>();
  return (user) => {
    const now = performance.now();
    const last = told.get(user);
    if (last !== undefined && now - last < USE_TOLD_EVERY) return;
    told.set(user, now);
    channel.tell('used', { user });
  };
}

/** The table as a worker needs it: which names there are. Where content comes from, only the owner must know. */
function tableOf(state: StateMessage): TableSnapshot {
  const registries = new Map(
    state.registries.map((host): [string, RegistryEntry] => [
      host,
      { host, endpoints: [], proxy: null, credentials: null, public: false, realms: [], named: [], ca: null },
    ]),
  );
  const aliases = new Map<string, AliasEntry>();
  const hosts = new Map<string, AliasEntry>();
  for (const alias of state.aliases) {
    aliases.set(alias.name, alias);
    hosts.set(alias.host, alias);
  }
  const { config } = state;
  return { domain: config.domain, publicHost: publicHostOf(config), registries, aliases, hosts };
}
