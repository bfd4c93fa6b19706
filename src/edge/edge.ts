import { randomBytes } from 'node:crypto';
import type { Server, Socket } from 'node:net';
import type { TableSnapshot } from '../aliases/table.ts';
import type { CertificateService } from '../certs/service.ts';
import type { Config, ListenAddress } from '../config/config.ts';
import type { ProxyCore } from '../proxy/reply.ts';
import { type LineSink, type Logger, plainLog } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { AccessPort } from './access-port.ts';
import { createApp } from './app.ts';
import { BufferPool } from './buffers.ts';
import { Connections } from './connections.ts';
import { ForwardedHeaders } from './forwarded.ts';
import { createFront, type Direct, type EdgeApp } from './front.ts';
import { createHttpPort } from './http-port.ts';
import { EDGE_LIMITS, type EdgeLimits } from './limits.ts';
import { type BoundAddress, Listener } from './listeners.ts';
import { createMetricsPort } from './metrics-port.ts';
import { servePull } from './pull.ts';
import { Reads } from './reads.ts';
import { ReadyTexts } from './ready-texts.ts';
import { Report } from './report.ts';
import { Routes } from './routes.ts';
import { HttpServers } from './servers.ts';
import { TlsFront } from './tls-front.ts';

/** What the edge needs of the certificates. */
export type EdgeCertificates = Pick<CertificateService, 'contexts' | 'httpChallenge' | 'alpnChallenge' | 'alpnPending'>;

/** Serves one accepted connection. */
type Serve = (socket: Socket) => void;

export interface EdgeOptions {
  readonly config: Pick<Config, 'dataDir' | 'listen' | 'tls' | 'trustedProxies' | 'metrics'>;
  /** The table as it is now; read anew for each request. */
  readonly table: () => TableSnapshot;
  /** Null with `tls.mode: off`. */
  readonly certificates: EdgeCertificates | null;
  readonly registry: ProxyCore;
  readonly access: AccessPort;
  /** True, or why the gateway is not ready. */
  readonly ready: () => true | string;
  readonly log: Logger;
  /** Where the access log writes its lines; null, or left out: through `log`. */
  readonly logLines?: LineSink | null;
  readonly metrics: Metrics;
  readonly version: string;
  /** 48 bytes that encrypt session tickets; several processes of one gateway share them. Default: fresh ones. */
  readonly ticketKeys?: Buffer;
  /** Offers an accepted connection to another process; `own` is how many this one has. True where it was taken. */
  readonly handOver?: (socket: Socket, own: number) => boolean;
  /** For tests that must not wait for minutes. */
  readonly limits?: Partial<EdgeLimits>;
}

export interface EdgeAddresses {
  readonly https: BoundAddress | null;
  readonly http: BoundAddress | null;
  readonly metrics: BoundAddress | null;
}

export interface Edge {
  /** Opens every port of the configuration, or none. @throws {OperatorError} LISTEN_FAILED */
  listen(): Promise<EdgeAddresses>;
  /** The listening socket of the registry API once it is bound, for other processes to accept connections from it as well. */
  readonly server: Server | null;
  /** Accepts connections from the registry API's listening socket that another process has bound. */
  acceptFrom(server: Server): void;
  /** Serves a connection to the registry API that another process accepted, or that was handed over in vain. */
  accept(socket: Socket): void;
  /** Stops accepting, ends idle connections, lets running pulls finish within `graceMs`, then cuts them. */
  close(options: { readonly graceMs: number }): Promise<void>;
  /** Everything small on the registry's port, for tests in-process. */
  readonly app: EdgeApp;
}

/** Builds the face to the internet. Nothing in it must be single: several processes may each have one. */
export function createEdge(options: EdgeOptions): Edge {
  const { config, table, certificates, metrics } = options;
  const log = options.log.child({ room: 'edge' });
  const limits = { ...EDGE_LIMITS, ...options.limits };
  let closing = false;
  let addresses: EdgeAddresses = { https: null, http: null, metrics: null };
  const ready = (): true | string => (closing ? 'shutting down' : options.ready());
  const httpsPort = (): number => addresses.https?.port ?? config.listen.https?.port ?? 443;

  const connections = new Connections();
  const forwarded = new ForwardedHeaders(config.trustedProxies);
  const report = new Report(plainLog(log, options.logLines ?? null), metrics);
  metrics.gauge('http_connections', 'Open connections of clients', [], (gauge) => gauge.set(connections.size));

  const app = createApp({
    table,
    access: options.access,
    ready,
    version: options.version,
    port: config.tls.mode === 'off' ? () => 443 : httpsPort,
    log,
  });
  const pulls = {
    registry: options.registry,
    access: options.access,
    reads: new Reads(new BufferPool()),
    texts: new ReadyTexts(),
    stallMs: limits.stallMs,
    log,
  };
  const routes = new Routes(table);
  const direct: Direct = (exchange, request, response) => {
    const route = routes.resolve(exchange);
    if (route === null) return false;
    servePull(pulls, exchange, route, request, response);
    return true;
  };
  const shared = { forwarded, report, log };
  const api = new HttpServers(createFront({ ...shared, direct, appFor: () => app }), connections, limits);

  const opened: { readonly servers: HttpServers; readonly listener: Listener }[] = [];
  const plan: { name: keyof EdgeAddresses; open: () => Promise<BoundAddress> }[] = [];
  const door = (name: keyof EdgeAddresses, at: ListenAddress, servers: HttpServers, serve: Serve): void => {
    const listener = new Listener(name, (socket) => {
      if (servers === api && options.handOver?.(socket, connections.size) === true) return;
      serve(socket);
      if (!socket.destroyed) socket.resume();
    });
    opened.push({ servers, listener });
    plan.push({ name, open: () => listener.listen(at) });
  };
  const plainly =
    (servers: HttpServers): Serve =>
    (socket) => {
      const connection = connections.add(socket);
      // Errors end a connection by themselves; without a listener one would end the program.
      socket.on('error', () => {});
      servers.serve(socket, connection);
    };
  const { https, http } = config.listen;
  let serveApi: Serve;
  if (certificates === null) {
    serveApi = plainly(api);
    if (http !== null) door('http', http, api, serveApi);
  } else {
    const tls = new TlsFront({
      certificates,
      connections,
      servers: api,
      ticketKeys: options.ticketKeys ?? randomBytes(48),
      handshakeMs: limits.handshakeMs,
      metrics,
      log,
    });
    serveApi = (socket) => tls.accept(socket);
    if (https !== null) door('https', https, api, serveApi);
    if (http !== null) {
      const plain = createHttpPort({ config, table, certificates, ready, httpsPort, log });
      // A trusted proxy that has done TLS itself gets the registry, not a redirect back to where it came from.
      const front = createFront({
        ...shared,
        direct: (exchange, request, response) => exchange.secure && direct(exchange, request, response),
        appFor: (exchange) => (exchange.secure ? app : plain),
      });
      const servers = new HttpServers(front, connections, limits);
      door('http', http, servers, plainly(servers));
    }
  }
  if (config.metrics.listen !== null) {
    const port = createMetricsPort({ metrics, ready, log });
    const servers = new HttpServers(createFront({ ...shared, appFor: () => port }), connections, limits);
    door('metrics', config.metrics.listen, servers, plainly(servers));
  }

  const apiListener = opened.find(({ servers }) => servers === api)?.listener;
  const stop = (): void => {
    for (const { listener } of opened) listener.stop();
  };

  return {
    app,
    get server() {
      return apiListener?.server ?? null;
    },
    acceptFrom: (server) => apiListener?.acceptFrom(server),
    accept(socket) {
      serveApi(socket);
      if (socket.isPaused() && !socket.destroyed) socket.resume();
    },
    async listen() {
      const bound: { -readonly [Name in keyof EdgeAddresses]: EdgeAddresses[Name] } = {
        https: null,
        http: null,
        metrics: null,
      };
      try {
        for (const { name, open } of plan) {
          bound[name] = await open();
          addresses = { ...bound };
        }
      } catch (error) {
        stop();
        for (const { servers } of opened) servers.close();
        throw error;
      }
      return addresses;
    },
    async close({ graceMs }) {
      closing = true;
      stop();
      await connections.drain(graceMs);
      for (const { servers } of opened) servers.close();
    },
  };
}
