import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import { rowNameOf } from '../aliases/lookup.ts';
import type { TableSnapshot } from '../aliases/table.ts';
import type { CertificateService } from '../certs/service.ts';
import { wildcardDomain } from '../certs/wildcard.ts';
import { gatherFacts } from '../clients/facts.ts';
import type { Config } from '../config/config.ts';
import type { Freshness } from '../kit/freshness.ts';
import { descriptorLimit } from '../kit/process.ts';
import type { RegistryOutline } from '../proxy/outline.ts';
import type { ProxyCore } from '../proxy/reply.ts';
import { Activity } from '../telemetry/activity.ts';
import { type LineSink, type Logger, plainLog } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { createApp } from './app.ts';
import { Bodies } from './bodies.ts';
import { type Connection, type ConnectionPeers, Connections, connectionsInAll } from './connections.ts';
import { DescriptorWatch } from './descriptors.ts';
import { createDispatcher } from './dispatcher.ts';
import type { EdgeApp } from './handlers.ts';
import { type EdgeAddresses, type ListenerPlan, Listeners } from './listeners.ts';
import { BufferPool, Reads } from './reads.ts';
import { HTTPS_PORT } from './registry-name.ts';
import { AccessLog, type AccessPort, ForwardedHeaders } from './request-context.ts';
import { EDGE_LIMITS, type EdgeLimits, HttpServers } from './servers.ts';
import { SlowReaderWatch } from './slow-readers.ts';
import { Routes } from './target.ts';
import { TicketKeys, TlsTerminator } from './tls.ts';
import { TroubleLog } from './trouble-log.ts';

/** What the edge needs of the certificates. */
export type EdgeCertificates = Pick<CertificateService, 'contexts' | 'httpChallenge' | 'alpnChallenges'>;

type EdgeConfig = Pick<
  Config,
  'dataDir' | 'listen' | 'tls' | 'publicDomain' | 'publicUrl' | 'trustedProxies' | 'metrics'
> & {
  readonly limits: Pick<Config['limits'], 'connections' | 'minRate'>;
};

export interface EdgeOptions {
  readonly config: EdgeConfig;
  /** The table as it is now; read anew for each request. */
  readonly table: () => TableSnapshot;
  /** Null with `tls.mode: off`. */
  readonly certificates: EdgeCertificates | null;
  readonly proxy: ProxyCore;
  readonly access: AccessPort;
  /** `Pull.audience` of a client; left out where the policy names nobody. */
  readonly audience?: (user: string | null, address: string) => string;
  /** Until when requests may be decided by what this process knows; null, or left out, where nobody else changes that. */
  readonly freshness?: Freshness | null;
  /** The registries of the table as people who pull may know them. */
  readonly outlines: () => readonly RegistryOutline[] | Promise<readonly RegistryOutline[]>;
  /** True, or why the gateway is not ready. */
  readonly ready: () => true | string;
  /** What whoever asks whether it is ready should know although it is; null, or left out: nothing. */
  readonly remark?: () => string | null;
  /** Of one of several gateways: it is ending, and balancers are to leave it out (`/readyz?node`); left out where it is the only one. */
  readonly draining?: () => boolean;
  readonly log: Logger;
  /** Where the access log writes its lines; null, or left out: through `log`. */
  readonly logLines?: LineSink | null;
  readonly metrics: Metrics;
  /** What the operator is shown of requests; left out where nobody looks. */
  readonly activity?: Activity;
  readonly version: string;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  /** 48 bytes that encrypt session tickets, another buffer after each change; several processes of one gateway share them. Default: its own. */
  readonly ticketKeys?: () => Buffer;
  /** How many descriptors this process may have open; null: unknown. Default: what the system says. */
  readonly descriptors?: number | null;
  /** Connections of the same clients with other processes; null, or left out, where this one serves alone. */
  readonly peers?: ConnectionPeers | null;
  /** For tests that must not wait for minutes. */
  readonly limits?: Partial<EdgeLimits>;
}

/**
 * What faces the internet. A connection passes from a listener through TLS to an HTTP server; its requests go to the dispatcher, and from
 * there to the app or, as pulls, to the proxy core. Several processes may each have an edge.
 */
export class Edge {
  /** Everything small; tests ask it without a connection. */
  readonly app: EdgeApp;
  readonly #options: EdgeOptions;
  readonly #connections: Connections;
  readonly #servers: HttpServers;
  /** Takes connections of the registry API, through TLS unless `tls.mode` is `off`. */
  readonly #acceptRegistry: (socket: Socket) => void;
  readonly #listeners: Listeners;
  readonly #descriptors: DescriptorWatch;
  readonly #reconfigure: (config: EdgeConfig) => void;
  #config: EdgeConfig;
  #closing = false;

  constructor(options: EdgeOptions) {
    const { config, table, certificates, proxy, access, metrics, version } = options;
    const log = options.log.child({ room: 'edge' });
    const limits = { ...EDGE_LIMITS, ...options.limits };
    const ready = () => (this.#closing ? 'shutting down' : options.ready());
    const port = () => this.#httpsPort();
    const rootFile = config.tls.mode === 'internal' ? join(config.dataDir, 'ca.crt') : null;
    const ticketKeys = options.ticketKeys ?? new TicketKeys(limits.ticketKeysMs).current;
    const { handshakeMs, stallMs } = limits;
    const { descriptors = descriptorLimit() } = options;

    this.#options = options;
    this.#config = config;
    const { activity = new Activity() } = options;
    const accessLog = new AccessLog(
      plainLog(log, options.logLines ?? null),
      new TroubleLog(log),
      metrics,
      activity,
      (registry) => rowNameOf(table(), registry),
    );
    const forwarded = new ForwardedHeaders(config.trustedProxies, publicPort(config));
    const caps = { client: config.limits.connections, all: connectionsInAll(descriptors) };
    const trusts = (address: string) => forwarded.trusts(address);
    const connections = new Connections({ caps, trusts, peers: options.peers ?? null, metrics, log });
    const surroundings = () => {
      const { https, http } = this.#listeners.addresses;
      return { config: this.#config, table: table(), bound: { https: https?.port, http: http?.port } };
    };
    const clientFacts = (credentials: boolean) => {
      const contexts = certificates?.contexts();
      // A worker has the contexts that it was asked for, not all that there are.
      const holds =
        contexts === undefined || contexts.find !== undefined
          ? undefined
          : (host: string) => contexts.byHost.has(host) || contexts.wildcards?.has(wildcardDomain(host)) === true;
      return gatherFacts({ ...surroundings(), credentials, holds });
    };
    const app = createApp({
      table,
      access,
      certificates,
      rootFile,
      ready,
      remark: options.remark,
      draining: options.draining,
      port,
      clientFacts,
      outlines: options.outlines,
      metrics,
      version,
      log,
    });
    const routes = new Routes(table);
    const slowReaders = new SlowReaderWatch(config.limits.minRate, limits.paceMs);
    this.#reconfigure = (next) => {
      const { connections: most, minRate } = next.limits;
      forwarded.reconfigure(next.trustedProxies, publicPort(next));
      caps.client = most;
      slowReaders.reconfigure(minRate);
    };
    const isFull = (connection: Connection) => connections.isFull(connection);
    const pulls = {
      proxy,
      access,
      audience: options.audience ?? (() => ''),
      reads: new Reads(new BufferPool()),
      bodies: new Bodies(limits.bodies),
      stallMs,
      slowReaders,
      isFull,
      log,
    };
    const dispatch = createDispatcher({
      app,
      routes,
      pulls,
      freshness: options.freshness ?? null,
      pseudonym: options.pseudonym,
      forwarded,
      accessLog,
      log,
    });
    const servers = new HttpServers(dispatch, connections, limits);
    const freshness = options.freshness ?? null;
    const tls = { connections, servers, freshness, ticketKeys, handshakeMs, metrics, log };
    this.#connections = connections;
    this.#servers = servers;
    this.#acceptRegistry =
      certificates === null ? servers.acceptor('registry') : new TlsTerminator({ certificates, ...tls }).accept;
    this.#descriptors = new DescriptorWatch(metrics, log);
    this.#listeners = new Listeners(this.#plans());
    this.app = app;
  }

  /** Other proxies that are trusted, limits, and how clients are told to come here; for connections and requests from now on. Its ports stay. */
  reconfigure(config: EdgeConfig): void {
    this.#config = config;
    this.#reconfigure(config);
  }

  /** Opens every port of the configuration, or none. @throws {OperatorError} LISTEN_FAILED */
  async listen(): Promise<EdgeAddresses> {
    try {
      return await this.#listeners.open();
    } catch (error) {
      this.#descriptors.close();
      this.#servers.close();
      throw error;
    }
  }

  /** The listening socket of the registry API once it is bound, for other processes to accept connections from it as well. */
  share(): Server | null {
    return this.#listeners.share(this.#options.certificates === null ? 'http' : 'https');
  }

  /** Accepts connections from the registry API's listening socket that another process has bound. */
  acceptFrom(server: Server): void {
    this.#listeners.acceptFrom(server, this.#acceptRegistry);
  }

  /** Stops accepting, ends idle connections, lets running pulls finish within `graceMs`, then cuts them. */
  async close({ graceMs }: { readonly graceMs: number }): Promise<void> {
    this.#closing = true;
    this.#listeners.stop();
    await this.#connections.drain(graceMs);
    this.#descriptors.close();
    this.#servers.close();
  }

  /** The ports of the configuration, in the order in which they are opened. */
  #plans(): readonly ListenerPlan[] {
    const { config, certificates } = this.#options;
    const { https, http } = config.listen;
    const [redirect, metrics] = [this.#servers.acceptor('redirect'), this.#servers.acceptor('metrics')];
    const plans: ListenerPlan[] = [];
    if (certificates !== null && https !== null) {
      plans.push({ name: 'https', at: https, onConnection: this.#acceptRegistry });
    }
    if (http !== null) {
      plans.push({ name: 'http', at: http, onConnection: certificates === null ? this.#acceptRegistry : redirect });
    }
    if (config.metrics.listen !== null) {
      plans.push({ name: 'metrics', at: config.metrics.listen, onConnection: metrics });
    }
    return plans;
  }

  /** Where clients are told to come; without TLS of its own the gateway is behind a terminator, which they reach on the usual port. */
  #httpsPort(): number {
    const { config } = this.#options;
    const told = publicPort(this.#config);
    if (told !== null) return told;
    if (config.tls.mode === 'off') return 443;
    return this.#listeners.addresses.https?.port ?? config.listen.https?.port ?? 443;
  }
}

/** The port of a `publicUrl` with https; null where there is none. */
function publicPort({ publicUrl }: Pick<Config, 'publicUrl'>): number | null {
  if (publicUrl === null) return null;
  const { protocol, port } = new URL(publicUrl);
  return protocol === 'https:' ? Number(port || HTTPS_PORT) : null;
}
