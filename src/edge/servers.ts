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
import { isIP, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls';
import { ACME_TLS, type ClientHello, HELLO_MAX, peekClientHello } from '../certs/client-hello.ts';
import { materialOf, PROTOCOL } from '../certs/contexts.ts';
import type { CertificateService, ContextSnapshot } from '../certs/service.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { Connection, Connections, Service } from './request-context.ts';
import { answerParserError, methodNotAllowed, sendToSocket } from './response-writer.ts';

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

/** Application protocols that are offered by ALPN, the preferred one first. */
const PROTOCOLS = ['h2', 'http/1.1'];

/**
 * A fatal `unrecognized_name` alert (RFC 6066 §3, RFC 8446 §6) in a plaintext record: no key is agreed on yet when the
 * name is known. Node's own refusal closes without an alert, and a client then takes it for a broken network.
 */
const UNRECOGNIZED_NAME = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]);

/** A hello and the record headers around it, even if each record carried a byte or two. */
const PEEKED_MAX = 2 * HELLO_MAX;

/** Reasons that are labels of the metric; all others count as `other`, because what a client sends must not make new labels. */
const KNOWN_REASONS = new Set([
  'UNRECOGNIZED_NAME',
  'ECONNRESET',
  'ERR_TLS_HANDSHAKE_TIMEOUT',
  'ERR_SSL_NO_SHARED_CIPHER',
  'ERR_SSL_UNSUPPORTED_PROTOCOL',
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_HTTP_REQUEST',
  'ERR_SSL_NO_APPLICATION_PROTOCOL',
  'ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE',
  'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
  'ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_UNKNOWN',
]);

/** The client asked for a name that has no certificate here. */
class UnknownNameError extends Error {
  override readonly name = 'UnknownNameError';
  readonly code = 'UNRECOGNIZED_NAME';
}

export interface TlsOptions {
  readonly certificates: Pick<CertificateService, 'contexts' | 'alpnChallenges'>;
  readonly connections: Connections;
  readonly servers: HttpServers;
  readonly ticketKeys: Buffer;
  readonly handshakeMs: number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** Takes accepted connections of the HTTPS port through the TLS handshake and gives them to HTTP. */
export class TlsTerminator {
  readonly #options: TlsOptions;
  readonly #starting: StartingContext;
  readonly #handshakes;
  readonly #failures;

  constructor(options: TlsOptions) {
    this.#options = options;
    this.#starting = new StartingContext(options.ticketKeys);
    const { metrics } = options;
    this.#handshakes = metrics.tally('tls_handshakes_total', 'TLS handshakes done', ['version', 'protocol', 'resumed']);
    this.#failures = metrics.counter('tls_handshake_failures_total', 'TLS handshakes that failed', ['reason']);
  }

  readonly accept = (raw: Socket): void => {
    const connection = this.#options.connections.add(raw, 'registry');
    if (raw.destroyed) return;
    const bound = setTimeout(() => this.#fail(raw, 'ERR_TLS_HANDSHAKE_TIMEOUT'), this.#options.handshakeMs);
    raw.once('close', () => clearTimeout(bound));
    const done = (): void => clearTimeout(bound);
    if (this.#options.certificates.alpnChallenges.size > 0) void this.#peek(raw, connection, done);
    else this.#handshake(raw, connection, done);
  };

  /** Only while a CA may be about to validate: its handshake must not meet an ordinary certificate, nor a client its challenge. */
  async #peek(raw: Socket, connection: Connection, done: () => void): Promise<void> {
    const hello = await readClientHello(raw);
    if (raw.destroyed) return;
    if (hello?.protocols.length === 1 && hello.protocols[0] === ACME_TLS) this.#challenge(raw, hello.serverName, done);
    else this.#handshake(raw, connection, done);
  }

  #handshake(raw: Socket, connection: Connection, done: () => void): void {
    const { certificates, servers } = this.#options;
    const socket = startTls(raw, this.#starting, () => certificates.contexts());
    let established = false;
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (!established) this.#fail(raw, error.code ?? error.message);
    });
    socket.once('secure', () => {
      established = true;
      done();
      // Neither this field nor the event `secure` is documented. An HTTP/2 session waits for `secureConnect` while the field is true, and on the
      // server's side only `tls.Server` clears it. Sockets cannot come from `tls.Server`: it gives its SNICallback no way to the raw socket,
      // which the alert for an unknown name needs. The tests over HTTP/2 in test/integration/edge-*.test.ts fail where this stops working.
      (socket as { secureConnecting?: boolean }).secureConnecting = false;
      const [version, resumed] = [socket.getProtocol() ?? '', String(socket.isSessionReused())];
      this.#handshakes.add(1, version, socket.alpnProtocol || 'none', resumed);
      servers.serve(socket, connection);
      if (connection.draining) connection.drain();
    });
  }

  /** RFC 8737 §3: the handshake alone is the answer. */
  #challenge(raw: Socket, host: string | null, done: () => void): void {
    const context = host === null ? undefined : this.#options.certificates.alpnChallenges.get(host);
    if (context === undefined) {
      raw.write(UNRECOGNIZED_NAME);
      this.#fail(raw, 'UNRECOGNIZED_NAME');
      return;
    }
    const socket = new TLSSocket(raw, { isServer: true, secureContext: context, ALPNProtocols: [ACME_TLS] });
    socket.on('error', (error: NodeJS.ErrnoException) => this.#fail(raw, error.code ?? error.message));
    socket.once('secure', () => {
      done();
      this.#options.log.info({ host }, 'answered a TLS-ALPN-01 validation');
      socket.end();
      socket.destroySoon();
    });
  }

  /** Scanners and clients that do not trust the CA are daily business: counted, and logged for debugging only. */
  #fail(raw: Socket, reason: string): void {
    this.#failures.inc({ reason: KNOWN_REASONS.has(reason) ? reason : 'other' });
    this.#options.log.debug({ client: raw.remoteAddress, reason }, 'a TLS handshake failed');
    raw.destroySoon();
  }
}

/**
 * What every handshake begins with: the certificate for clients that name no host, and the keys of session tickets. It is made anew when that
 * certificate changes; tickets survive it, because the keys stay. (Setting the certificate on each connection instead
 * made a handshake 3 to 4 % dearer.)
 */
class StartingContext {
  readonly #ticketKeys: Buffer;
  #fallback: SecureContext | null = null;
  #context: SecureContext;

  /** @param ticketKeys 48 bytes, shared by all processes of one gateway */
  constructor(ticketKeys: Buffer) {
    this.#ticketKeys = ticketKeys;
    this.#context = this.#with(null);
  }

  /** @param fallback built by `contextOf` */
  of(fallback: SecureContext | null): SecureContext {
    if (fallback !== this.#fallback) {
      this.#context = this.#with(fallback);
      this.#fallback = fallback;
    }
    return this.#context;
  }

  #with(fallback: SecureContext | null): SecureContext {
    const material = fallback === null ? null : materialOf(fallback);
    return createSecureContext({
      ...PROTOCOL,
      ...(material === null ? {} : { cert: material.chain, key: material.key }),
      ticketKeys: this.#ticketKeys,
      sessionIdContext: 'registry-gateway',
    });
  }
}

/**
 * Begins TLS on a connection: the certificate of exactly the name that the client asks for, the fallback where it asks
 * for none (an IP address), and an alert for every other name.
 */
function startTls(raw: Socket, starting: StartingContext, contexts: () => ContextSnapshot): TLSSocket {
  return new TLSSocket(raw, {
    isServer: true,
    secureContext: starting.of(contexts().fallback),
    ALPNProtocols: [...PROTOCOLS],
    SNICallback: (serverName, callback) => {
      const answer = (context: SecureContext | null): void => {
        if (context !== null) {
          callback(null, context);
          return;
        }
        raw.write(UNRECOGNIZED_NAME);
        callback(new UnknownNameError(`no certificate for ${serverName.slice(0, 255)}`));
      };
      const snapshot = contexts();
      const name = (serverName.endsWith('.') ? serverName.slice(0, -1) : serverName).toLowerCase();
      const ready = contextFor(name, snapshot);
      if (ready !== null || snapshot.find === undefined) answer(ready);
      else snapshot.find(name).then(answer, callback);
    },
  });
}

function contextFor(name: string, snapshot: ContextSnapshot): SecureContext | null {
  // RFC 6066 forbids addresses as server names; some clients send them all the same.
  return snapshot.byHost.get(name) ?? (isIP(name) === 0 ? null : snapshot.fallback);
}

/**
 * Reads a connection's ClientHello, in however many pieces it arrives, and puts every byte back.
 * Null where it is none, or the client leaves first.
 */
function readClientHello(socket: Socket): Promise<ClientHello | null> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const finish = (hello: ClientHello | null): void => {
      socket.off('data', onData);
      socket.off('close', onGone);
      socket.off('end', onGone);
      socket.pause();
      if (size > 0) socket.unshift(Buffer.concat(chunks, size));
      resolve(hello);
    };
    const onGone = (): void => {
      socket.off('data', onData);
      resolve(null);
    };
    const onData = (chunk: Buffer): void => {
      chunks.push(chunk);
      size += chunk.length;
      const result = peekClientHello(chunks.length === 1 ? chunk : Buffer.concat(chunks, size));
      if (result.state === 'hello') finish(result.hello);
      else if (result.state === 'other' || size > PEEKED_MAX) finish(null);
    };
    socket.on('data', onData);
    socket.once('close', onGone);
    socket.once('end', onGone);
  });
}

/** How often connections are checked against the limits of their requests, at most. */
const CHECK_INTERVAL_MS = 2_000;
/** Tokens and several Accept types fit; Node's own limit. */
const MAX_HEADER_BYTES = 16 * 1024;
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
      const connection = connections.of(request.socket);
      if (connection === undefined) response.destroy();
      else dispatch(request, response, connection);
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
      connection.end = () => session.close();
      session.setTimeout(limits.keepAliveMs, () => {
        if (connection.active === 0) session.close();
      });
    });
    // A client's broken frames end its session; there is nothing to do here.
    this.#http2.on('sessionError', () => {});
  }

  /** Takes the connections that a listener without TLS has accepted. */
  acceptor(service: Service): (socket: Socket) => void {
    return (socket) => this.serve(socket, this.#connections.add(socket, service));
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
