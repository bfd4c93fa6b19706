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

export interface EdgeAddresses {
  readonly https: BoundAddress | null;
  readonly http: BoundAddress | null;
  readonly metrics: BoundAddress | null;
}

export type ListenerName = keyof EdgeAddresses;

/** What a listener is for in messages, and its configuration key. */
const LISTENERS = {
  https: ['HTTPS', 'listen.https'],
  http: ['HTTP', 'listen.http'],
  metrics: ['metrics', 'metrics.listen'],
} as const;

/** One port: its address, and what takes its connections. */
export interface ListenerPlan {
  readonly name: ListenerName;
  readonly at: ListenAddress;
  readonly onConnection: (socket: Socket) => void;
}

/**
 * How long a process that shares a listening socket pauses after each connection that it has accepted from it, ms; with the kernel's slack
 * some 70 µs. Else it would take several that come at once before another process has begun to run: of 4 connections opened at
 * once on a busy machine, one of two processes got all in 6 of 16 cases without the pause, and in 3 of 40 with it.
 */
const PAUSE_AFTER_ACCEPT = 0.02;

/** The edge's listening sockets. They only accept. */
export class Listeners {
  readonly #plans: readonly (ListenerPlan & { readonly server: Server })[];
  /** Those that other processes accept from as well. */
  readonly #shared = new Set<Server>();
  /** Null for a listener that is not open. */
  addresses: EdgeAddresses = { https: null, http: null, metrics: null };

  constructor(plans: readonly ListenerPlan[]) {
    this.#plans = plans.map((plan) => ({ ...plan, server: createServer({ noDelay: true }, plan.onConnection) }));
  }

  /** Opens all, or none. @throws {OperatorError} LISTEN_FAILED, naming the address and what to do */
  async open(): Promise<EdgeAddresses> {
    try {
      for (const { name, at, server } of this.#plans) {
        await listen(server, at).catch((cause: NodeJS.ErrnoException) => {
          throw listenFailed(name, at, cause);
        });
        const { address, port } = server.address() as AddressInfo;
        this.addresses = { ...this.addresses, [name]: { address, port } };
      }
    } catch (error) {
      this.stop();
      throw error;
    }
    return this.addresses;
  }

  /** The listening socket of a port, for other processes to accept from it as well; null where the configuration has no such port. */
  share(name: ListenerName): Server | null {
    const server = this.#plans.find((plan) => plan.name === name)?.server ?? null;
    if (server !== null) this.#shares(server);
    return server;
  }

  /** Accepts from a listening socket that another process has bound and sent; the kernel gives each connection to one of the processes. */
  acceptFrom(sent: Server, onConnection: (socket: Socket) => void): void {
    const server = createServer({ noDelay: true }, onConnection);
    server.on('error', () => {});
    // `sent` listens already, with Node's own backlog (511): that counts for the one socket, and so in every process. This sets ours again.
    server.listen(sent, BACKLOG);
    this.#shares(server);
  }

  /** Stops accepting in this process; connections go on. */
  stop(): void {
    for (const server of [...this.#plans.map((plan) => plan.server), ...this.#shared]) {
      if (server.listening) server.close();
    }
  }

  /** This process accepts from a socket that others accept from as well: it pauses behind each connection that it has taken. */
  #shares(server: Server): void {
    if (this.#shared.has(server)) return;
    this.#shared.add(server);
    // Nothing notifies it: Node has no other sleep of less than a millisecond.
    server.on('connection', () => void Atomics.wait(NEVER_NOTIFIED, 0, 0, PAUSE_AFTER_ACCEPT));
  }
}

const NEVER_NOTIFIED = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

async function listen(server: Server, at: ListenAddress): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: at.port, backlog: BACKLOG, ...(at.host === undefined ? {} : { host: at.host }) }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  // Accepting can fail later (out of descriptors); the listener goes on.
  server.on('error', () => {});
}

function listenFailed(name: ListenerName, at: ListenAddress, cause: NodeJS.ErrnoException): OperatorError {
  const [what, key] = LISTENERS[name];
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
