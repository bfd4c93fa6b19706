import {
  createServer as createHttp1,
  type Server as Http1Server,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import {
  createServer as createHttp2,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Connection, Connections, Service } from './connections.ts';
import type { Dispatcher } from './dispatcher.ts';
import { answerParserError, methodNotAllowed, sendToSocket } from './response-writer.ts';

/** Times, in ms. Each has its reason, so they are no configuration; tests shorten them. */
export interface EdgeLimits {
  /**
   * From accept to the end of the TLS handshake, which takes three round trips at most; time in which this process was busy does not count.
   * A slower client holds a descriptor and gives nothing for it.
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
  /** Over so long a reader's rate is measured: a link may be lost for a minute and be there again. */
  readonly paceMs: number;
  /** Bodies that one client is sent at a time by one process: each holds some 64 KiB while its client does not read. */
  readonly bodies: number;
  /** For so long the keys of session tickets are used. Whoever steals them can read the sessions begun under them. */
  readonly ticketKeysMs: number;
}

export const EDGE_LIMITS: EdgeLimits = {
  handshakeMs: 10_000,
  headersMs: 15_000,
  requestMs: 30_000,
  keepAliveMs: 100_000,
  stallMs: 60_000,
  paceMs: 120_000,
  // Nodes behind one address pull some layers each.
  bodies: 4_096,
  ticketKeysMs: 12 * 3_600_000,
};

/** How often connections are checked against the limits of their requests, at most. */
const CHECK_INTERVAL_MS = 2_000;
/** 32 KiB of ranges (over a thousand, as lazy-pulling snapshotters ask for), and Node's own 16 KiB for tokens, Accept types and the rest. */
const MAX_HEADER_BYTES = (32 + 16) * 1024;
/** Streams of one HTTP/2 connection; a pull of an image uses ten. */
const MAX_STREAMS = 100;
/** MiB that Node may hold for one HTTP/2 connection: two buffers for each stream. */
const SESSION_MEMORY_MIB = 48;

/** Speaks HTTP/1.1 and HTTP/2. Both servers never listen: they get connections that were accepted elsewhere, after TLS where there is any. */
export class HttpServers {
  readonly #http1: Http1Server;
  readonly #http2: Http2Server;
  readonly #connections: Connections;
  /** The connection whose HTTP/2 session is being made: `session` is emitted before `serve` returns. */
  #serving: Connection | null = null;

  constructor(dispatch: Dispatcher, connections: Connections, limits: EdgeLimits) {
    this.#connections = connections;
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
      const { socket } = request;
      const connection = connections.of(socket);
      if (connection === undefined) {
        response.destroy();
        return;
      }
      connection.inTurn(() => {
        // Its client may have left meanwhile, or have said before that no request follows.
        if (socket.writable) dispatch(request, response, connection);
      });
    };
    this.#http1 = createHttp1(
      {
        headersTimeout: limits.headersMs,
        requestTimeout: limits.requestMs,
        connectionsCheckingInterval: Math.min(CHECK_INTERVAL_MS, limits.headersMs),
        keepAliveTimeout: limits.keepAliveMs,
        // The dispatcher decides: a method is refused before a missing host is.
        requireHostHeader: false,
        // A pull has no body: its request needs no events of a stream.
        optimizeEmptyRequests: true,
        // Of two Host headers Node would drop the second; joined they are no valid host, and refused as RFC 9112 §3.2 wants it.
        joinDuplicateHeaders: true,
        maxHeaderSize: MAX_HEADER_BYTES,
      },
      onRequest,
    );
    // Otherwise Node invites the body (100 Continue), or refuses the header, before the method is looked at.
    this.#http1.on('checkContinue', onRequest);
    this.#http1.on('checkExpectation', onRequest);
    // CONNECT is an event of its own, with a bare socket.
    this.#http1.on('connect', (_request, socket) => sendToSocket(socket, methodNotAllowed('CONNECT')));
    this.#http1.on('clientError', (error, socket) => {
      // In the middle of an answer, a second one would become part of its body.
      if ((connections.of(socket)?.active ?? 0) > 0) socket.destroy();
      else answerParserError(error, socket);
    });
    // Node begins to check the timeouts of requests when a server listens, which this one never does, and has no other way to begin it.
    // "headers that trickle in" in test/integration/edge-tls.test.ts fails where this stops working.
    this.#http1.emit('listening');

    this.#http2 = createHttp2({
      settings: { maxConcurrentStreams: MAX_STREAMS, enableConnectProtocol: false },
      maxSessionMemory: SESSION_MEMORY_MIB,
    });
    const onStream = (request: Http2ServerRequest, response: Http2ServerResponse): void => {
      const session = request.stream.session;
      const connection = session === undefined ? undefined : connections.of(session);
      if (connection === undefined) request.stream.close();
      // Node's compatibility API has the same names and meanings, but shares no type with HTTP/1.1. The few differences that matter
      // ask for `http2Stream(response)`.
      else dispatch(request as unknown as IncomingMessage, response as unknown as ServerResponse, connection);
    };
    this.#http2.on('request', onStream);
    // `never`: @types/node knows this event with the arguments of a client's session alone; a server emits it as it does `request`.
    this.#http2.on('connect', onStream as never);
    this.#http2.on('checkContinue', onStream);
    this.#http2.on('session', (session) => {
      const connection = this.#serving;
      if (connection === null) {
        session.destroy();
        return;
      }
      connections.bind(session, connection);
      // GOAWAY at once; streams that run go on, and the session ends with the last of them.
      connection.end = () => session.close();
      connection.announceEnd = connection.end;
      session.setTimeout(limits.keepAliveMs, () => {
        if (connection.active === 0) session.close();
      });
    });
    // A client's broken frames end its session; there is nothing to do here.
    this.#http2.on('sessionError', () => {});
  }

  /** Takes the connections that a listener without TLS has accepted. */
  acceptor(service: Service): (socket: Socket) => void {
    return (socket) => {
      const connection = this.#connections.add(socket, service);
      if (connection !== null) this.serve(socket, connection);
    };
  }

  /** Speaks HTTP on a connection: HTTP/2 where ALPN chose it, else HTTP/1.1. */
  serve(socket: Socket | TLSSocket, connection: Connection): void {
    if ('alpnProtocol' in socket && socket.alpnProtocol === 'h2') {
      this.#serving = connection;
      this.#http2.emit('connection', socket);
      this.#serving = null;
      return;
    }
    this.#connections.bind(socket, connection);
    connection.end = () => socket.destroySoon();
    this.#http1.emit('connection', socket);
  }

  close(): void {
    // Ends the check of timeouts; there is nothing else to close.
    this.#http1.close(() => {});
  }
}
