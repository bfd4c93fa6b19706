import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { ListenAddress } from '../config/config.ts';
import { OperatorError } from '../kit/operator-error.ts';

/** Connections that the kernel keeps for us while we are busy. */
const BACKLOG = 1024;

/** Where a listener is bound. */
export interface BoundAddress {
  readonly address: string;
  readonly port: number;
}

/** What a port is for, and the configuration key that is named when it cannot be listened on. */
const DOORS = {
  https: ['HTTPS', 'listen.https'],
  http: ['HTTP', 'listen.http'],
  metrics: ['metrics', 'metrics.listen'],
} as const;

/** A listening socket that only accepts; what is spoken is decided by `onConnection`, which gets paused sockets that nothing was read of. */
export class Listener {
  readonly server: Server;
  readonly #name: keyof typeof DOORS;
  readonly #onConnection: (socket: Socket) => void;
  readonly #others: Server[] = [];

  constructor(name: keyof typeof DOORS, onConnection: (socket: Socket) => void) {
    this.#name = name;
    this.#onConnection = onConnection;
    // Paused: a connection that another process serves must arrive there whole.
    this.server = createServer({ noDelay: true, pauseOnConnect: true }, onConnection);
  }

  /** @throws {OperatorError} LISTEN_FAILED, naming the address and what to do */
  async listen(at: ListenAddress): Promise<BoundAddress> {
    const { server } = this;
    await new Promise<void>((resolve, reject) => {
      const onError = (cause: NodeJS.ErrnoException): void => reject(this.#failure(at, cause));
      server.once('error', onError);
      server.listen({ port: at.port, backlog: BACKLOG, ...(at.host === undefined ? {} : { host: at.host }) }, () => {
        server.off('error', onError);
        resolve();
      });
    });
    // Accepting can fail later (out of descriptors); the listener goes on.
    server.on('error', () => {});
    const { address, port } = server.address() as AddressInfo;
    return { address, port };
  }

  /** Accepts from a listening socket that another process has bound and sent; the kernel gives each connection to one of the processes. */
  acceptFrom(server: Server): void {
    this.#others.push(server);
    server.on('error', () => {});
    server.on('connection', (socket) => {
      socket.setNoDelay(true);
      this.#onConnection(socket);
    });
  }

  /** Stops accepting in this process; connections go on. */
  stop(): void {
    for (const server of [this.server, ...this.#others]) if (server.listening) server.close();
  }

  #failure(at: ListenAddress, cause: NodeJS.ErrnoException): OperatorError {
    const [what, key] = DOORS[this.#name];
    const where = `${at.host === undefined ? '' : at.host.includes(':') ? `[${at.host}]` : at.host}:${at.port}`;
    const [reason, next] = EXPLAINED[cause.code ?? ''] ?? [
      cause.message,
      `set ${key} to an address that can be listened on`,
    ];
    return new OperatorError('LISTEN_FAILED', `cannot listen for ${what} on ${where}: ${reason}`, {
      next: next.replaceAll('{key}', key).replaceAll('{port}', String(at.port)),
      cause,
    });
  }
}

const EXPLAINED: Readonly<Record<string, readonly [reason: string, next: string]>> = {
  EADDRINUSE: [
    'another program listens there',
    'find it with: ss -ltnp "sport = :{port}"; stop it, or set {key} to another address',
  ],
  EACCES: [
    'this user may not use the port',
    'grant it with: setcap cap_net_bind_service=+ep on the node binary (AmbientCapabilities=CAP_NET_BIND_SERVICE in systemd), or set {key} to a port above 1023',
  ],
  EADDRNOTAVAIL: ['this machine does not have that address', 'list its addresses with: ip address; correct {key}'],
  ENOTFOUND: ['that host name does not resolve', 'write an IP address of this machine in {key}'],
  EAFNOSUPPORT: ['this machine has no such address family', 'write an IPv4 address in {key}, such as 0.0.0.0:{port}'],
};
