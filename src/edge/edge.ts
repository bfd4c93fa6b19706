import { randomBytes } from 'node:crypto';
import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import type { TableSnapshot } from '../aliases/table.ts';
import type { CertificateService } from '../certs/service.ts';
import type { Config } from '../config/config.ts';
import type { ProxyCore } from '../proxy/reply.ts';
import { type LineSink, type Logger, plainLog } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { AccessLog } from './access-log.ts';
import { createApp, type EdgeApp } from './app.ts';
import { Connections, EDGE_LIMITS, type EdgeLimits, type Service } from './connections.ts';
import { createDispatcher } from './dispatcher.ts';
import { type EdgeAddresses, type ListenerPlan, Listeners } from './listeners.ts';
import { BufferPool, Reads } from './reads.ts';
import { type AccessPort, ForwardedHeaders } from './request-context.ts';
import { HttpServers } from './servers.ts';
import { Routes } from './target.ts';
import { TlsTerminator } from './tls.ts';

/** What the edge needs of the certificates. */
export type EdgeCertificates = Pick<CertificateService, 'contexts' | 'httpChallenge' | 'alpnChallenge' | 'alpnPending'>;

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

export interface Edge {
  /** Opens every port of the configuration, or none. @throws {OperatorError} LISTEN_FAILED */
  listen(): Promise<EdgeAddresses>;
  /** The listening socket of the registry API once it is bound, for other processes to accept connections from it as well. */
  readonly server: Server | null;
  /** Accepts connections from the registry API's listening socket that another process has bound. */
  acceptFrom(server: Server): void;
  /** Serves a connection to the registry API that another process accepted, or would not take. */
  accept(socket: Socket): void;
  /** Stops accepting, ends idle connections, lets running pulls finish within `graceMs`, then cuts them. */
  close(options: { readonly graceMs: number }): Promise<void>;
  /** Everything small, for tests in-process. */
  readonly app: EdgeApp;
}

/**
 * Builds what faces the internet. A connection passes from a listener through TLS to an HTTP server; its requests go to the dispatcher, and
 * from there to the app or, as pulls, to the proxy core. Several processes may each have an edge.
 */
export function createEdge(options: EdgeOptions): Edge {
  const { config, table, certificates, access, metrics } = options;
  const log = options.log.child({ room: 'edge' });
  const limits = { ...EDGE_LIMITS, ...options.limits };
  let closing = false;

  const connections = new Connections();
  metrics.gauge('http_connections', 'Open connections of clients', [], (gauge) => gauge.set(connections.size));

  const app = createApp({
    table,
    access,
    certificates,
    rootFile: config.tls.mode === 'internal' ? join(config.dataDir, 'ca.crt') : null,
    ready: () => (closing ? 'shutting down' : options.ready()),
    // Without TLS of its own the gateway stands behind a terminator, on its usual port.
    port: () =>
      config.tls.mode === 'off' ? 443 : (listeners.addresses.https?.port ?? config.listen.https?.port ?? 443),
    metrics,
    version: options.version,
    log,
  });
  const dispatch = createDispatcher({
    app,
    routes: new Routes(table),
    pulls: {
      registry: options.registry,
      access,
      reads: new Reads(new BufferPool()),
      stallMs: limits.stallMs,
      log,
    },
    forwarded: new ForwardedHeaders(config.trustedProxies),
    accessLog: new AccessLog(plainLog(log, options.logLines ?? null), metrics),
    log,
  });
  const servers = new HttpServers(dispatch, connections, limits);
  const tls =
    certificates === null
      ? null
      : new TlsTerminator({
          certificates,
          connections,
          servers,
          ticketKeys: options.ticketKeys ?? randomBytes(48),
          handshakeMs: limits.handshakeMs,
          metrics,
          log,
        });

  const acceptPlain = (service: Service, socket: Socket): void => {
    servers.serve(socket, connections.add(socket, service));
    resume(socket);
  };
  /** Serves a connection to the registry API here. */
  const accept = (socket: Socket): void => {
    if (tls === null) acceptPlain('registry', socket);
    else {
      tls.accept(socket);
      resume(socket);
    }
  };
  const acceptOrHandOver = (socket: Socket): void => {
    if (options.handOver?.(socket, connections.size) !== true) accept(socket);
  };
  const { https, http } = config.listen;
  const onHttp = tls === null ? acceptOrHandOver : (socket: Socket) => acceptPlain('redirect', socket);
  const plans: readonly (ListenerPlan | null)[] = [
    tls === null || https === null ? null : { name: 'https', at: https, onConnection: acceptOrHandOver },
    http === null ? null : { name: 'http', at: http, onConnection: onHttp },
    config.metrics.listen === null
      ? null
      : { name: 'metrics', at: config.metrics.listen, onConnection: (socket) => acceptPlain('metrics', socket) },
  ];
  const listeners = new Listeners(plans.filter((plan) => plan !== null));

  return {
    app,
    server: listeners.server(tls === null ? 'http' : 'https'),
    acceptFrom: (server) => listeners.acceptFrom(server, acceptOrHandOver),
    accept,
    async listen() {
      try {
        return await listeners.open();
      } catch (error) {
        servers.close();
        throw error;
      }
    },
    async close({ graceMs }) {
      closing = true;
      listeners.stop();
      await connections.drain(graceMs);
      servers.close();
    },
  };
}

/** Accepted sockets come paused, so that no byte is lost before a protocol reads them. */
function resume(socket: Socket): void {
  if (socket.isPaused() && !socket.destroyed) socket.resume();
}
