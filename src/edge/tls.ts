import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import { createServer, type SecureContext, type Server, type TLSSocket } from 'node:tls';
import { ACME_TLS, type ClientHello, HELLO_MAX, peekClientHello } from '../certs/client-hello.ts';
import { materialOf, PROTOCOL } from '../certs/contexts.ts';
import type { CertificateService, ContextSnapshot } from '../certs/service.ts';
import { wildcardDomain } from '../certs/wildcard.ts';
import type { Freshness } from '../kit/freshness.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { Connection, Connections } from './connections.ts';
import type { HttpServers } from './servers.ts';

/** Application protocols that are offered by ALPN, the preferred one first. */
const PROTOCOLS = ['h2', 'http/1.1'];

/**
 * A fatal `unrecognized_name` alert (RFC 6066 §3, RFC 8446 §6) in a plaintext record: no key is agreed on yet when the
 * name is known. Node's own refusal closes without an alert, and a client then takes it for a broken network.
 */
const UNRECOGNIZED_NAME = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]);

/** A hello and the record headers around it, even if each record carried a byte or two. */
const PEEKED_MAX = 2 * HELLO_MAX;
/** Each look at a hello that is not whole reads it from its beginning. Sent byte by byte it takes three; one cut into hundreds of records is no client's. */
const MAX_LOOKS = 64;

/** However busy the process is, a handshake may take so many times its limit: a stranger must not hold a descriptor for as long as the load lasts. */
const BUSY_HANDSHAKE = 6;

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

/** A name that has no certificate here. */
class UnknownNameError extends Error {
  override readonly name = 'UnknownNameError';
  readonly code = 'UNRECOGNIZED_NAME';
}

/** The keys that encrypt session tickets, replaced from time to time: who steals them can read what was said under them, and no more. */
export class TicketKeys {
  readonly #everyMs: number;
  #current = randomBytes(48);
  #madeAt = performance.now();

  /** @param everyMs how long keys are used; a ticket under older ones costs its client a full handshake */
  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** 48 bytes, another buffer after each change. */
  readonly current = (): Buffer => {
    if (performance.now() - this.#madeAt >= this.#everyMs) {
      this.#current = randomBytes(48);
      this.#madeAt = performance.now();
    }
    return this.#current;
  };
}

export interface TlsOptions {
  readonly certificates: Pick<CertificateService, 'contexts' | 'alpnChallenges'>;
  readonly connections: Connections;
  readonly servers: HttpServers;
  /** Until when this process may decide by what it knows of names; null where nobody else changes that. */
  readonly freshness: Freshness | null;
  /** 48 bytes, shared by all processes of one gateway; another buffer after each change. */
  readonly ticketKeys: () => Buffer;
  readonly handshakeMs: number;
  readonly metrics: Metrics;
  readonly log: Logger;
}

/** A connection in its handshake. */
interface Handshake {
  readonly raw: Socket;
  readonly connection: Connection;
  /** Done, or failed and counted. */
  over: boolean;
  /** Of the bound on its time. */
  timer: NodeJS.Timeout | undefined;
}

/**
 * Takes accepted connections of the HTTPS port through the TLS handshake and gives them to HTTP. Node's TLS server never listens; it guards the
 * connection after the handshake too, against broken records and renegotiation. While a CA may validate a challenge, the ClientHello is read
 * before it, since it alone says whether this is the CA; no other time, since every connection would pay for it.
 */
export class TlsTerminator {
  readonly #options: TlsOptions;
  readonly #server: Server;
  readonly #challenges: Server;
  /**
   * The connection of what Node's server calls back for, which has no way from its own socket to the one beneath. Emptied when the handshake is
   * over, since whatever begins in a request of the connection remembers it.
   */
  readonly #handshaking = new AsyncLocalStorage<{ now: Handshake | null }>();
  readonly #handshakes;
  readonly #failures;
  #fallback: SecureContext | null = null;
  #ticketKeys: Buffer;

  constructor(options: TlsOptions) {
    const { metrics, certificates } = options;
    this.#options = options;
    this.#handshakes = metrics.tally('tls_handshakes_total', 'TLS handshakes done', ['version', 'protocol', 'resumed']);
    this.#failures = metrics.counter('tls_handshake_failures_total', 'TLS handshakes that failed', ['reason']);
    this.#ticketKeys = options.ticketKeys();
    this.#server = createServer({
      ...this.#startingContext(null),
      ALPNProtocols: PROTOCOLS,
      SNICallback: (serverName, callback) => this.#chooseContext(serverName, callback, options.freshness),
    });
    this.#server.on('secureConnection', (socket) => this.#established(socket));
    this.#server.on('tlsClientError', (error) => this.#clientFailed(error));
    // RFC 8737 §3: the handshake alone is the answer.
    this.#challenges = createServer({
      ...PROTOCOL,
      ALPNProtocols: [ACME_TLS],
      SNICallback: (serverName, callback) => {
        const context = certificates.alpnChallenges.get(serverName.toLowerCase());
        if (context === undefined) this.#refuseName(callback);
        else callback(null, context);
      },
    });
    this.#challenges.on('secureConnection', (socket) => {
      options.log.info({ host: socket.servername }, 'answered a TLS-ALPN-01 validation');
      socket.on('error', () => {});
      this.#done();
      socket.destroySoon();
    });
    this.#challenges.on('tlsClientError', (error) => this.#clientFailed(error));
  }

  /** @param freshness of what is known of names; null where nobody is to be asked, now that it was just read */
  #chooseContext(
    serverName: string,
    callback: (error: Error | null, context?: SecureContext) => void,
    freshness: Freshness | null,
  ): void {
    lookUp(serverName, this.#options.certificates.contexts(), (error, context) => {
      if (context !== null) callback(null, context);
      else if (error !== null) callback(error);
      else if (freshness?.isOver(performance.now()) === true) {
        // Another gateway may have added the name while this one stood still.
        const again = () => this.#chooseContext(serverName, callback, null);
        freshness.renewed().then(again, again);
      } else this.#refuseName(callback);
    });
  }

  readonly accept = (raw: Socket): void => {
    const connection = this.#options.connections.add(raw, 'registry');
    if (connection === null) return;
    const handshake: Handshake = { raw, connection, over: false, timer: undefined };
    this.#limit(handshake);
    if (this.#options.certificates.alpnChallenges.size === 0) this.#begin(this.#server, handshake);
    else readClientHello(raw, (hello) => this.#begin(isValidation(hello) ? this.#challenges : this.#server, handshake));
  };

  #begin(server: Server, handshake: Handshake): void {
    const { fallback } = this.#options.certificates.contexts();
    const ticketKeys = this.#options.ticketKeys();
    if (fallback !== this.#fallback) {
      this.#ticketKeys = ticketKeys;
      this.#server.setSecureContext(this.#startingContext(fallback));
      this.#fallback = fallback;
    } else if (ticketKeys !== this.#ticketKeys) {
      this.#ticketKeys = ticketKeys;
      this.#server.setTicketKeys(ticketKeys);
    }
    this.#handshaking.run({ now: handshake }, () => server.emit('connection', handshake.raw));
  }

  /**
   * What every handshake begins with: the certificate for clients that name no host, and the keys of session tickets. It is made anew when
   * that certificate changes; tickets survive it, because the keys stay. (Setting the certificate on each connection instead
   * made a handshake 3 to 4 % dearer.)
   * @param fallback built by `contextOf`
   */
  #startingContext(fallback: SecureContext | null) {
    const material = fallback === null ? null : materialOf(fallback);
    return {
      ...PROTOCOL,
      ...(material === null ? {} : { cert: material.chain, key: material.key }),
      ticketKeys: this.#ticketKeys,
      sessionIdContext: 'registry-gateway',
    };
  }

  #established(socket: TLSSocket): void {
    const connection = this.#done();
    // An error closes the socket, which is all that there is to do; without a listener it would end the process.
    socket.on('error', () => {});
    if (connection === null) {
      socket.destroy();
      return;
    }
    // A client asks for it only to make us work: TLS 1.3 has none, and browsers and Go never use it (CVE-2011-1473).
    socket.disableRenegotiation();
    const [version, resumed] = [socket.getProtocol() ?? '', String(socket.isSessionReused())];
    this.#handshakes.add(1, version, socket.alpnProtocol || 'none', resumed);
    this.#options.servers.serve(socket, connection);
    if (connection.draining) connection.drain();
  }

  /** The handshake that Node's server calls back for is done: the connection that it was for. */
  #done(): Connection | null {
    const handshaking = this.#handshaking.getStore();
    if (handshaking === undefined || handshaking.now === null) return null;
    const { now: handshake } = handshaking;
    handshaking.now = null;
    handshake.over = true;
    clearTimeout(handshake.timer);
    return handshake.connection;
  }

  /**
   * Bounds a handshake. Only time in which this process waited for events counts: on a busy machine the client is not to blame for the rest.
   * A client that leaves in the middle has failed; one that never sent a byte, as health checks of load balancers do, has begun none.
   */
  #limit(handshake: Handshake): void {
    const { raw } = handshake;
    const { handshakeMs } = this.#options;
    const began = performance.now();
    const loop = performance.eventLoopUtilization();
    const check = (): void => {
      const waited = performance.eventLoopUtilization(loop).idle;
      if (waited >= handshakeMs || performance.now() - began >= BUSY_HANDSHAKE * handshakeMs) {
        this.#failed(handshake, 'ERR_TLS_HANDSHAKE_TIMEOUT');
        raw.destroySoon();
      } else handshake.timer = setTimeout(check, handshakeMs - waited);
    };
    handshake.timer = setTimeout(check, handshakeMs);
    raw.once('close', () => {
      clearTimeout(handshake.timer);
      if (raw.bytesRead > 0) this.#failed(handshake, 'ECONNRESET');
    });
  }

  /** Refuses it by an alert, for which Node's TLS server has no way: nothing has been encrypted yet, so it goes out beside that. */
  #refuseName(refuse: (error: Error) => void): void {
    const raw = this.#handshaking.getStore()?.now?.raw;
    const refused = (): void => refuse(new UnknownNameError('there is no certificate for this name'));
    if (raw === undefined) refused();
    else raw.write(UNRECOGNIZED_NAME, refused);
  }

  /** Node's server has given it up, while its connection was there. */
  #clientFailed(error: NodeJS.ErrnoException): void {
    const handshake = this.#handshaking.getStore()?.now;
    if (handshake !== undefined && handshake !== null) this.#failed(handshake, error.code ?? error.message);
  }

  /** Scanners and clients that do not trust the CA are daily business: counted, once each, and logged for debugging only. */
  #failed(handshake: Handshake, reason: string): void {
    if (handshake.over) return;
    handshake.over = true;
    this.#failures.inc({ reason: KNOWN_REASONS.has(reason) ? reason : 'other' });
    this.#options.log.debug({ client: handshake.connection.address, reason }, 'a TLS handshake failed');
  }
}

/** Whether a CA validates a challenge (RFC 8737 §3). @param hello null for what is none: the TLS server refuses it in its own words */
function isValidation(hello: ClientHello | null): boolean {
  return hello?.protocols.length === 1 && hello.protocols[0] === ACME_TLS;
}

/** The context for a name that a client asks for; neither context nor error where there is no such name here. */
function lookUp(
  serverName: string,
  snapshot: ContextSnapshot,
  found: (error: Error | null, context: SecureContext | null) => void,
): void {
  const name = (serverName.endsWith('.') ? serverName.slice(0, -1) : serverName).toLowerCase();
  // RFC 6066 forbids addresses as server names; some clients send them all the same.
  const ready = snapshot.byHost.get(name) ?? (isIP(name) === 0 ? covering(name, snapshot) : snapshot.fallback);
  if (ready !== null || snapshot.find === undefined) found(null, ready);
  else
    snapshot.find(name).then(
      (context) => found(null, context),
      (error: Error) => found(error, null),
    );
}

/** Of a wildcard that covers a name which is no host here: HTTP then says so. A host that waits for a certificate of its own does wait. */
function covering(name: string, { wildcards, wildcard, waiting }: ContextSnapshot): SecureContext | null {
  if (wildcards === undefined || wildcards.size === 0 || waiting?.has(name) === true) return null;
  const domain = wildcardDomain(name);
  return wildcards.has(domain) ? (wildcard?.(domain) ?? null) : null;
}

/**
 * Reads a connection's ClientHello, in however many pieces it arrives, and puts every byte back.
 * Null where it is none; never called where the client leaves first.
 */
function readClientHello(socket: Socket, done: (hello: ClientHello | null) => void): void {
  const chunks: Buffer[] = [];
  let size = 0;
  /** It is not looked for before so many bytes are here. */
  let least = 1;
  let looks = 0;
  const onData = (chunk: Buffer): void => {
    chunks.push(chunk);
    size += chunk.length;
    if (size < least) return;
    const bytes = chunks.length === 1 ? chunk : Buffer.concat(chunks, size);
    const result = peekClientHello(bytes);
    looks += 1;
    if (result.state === 'more' && size <= PEEKED_MAX && looks < MAX_LOOKS) {
      least = Math.max(size + 1, leastOf(bytes));
      return;
    }
    socket.off('data', onData);
    socket.off('end', onEnd);
    socket.pause();
    socket.unshift(bytes);
    done(result.state === 'hello' ? result.hello : null);
  };
  const onEnd = (): void => void socket.destroy();
  socket.on('data', onData);
  socket.once('end', onEnd);
}

/** Bytes that a hello with this beginning has at least: it may be cut into more records, each with a header of its own. */
function leastOf(bytes: Buffer): number {
  const [header, type] = [5, 4];
  if (bytes.length < header + type) return header + type;
  return bytes.readUInt16BE(3) < type ? 0 : header + type + Math.min(bytes.readUIntBE(6, 3), HELLO_MAX);
}
