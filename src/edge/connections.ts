import type { Socket } from 'node:net';
import { parseAddress } from '../kit/networks.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/** Times that a client may take, in ms. Each has its reason, so they are no configuration; tests shorten them. */
export interface EdgeLimits {
  /**
   * From accept to the end of the TLS handshake, which takes three round trips at most. A slower client holds a
   * descriptor and gives nothing for it.
   */
  readonly handshakeMs: number;
  /** A whole request header: a client that sends it byte by byte (Slowloris) holds a connection for no longer. */
  readonly headersMs: number;
  /** A request with its body; pulls have none. */
  readonly requestMs: number;
  /**
   * A kept connection without a request. Longer than clients keep theirs (Go, and so Docker and containerd: 90 s; load balancers: 60 s),
   * so that they close first: a request that meets our closing on its way is lost.
   */
  readonly keepAliveMs: number;
  /**
   * A client that takes no byte while bytes wait for it. Long enough for a link that pauses; after it, the buffers and
   * the descriptor are freed.
   */
  readonly stallMs: number;
}

export const EDGE_LIMITS: EdgeLimits = {
  handshakeMs: 10_000,
  headersMs: 15_000,
  requestMs: 30_000,
  keepAliveMs: 100_000,
  stallMs: 60_000,
};

/**
 * What a listener offers: `registry` the registry API, the page and health; `redirect` (`listen.http` beside TLS) ACME's HTTP-01 challenges,
 * the internal CA's root, health and redirects to HTTPS; `metrics` (`metrics.listen`) metrics and health.
 */
export type Service = 'registry' | 'redirect' | 'metrics';

/** Where a socket or an HTTP/2 session keeps its connection. A WeakMap would cost the garbage collector more with each connection. */
const CONNECTION = Symbol('connection');

interface Carrier {
  [CONNECTION]?: Connection;
}

/** One accepted connection, whichever protocol is spoken on it. */
export class Connection {
  readonly raw: Socket;
  readonly address: string;
  /** Of the listener that accepted it. */
  readonly service: Service;
  /** Requests that are being answered. */
  active = 0;
  /** No further request is taken; the connection ends with the last running one. */
  draining = false;
  /** Ends it in order, after what was written. Replaced when its protocol is known (TLS, HTTP/2). */
  end: () => void;

  constructor(raw: Socket, service: Service) {
    this.raw = raw;
    this.service = service;
    this.address = plainAddress(raw.remoteAddress);
    this.end = () => raw.destroy();
  }

  /** A request has been answered, or its client has left. */
  settled(): void {
    this.active -= 1;
    if (this.draining && this.active === 0) this.end();
  }

  drain(): void {
    this.draining = true;
    if (this.active === 0) this.end();
  }
}

/** All open connections of the edge, so that shutdown can end idle ones at once and wait for the rest. */
export class Connections {
  readonly #open = new Set<Connection>();
  #draining = false;
  #empty: (() => void) | null = null;

  constructor(metrics: Pick<Metrics, 'gauge'>) {
    metrics.gauge('http_connections', 'Open connections of clients', [], (gauge) => gauge.set(this.#open.size));
  }

  get size(): number {
    return this.#open.size;
  }

  add(raw: Socket, service: Service): Connection {
    const connection = new Connection(raw, service);
    this.#open.add(connection);
    this.bind(raw, connection);
    // An error closes the socket, which is all that there is to do; without a listener it would end the process.
    raw.on('error', () => {});
    raw.once('close', () => {
      this.#open.delete(connection);
      if (this.#open.size === 0) this.#empty?.();
    });
    if (this.#draining) connection.drain();
    return connection;
  }

  /** Lets `of` find the connection by the socket or session that a request carries. */
  bind(carrier: object, connection: Connection): void {
    (carrier as Carrier)[CONNECTION] = connection;
  }

  of(carrier: object): Connection | undefined {
    return (carrier as Carrier)[CONNECTION];
  }

  /** Ends idle connections now and busy ones after their last answer, or at `graceMs`. */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    for (const connection of [...this.#open]) connection.drain();
    if (this.#open.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#empty = resolve;
    const bound = setTimeout(() => {
      for (const connection of this.#open) connection.raw.destroy();
    }, graceMs);
    await promise;
    clearTimeout(bound);
  }
}

/** An address as a person writes it: `::ffff:192.0.2.1` is `192.0.2.1`. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') ? (parseAddress(address)?.toString() ?? address) : address;
}
