import type { Socket } from 'node:net';
import { clientNetwork } from '../access/access.ts';
import { parseAddress } from '../kit/networks.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';

/**
 * What a listener offers: `registry` the registry API, the page and health; `redirect` (`listen.http` beside TLS) ACME's HTTP-01 challenges,
 * the internal CA's root, health and redirects to HTTPS; `metrics` (`metrics.listen`) metrics and health.
 */
export type Service = 'registry' | 'redirect' | 'metrics';

/** Requests that may wait on one connection of HTTP/1.1 for the answers before them. No known client sends any ahead; whoever sends more is ended. */
const MAX_PIPELINED = 64;

/** A client that was told that its connection ends, and has nothing to be answered, has so long to close it, ms. */
const CLOSING_MS = 2_000;
/** Of an answer that ended no longer ago than this, ms, the end may still be on its way to a slow client: closing its connection would lose it … */
const ARRIVING_MS = 60_000;
/** … where it was larger than this, bytes: less is through any link in the time above. */
const LARGE_ANSWER = 64 * 1024;

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
  /** Whom it counts for: an address or a /64; null for a trusted proxy, which has many clients, and on the metrics port. */
  readonly client: string | null;
  /** Requests that are being answered. */
  active = 0;
  /** No further request is taken; the connection ends with the last running one. */
  draining = false;
  /** A request on it was none that HTTP allows: what follows may be a part of that one which other programs take for the next. */
  confused = false;
  /** Ends it in order, after what was written. Replaced when its protocol is known (TLS, HTTP/2). */
  end: () => void;
  /** Tells the client at once that no further request is taken, where its protocol has words for it (HTTP/2). */
  announceEnd: () => void = () => {};
  readonly #pipelined: (() => void)[] = [];
  /** When a large answer on it ended last; monotonic. */
  #answeredAt = Number.NEGATIVE_INFINITY;

  constructor(raw: Socket, service: Service, address: string, client: string | null) {
    this.raw = raw;
    this.service = service;
    this.address = address;
    this.client = client;
    this.end = () => raw.destroy();
  }

  /**
   * Begins to answer a request once those before it are answered (HTTP/1.1, whose answers go out one after the other): begun at once, hundreds that
   * fit into one packet would each hold a source and a buffer until its client reads.
   */
  inTurn(answer: () => void): void {
    if (this.active === 0) answer();
    else if (this.#pipelined.length < MAX_PIPELINED) this.#pipelined.push(answer);
    else this.raw.destroy();
  }

  /**
   * A request has been answered, or its client has left.
   * @param sent bytes of the body, where the answer was given whole
   */
  settled(sent: number): void {
    this.active -= 1;
    if (sent > LARGE_ANSWER) this.#answeredAt = performance.now();
    if (this.active > 0) return;
    if (this.draining) this.#endNow();
    else this.#pipelined.shift()?.();
  }

  drain(): void {
    this.draining = true;
    if (this.active === 0) this.#endNow();
    else this.announceEnd();
  }

  /** Nothing is to be answered on it: ends it in order, and without its client where that does not end it too. */
  #endNow(): void {
    this.end();
    const arriving = this.#answeredAt + ARRIVING_MS - performance.now();
    const timer = setTimeout(() => this.raw.destroy(), Math.max(CLOSING_MS, arriving));
    this.raw.once('close', () => clearTimeout(timer));
  }
}

/** Port: connections of the same clients with other processes of this gateway. */
export interface ConnectionPeers {
  others(client: string): number;
  /** So many connections of a client are open here. */
  counted(client: string, count: number): void;
}

/** Most connections that are open at a time. */
export interface ConnectionCaps {
  /** Of one client, in all processes. */
  readonly client: number;
  /** Of all clients together, in this process; infinite where the system does not say how many descriptors there are. */
  readonly all: number;
}

/** Share of a process's descriptors that connections of clients leave for files, databases and upstream connections. */
const RESERVED_SHARE = 1 / 4;
/** The same, as a number: below it a single pull of many layers could run out. No more than half, where there are few in all. */
const RESERVED_LEAST = 128;

/** @param descriptors soft limit of the process; null: unknown */
export function connectionsInAll(descriptors: number | null): number {
  if (descriptors === null) return Number.POSITIVE_INFINITY;
  const reserve = Math.max(RESERVED_LEAST, Math.ceil(descriptors * RESERVED_SHARE));
  return descriptors - Math.min(reserve, Math.ceil(descriptors / 2));
}

/** A full cap stays full for readers that take next to nothing so long after a connection was refused, ms: clients come back. */
const FULL_FOR = 120_000;

/** How often refused connections are logged at most, ms. */
const LOG_EVERY = 10_000;

export interface ConnectionsOptions {
  /** Read with each connection. */
  readonly caps: ConnectionCaps;
  /** Whether an address is a proxy's, whose connections are many clients'. */
  readonly trusts: (address: string) => boolean;
  /** Null where this process serves alone. */
  readonly peers: ConnectionPeers | null;
  readonly metrics: Pick<Metrics, 'gauge' | 'counter'>;
  readonly log: Pick<Logger, 'warn'>;
}

/** All open connections of the edge: within its caps, and so that shutdown can end idle ones at once and wait for the rest. */
export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #open = new Set<Connection>();
  readonly #byClient = new Map<string, number>();
  readonly #refused;
  /** When a connection was refused because there were too many in all; monotonic. */
  #fullAt = Number.NEGATIVE_INFINITY;
  /** The same for clients that had too many. Bounded: one that has no connection here is forgotten. */
  readonly #clientsFullAt = new Map<string, number>();
  #refusals = 0;
  #loggedAt = Number.NEGATIVE_INFINITY;
  #draining = false;
  #empty: (() => void) | null = null;

  constructor(options: ConnectionsOptions) {
    const { metrics } = options;
    this.#options = options;
    metrics.gauge('http_connections', 'Open connections of clients', [], (gauge) => gauge.set(this.#open.size));
    this.#refused = metrics.counter(
      'http_connections_refused_total',
      'Connections that were reset because too many were open: of their client, or in all',
      ['cap'],
    );
  }

  get size(): number {
    return this.#open.size;
  }

  /** Null for a connection that is beyond a cap: it has been reset, which costs nothing and makes a client try again later. */
  add(raw: Socket, service: Service): Connection | null {
    // An error closes the socket, which is all that there is to do; without a listener it would end the process.
    raw.on('error', () => {});
    const address = plainAddress(raw.remoteAddress);
    const uncounted = service === 'metrics' || this.#options.trusts(address);
    const connection = new Connection(raw, service, address, uncounted ? null : clientNetwork(address));
    const cap = service === 'metrics' ? null : this.#exceeded(connection.client);
    if (cap !== null) {
      this.#refuse(connection, cap);
      return null;
    }
    this.#open.add(connection);
    this.#count(connection.client, 1);
    this.bind(raw, connection);
    raw.once('close', () => {
      this.#open.delete(connection);
      this.#count(connection.client, -1);
      if (this.#open.size === 0) this.#empty?.();
    });
    if (this.#draining) connection.drain();
    return connection;
  }

  /** Whether others could not connect, a short while ago, because there were too many connections of this one's client, or in all. */
  isFull({ client }: Connection): boolean {
    const since = performance.now() - FULL_FOR;
    return (
      this.#fullAt > since || (client !== null && (this.#clientsFullAt.get(client) ?? Number.NEGATIVE_INFINITY) > since)
    );
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

  #exceeded(client: string | null): 'client' | 'all' | null {
    const { caps, peers } = this.#options;
    if (this.#open.size >= caps.all) return 'all';
    if (client === null) return null;
    const open = (this.#byClient.get(client) ?? 0) + (peers?.others(client) ?? 0);
    return open >= caps.client ? 'client' : null;
  }

  #refuse({ raw, address, client }: Connection, cap: 'client' | 'all'): void {
    const { caps, log } = this.#options;
    const now = performance.now();
    if (cap === 'all') this.#fullAt = now;
    else if (client !== null && this.#byClient.has(client)) this.#clientsFullAt.set(client, now);
    this.#refused.inc({ cap });
    this.#refusals += 1;
    if (now - this.#loggedAt > LOG_EVERY) {
      log.warn(
        { client: address, cap, most: caps[cap], refused: this.#refusals },
        cap === 'client'
          ? 'connections were refused: their client has as many open as one may (limits.connections); a proxy that speaks for many belongs into trustedProxies'
          : 'connections were refused: this process has as many open as its descriptors allow; raise its limit of open files (LimitNOFILE, ulimit -n)',
      );
      this.#loggedAt = now;
      this.#refusals = 0;
    }
    raw.resetAndDestroy();
  }

  #count(client: string | null, by: 1 | -1): void {
    if (client === null) return;
    const count = (this.#byClient.get(client) ?? 0) + by;
    this.#options.peers?.counted(client, count);
    if (count > 0) {
      this.#byClient.set(client, count);
    } else {
      this.#byClient.delete(client);
      this.#clientsFullAt.delete(client);
    }
  }
}

/** An address as a person writes it: `::ffff:192.0.2.1` is `192.0.2.1`. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return '';
  return address.startsWith('::ffff:') ? (parseAddress(address)?.toString() ?? address) : address;
}
