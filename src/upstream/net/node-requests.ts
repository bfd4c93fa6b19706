import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { createSecureContext, type SecureContext, connect as tlsConnect } from 'node:tls';
import { isUnknownIssuer, trusting } from '../../kit/authorities.ts';
import { handshake, openSocket, serverName } from './dial.ts';
import { type ProxyServer, parseProxy, proxyFromEnvironment } from './egress.ts';
import { Trust } from './trust.ts';

export interface NodeRequest {
  readonly method: string;
  readonly headers: Readonly<Record<string, string>> | undefined;
  readonly body: string | undefined;
  readonly signal: AbortSignal;
}

/**
 * HTTP with Node's own client, for services that are no registries (CAs, the APIs of DNS providers): it goes by the usual proxy variables, as
 * registries do, and follows no redirect.
 */
export class NodeRequests {
  /** PEM of the roots that count alone; null: those that Node and, where one is unknown to it, this machine trust. */
  readonly #roots: string | null;
  readonly #environment: NodeJS.ProcessEnv;
  /** By protocol, proxy and whether this machine's store is trusted. */
  readonly #agents = new Map<string, HttpAgent>();
  #readsSystem = false;

  constructor(roots: string | null, environment: NodeJS.ProcessEnv = process.env) {
    this.#roots = roots;
    this.#environment = environment;
  }

  /** Resolves to the head of the answer, whatever its status. */
  async send(url: string, request: NodeRequest): Promise<IncomingMessage> {
    // As it is now: another request may find out meanwhile that the store is needed.
    const readSystem = this.#readsSystem;
    return await this.#ask(url, request).catch((error: unknown) => {
      if (!isUnknownIssuer(error) || this.#roots !== null || readSystem) throw error;
      // Nothing was sent yet. This machine may know the issuer; to read its store takes a moment, and most servers are known without.
      this.#readsSystem = true;
      return this.#ask(url, request);
    });
  }

  close(): void {
    for (const agent of this.#agents.values()) agent.destroy();
    this.#agents.clear();
  }

  #ask(url: string, { body, ...options }: NodeRequest): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const open = url.startsWith('https:') ? httpsRequest : httpRequest;
      const call = open(url, { ...options, agent: this.#agent(new URL(url)) });
      call.on('response', resolve);
      call.on('error', reject);
      call.end(body);
    });
  }

  #agent(url: URL): HttpAgent {
    const proxy = proxyFromEnvironment(url, this.#environment);
    const key = `${url.protocol} ${proxy ?? ''} ${this.#readsSystem}`;
    let agent = this.#agents.get(key);
    if (agent === undefined) {
      const socks = proxy === null ? null : parseProxy(proxy);
      // Which proxy is decided here, so that NO_PROXY means the same to these and to registries: Node's own reading knows no CIDRs.
      const proxyEnv = proxy === null ? {} : { HTTP_PROXY: proxy, HTTPS_PROXY: proxy };
      const common = { keepAlive: true, timeout: 30_000, proxyEnv };
      const isSecure = url.protocol === 'https:';
      if (socks?.kind === 'socks5') agent = socksAgent(socks, isSecure ? this.#trust() : null);
      else agent = isSecure ? new HttpsAgent({ ...common, ...this.#trust() }) : new HttpAgent(common);
      this.#agents.set(key, agent);
    }
    return agent;
  }

  #trust(): { secureContext?: SecureContext } {
    if (this.#roots !== null)
      return { secureContext: createSecureContext({ ca: this.#roots, allowPartialTrustChain: true }) };
    return this.#readsSystem ? { secureContext: trusting() } : {};
  }
}

/** For TCP, proxy and TLS together, ms. */
const SOCKS_CONNECT_MS = 10_000;

/**
 * Node's own agents speak to no SOCKS proxy: the way there is the one to registries.
 * @param secure how a server's certificate is judged; null for plain HTTP
 */
function socksAgent(proxy: ProxyServer, secure: { secureContext?: SecureContext } | null): HttpAgent {
  const agent = secure === null ? new HttpAgent({ keepAlive: true }) : new HttpsAgent({ keepAlive: true, ...secure });
  agent.createConnection = ({ host, port }, done) => {
    const to = host ?? 'localhost';
    const dial = { reach: 'operator', proxy, trust: new Trust(null), timeout: SOCKS_CONNECT_MS } as const;
    const connect = async (): Promise<Socket> => {
      const { socket } = await openSocket(to, Number(port), dial);
      if (secure === null) return socket;
      return await handshake(tlsConnect({ socket, host: to, ...serverName(to), ...secure }), SOCKS_CONNECT_MS);
    };
    connect().then(
      (socket) => done?.(null, socket),
      (error: Error) => done?.(error, undefined as never),
    );
    return undefined;
  };
  return agent;
}
