import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { ACME_TLS } from '../certs/client-hello.ts';
import type { CertificateService } from '../certs/service.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Connection, Connections } from './connections.ts';
import { peekHello } from './peek.ts';
import type { HttpServers } from './servers.ts';
import { refuseName, StartingContext, secure } from './sni.ts';

const PROTOCOLS = ['h2', 'http/1.1'];

export interface TlsFrontOptions {
  readonly certificates: Pick<CertificateService, 'contexts' | 'alpnChallenge' | 'alpnPending'>;
  readonly connections: Connections;
  readonly servers: HttpServers;
  readonly ticketKeys: Buffer;
  readonly handshakeMs: number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** Takes accepted connections of the HTTPS port through TLS and hands them to HTTP. */
export class TlsFront {
  readonly #options: TlsFrontOptions;
  readonly #starting: StartingContext;
  readonly #handshakes;
  readonly #failures;

  constructor(options: TlsFrontOptions) {
    this.#options = options;
    this.#starting = new StartingContext(options.ticketKeys);
    const { metrics } = options;
    this.#handshakes = metrics.tally('tls_handshakes_total', 'TLS handshakes done', ['version', 'protocol', 'resumed']);
    this.#failures = metrics.counter('tls_handshake_failures_total', 'TLS handshakes that failed', ['reason']);
  }

  accept(raw: Socket): void {
    const connection = this.#options.connections.add(raw);
    raw.on('error', () => {});
    if (raw.destroyed) return;
    const bound = setTimeout(() => this.#fail(raw, 'ERR_TLS_HANDSHAKE_TIMEOUT'), this.#options.handshakeMs);
    raw.once('close', () => clearTimeout(bound));
    const done = (): void => clearTimeout(bound);
    if (this.#options.certificates.alpnPending()) void this.#peek(raw, connection, done);
    else this.#handshake(raw, connection, done);
  }

  /** Only while a CA may be about to validate: its handshake must not meet an ordinary certificate, nor a client its challenge. */
  async #peek(raw: Socket, connection: Connection, done: () => void): Promise<void> {
    const hello = await peekHello(raw);
    if (raw.destroyed) return;
    if (hello?.protocols.length === 1 && hello.protocols[0] === ACME_TLS) this.#challenge(raw, hello.serverName, done);
    else this.#handshake(raw, connection, done);
  }

  #handshake(raw: Socket, connection: Connection, done: () => void): void {
    const { certificates, servers } = this.#options;
    const socket = secure(raw, this.#starting, () => certificates.contexts(), PROTOCOLS);
    let established = false;
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (!established) this.#fail(raw, error.code ?? error.message);
    });
    socket.once('secure', () => {
      established = true;
      done();
      connection.secure = true;
      // As Node's own TLS server does: HTTP/2 waits for it on a socket that was not made by one.
      (socket as { secureConnecting?: boolean }).secureConnecting = false;
      const [version, resumed] = [socket.getProtocol() ?? '', String(socket.isSessionReused())];
      this.#handshakes.add(1, version, socket.alpnProtocol || 'none', resumed);
      servers.serve(socket, connection);
      if (connection.draining) connection.drain();
    });
  }

  /** RFC 8737 §3: the handshake alone is the answer. */
  #challenge(raw: Socket, host: string | null, done: () => void): void {
    const context = host === null ? null : this.#options.certificates.alpnChallenge(host);
    if (context === null) {
      refuseName(raw);
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

  #fail(raw: Socket, reason: string): void {
    // Scanners and clients that do not trust the CA: counted, and told apart only where someone looks.
    this.#failures.inc({ reason: KNOWN_REASONS.has(reason) ? reason : 'other' });
    this.#options.log.debug({ client: raw.remoteAddress, reason }, 'a TLS handshake failed');
    raw.destroySoon();
  }
}

/** Labels of a metric must not be for a stranger to multiply. */
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
