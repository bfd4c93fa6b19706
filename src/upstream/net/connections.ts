import { isIP, type Socket, type TcpNetConnectOpts } from 'node:net';
import type { Readable } from 'node:stream';
import { type SecureContext, TLSSocket } from 'node:tls';
import { LRUCache } from 'lru-cache';
import { Agent, buildConnector, type Dispatcher } from 'undici';
import { isUnknownIssuer } from '../../kit/authorities.ts';
import { gatewaysPassed, renderVia } from '../../kit/via.ts';
import { ConnectError, ForbiddenAddressError, ProxyError, type Where } from '../failures.ts';
import { dialProxy, handshake, openSocket, proxyAuthorization, requireName, serverName } from './dial.ts';
import { bareHost, isInsideAddress, isInsideName, type ProxyChoice, type ProxyServer, type Reach } from './egress.ts';
import { ReceiveBuffers } from './receive-buffers.ts';
import type { Trust } from './trust.ts';

/** For TCP, proxy and TLS together. Long enough for three lost SYNs, which are repeated after 1, 2 and 4 s. */
const CONNECT_TIMEOUT_MS = 10_000;
/** How long an idle connection is kept for the next layer of the same pull. */
const KEEP_ALIVE_MS = 15_000;
/** Hosts whose TLS session is remembered, so that the next handshake with them is shorter. */
const MAX_SESSIONS = 100;
/** Redirects to signed URLs of some CDNs are long headers. */
const MAX_HEADER_BYTES = 64 * 1024;

/** Endpoints of which it is remembered where they are. */
const MAX_ORIGINS = 4096;

/** Names in lower case. */
export type ResponseHeaders = Readonly<Record<string, string | string[] | undefined>>;

/** The response to one request, before redirects and challenges. */
export interface RawResponse {
  readonly status: number;
  readonly headers: ResponseHeaders;
  /** The caller reads it to the end or destroys it. */
  readonly body: Readable;
}

export interface RawRequest {
  /** POST for a token, where its endpoint takes nothing else; what changes something is for pushes alone. */
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly headers: Readonly<Record<string, string>>;
  /** A stream goes out as it is read; where its length is known, the headers have it. */
  readonly body?: string | Uint8Array | Readable | undefined;
  readonly reach: Reach;
  /** What the host is to the request, for its errors. */
  readonly where: Where;
  /** The registry's own proxy. */
  readonly proxy: string | null;
  /** PEM of authorities that are trusted besides; null for none. */
  readonly ca: string | null;
  readonly signal: AbortSignal;
  /** Milliseconds without a byte: before the headers, and within the body. */
  readonly stallTimeout: number;
}

/** What connections that trust the same share. */
interface SecureConnector {
  readonly trust: { readonly secureContext?: SecureContext };
  /** TLS inside a tunnel of a proxy. */
  readonly inTunnel: buildConnector.connector;
  /** By host. */
  readonly sessions: LRUCache<string, Buffer>;
}

/**
 * Every outgoing HTTP connection to registries. There is a pool for each proxy and reach: a connection that was opened to an address which
 * only the operator may name must never carry a request to where a registry pointed.
 */
export class OutgoingConnections {
  #choice: ProxyChoice;
  #trust: Trust;
  readonly #pseudonym: string;
  /** By the authorities that a registry has of its own. */
  readonly #agents = new Map<string | null, Map<string, Agent>>();
  /** They take no new requests. */
  readonly #retired = new Set<Agent>();
  /** By origin of an endpoint: whether every connection to it led to an address in a private network. */
  readonly #inside = new LRUCache<string, boolean>({ max: MAX_ORIGINS });

  /** @param pseudonym what this gateway calls itself in `Via` */
  constructor(choice: ProxyChoice, trust: Trust, pseudonym: string) {
    this.#choice = choice;
    this.#trust = trust;
    this.#pseudonym = pseudonym;
  }

  /** Other proxies, and whom to trust, for connections from now on. Those that were trusted otherwise end with their last request. */
  reconfigure(choice: ProxyChoice, trust: Trust): void {
    this.#choice = choice;
    if (trust.equals(this.#trust)) return;
    this.#trust = trust;
    const agents = [...this.#agents.values()].flatMap((byKey) => [...byKey.values()]);
    this.#agents.clear();
    for (const agent of agents) {
      this.#retired.add(agent);
      void agent.close().finally(() => this.#retired.delete(agent));
    }
  }

  /** @throws {ConnectError} where no connection comes about */
  async request(url: URL, request: RawRequest): Promise<RawResponse> {
    try {
      return await this.#request(url, request);
    } catch (error) {
      if (!(error instanceof ConnectError) || request.where === error.where) throw error;
      // A connection may be for several requests.
      throw new ConnectError(url.host, request.where, error.cause);
    }
  }

  async #request(url: URL, request: RawRequest): Promise<RawResponse> {
    const proxy = this.#choice.for(url, request.proxy);
    const headers = { ...request.headers, via: renderVia([...gatewaysPassed(), this.#pseudonym]) };
    const options = {
      method: request.method,
      body: request.body ?? null,
      signal: request.signal,
      headersTimeout: request.stallTimeout,
      bodyTimeout: request.stallTimeout,
    };
    let response: Dispatcher.ResponseData;
    if (url.protocol === 'http:' && proxy !== null && proxy.kind !== 'socks5') {
      // Most HTTP proxies allow CONNECT to TLS ports only, and forward plain HTTP (RFC 9112 §3.2.2, absolute-form).
      requireName(request.reach, bareHost(url.hostname));
      response = await this.#agent(null, `forward ${proxy.key}`, () => forwardConnector(proxy, this.#trust)).request({
        ...options,
        origin: `http://${proxy.host.includes(':') ? `[${proxy.host}]` : proxy.host}:${proxy.port}`,
        path: `${url.origin}${url.pathname}${url.search}`,
        headers: { ...headers, host: url.host, ...proxyAuthorization(proxy) },
        // A connection for each request: some proxies (tinyproxy) end theirs after a response without saying so (RFC 9112 §9.6), and the
        // next request on it would be lost.
        reset: true,
      });
      if (response.statusCode === 407) {
        response.body.on('error', () => {}).destroy();
        throw new ProxyError(`the proxy ${proxy.host}:${proxy.port} answered 407: it wants other credentials`);
      }
    } else {
      const { reach, ca } = request;
      const agent = this.#agent(ca, `${reach} ${proxy?.key ?? ''}`, () => this.#connector(proxy, reach, ca));
      response = await agent.request({
        ...options,
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        headers,
      });
    }
    return { status: response.statusCode, headers: response.headers, body: response.body };
  }

  /** Whether an endpoint lies in a private network: by its name, or because every connection to it led into one. */
  isInside(url: URL): boolean {
    const host = bareHost(url.hostname);
    if (isIP(host) !== 0) return isInsideAddress(host);
    return isInsideName(host) || (this.#inside.get(url.origin) ?? false);
  }

  /** Tries whether a host can be connected to, TLS included. @throws {ConnectError} */
  async probe(url: URL, { proxy, ca }: Pick<RawRequest, 'proxy' | 'ca'>): Promise<void> {
    const chosen = this.#choice.for(url, proxy);
    const forwarded = url.protocol === 'http:' && chosen !== null && chosen.kind !== 'socks5';
    const connect = forwarded ? forwardConnector(chosen, this.#trust) : this.#connector(chosen, 'operator', ca);
    const { protocol, host, hostname, port } = url;
    await new Promise<void>((resolve, reject) => {
      connect({ protocol, host, hostname, port }, (...[error, socket]) => {
        if (error === null) {
          socket.destroy();
          resolve();
        } else reject(error);
      });
    });
  }

  async close(): Promise<void> {
    const agents = [...this.#agents.values()].flatMap((byKey) => [...byKey.values()]);
    await Promise.all([...agents, ...this.#retired].map((agent) => agent.destroy()));
  }

  #agent(ca: string | null, key: string, connector: () => buildConnector.connector): Agent {
    let agents = this.#agents.get(ca);
    if (agents === undefined) {
      agents = new Map();
      this.#agents.set(ca, agents);
    }
    let agent = agents.get(key);
    if (agent === undefined) {
      agent = new Agent({
        connect: connector(),
        keepAliveTimeout: KEEP_ALIVE_MS,
        keepAliveMaxTimeout: KEEP_ALIVE_MS,
        maxHeaderSize: MAX_HEADER_BYTES,
        pipelining: 1,
        // HTTP/2 would put every segment of a blob on one TCP connection, where parallel ones are to get around a throttle per connection.
        allowH2: false,
      });
      agents.set(key, agent);
    }
    return agent;
  }

  #connector(proxy: ProxyServer | null, reach: Reach, ca: string | null): buildConnector.connector {
    // For each context: a TLS session that is resumed is not verified again.
    const connectors = new Map<SecureContext | undefined, SecureConnector>();
    const secureBy = (context: SecureContext | undefined): SecureConnector => {
      const known = connectors.get(context);
      if (known !== undefined) return known;
      const trust = context === undefined ? {} : { secureContext: context };
      const inTunnel = buildConnector({ allowH2: false, timeout: CONNECT_TIMEOUT_MS, ...trust });
      const made = { trust, inTunnel, sessions: new LRUCache<string, Buffer>({ max: MAX_SESSIONS }) };
      connectors.set(context, made);
      return made;
    };
    const connect: buildConnector.connector = (options, callback) => {
      const isSecure = options.protocol === 'https:';
      const port = Number(options.port) || (isSecure ? 443 : 80);
      const host = bareHost(options.hostname);
      const trusted = isSecure ? this.#trust.context(ca) : undefined;
      const secure = isSecure ? secureBy(trusted) : null;
      const open = (to: TcpNetConnectOpts): Socket => {
        if (secure === null) return ReceiveBuffers.connect(to, null);
        const { trust, sessions } = secure;
        const tls = { ...trust, ...serverName(host), session: sessions.get(host), ALPNProtocols: ['http/1.1'] };
        return ReceiveBuffers.connect(to, tls).on('session', (session: Buffer) => sessions.set(host, session));
      };
      const failed = (error: Error): void => {
        if (isSecure && isUnknownIssuer(error) && this.#trust.readSystem(trusted)) connect(options, callback);
        else callback(connectError(options, error), null);
      };
      openSocket(options.hostname, port, { reach, proxy, trust: this.#trust, timeout: CONNECT_TIMEOUT_MS, open }).then(
        ({ socket, address }) => {
          if (reach === 'operator' && address !== null) this.#noteAddress(options, isInsideAddress(address));
          if (secure === null) callback(null, socket);
          else if (proxy === null && socket instanceof TLSSocket) {
            handshake(socket, CONNECT_TIMEOUT_MS).then((secured) => callback(null, secured), failed);
          } else {
            secure.inTunnel({ ...options, httpSocket: socket }, (...[error, secured]) => {
              if (error === null) callback(null, secured);
              else failed(error);
            });
          }
        },
        (error: Error) => callback(connectError(options, error), null),
      );
    };
    return connect;
  }

  #noteAddress(options: buildConnector.Options, inside: boolean): void {
    const origin = new URL(`${options.protocol}//${options.host ?? options.hostname}`).origin;
    this.#inside.set(origin, inside && (this.#inside.get(origin) ?? true));
  }
}

/** Connects to the proxy itself, for plain HTTP that it forwards. */
function forwardConnector(proxy: ProxyServer, trust: Trust): buildConnector.connector {
  return (options, callback) => {
    dialProxy(proxy, trust, CONNECT_TIMEOUT_MS).then(
      (socket) => callback(null, socket),
      (error: Error) => callback(connectError(options, error), null),
    );
  };
}

/** An address that must not be connected to is no failure to connect. */
function connectError({ hostname }: buildConnector.Options, cause: Error): Error {
  return cause instanceof ForbiddenAddressError ? cause : new ConnectError(hostname, 'endpoint', cause);
}
