import type { Socket } from 'node:net';
import { plainAddress } from './forwarded.ts';

/** Where a socket or session keeps its connection: a WeakMap of all of them would cost the collector more with each. */
const CONNECTION = Symbol('connection');

/** What a request carries of its connection: a socket, or an HTTP/2 session. */
interface Carrier {
  [CONNECTION]?: Connection;
}

/** One accepted connection, whatever is spoken on it. */
export class Connection {
  readonly raw: Socket;
  readonly address: string;
  /** True once a TLS handshake is done. */
  secure = false;
  /** Requests that are being answered. */
  active = 0;
  /** No further request is taken; the connection ends with the last running one. */
  draining = false;
  /** Ends it in order, after what was written; replaced once TLS and HTTP/2 know better. */
  end: () => void;

  constructor(raw: Socket) {
    this.raw = raw;
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

  get size(): number {
    return this.#open.size;
  }

  add(raw: Socket): Connection {
    const connection = new Connection(raw);
    this.#open.add(connection);
    this.bind(raw, connection);
    raw.once('close', () => {
      this.#open.delete(connection);
      if (this.#open.size === 0) this.#empty?.();
    });
    if (this.#draining) connection.drain();
    return connection;
  }

  /** Lets `of` find the connection by what a request carries. */
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
