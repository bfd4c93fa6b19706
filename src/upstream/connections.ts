import { isIP } from 'node:net';
import type { Readable } from 'node:stream';
import { Agent, buildConnector, type Dispatcher } from 'undici';
import { bareHost, isInsideAddress, isInsideName, type Reach } from './addresses.ts';
import { cutOff, type Headers } from './headers.ts';
import { type ProxyChoice, ProxyError, type ProxyServer } from './proxies.ts';
import { dialProxy, openTunnel, proxyAuthorization, requireName } from './tunnels.ts';

/** TCP, proxy and TLS together. Long enough for three lost SYNs (1 + 2 + 4 s). */
const CONNECT_TIMEOUT_MS = 10_000;
/** Idle connections are kept a little, for the next layer of the same pull. */
const KEEP_ALIVE_MS = 15_000;
/** Signed URLs of some CDNs come back in long headers. */
const MAX_HEADER_BYTES = 64 * 1024;

export interface RawResponse {
  readonly status: number;
  readonly headers: Headers;
  /** Read to its end or destroyed by whoever asked. */
  readonly body: Readable;
}

export interface RawRequest {
  readonly method: 'GET' | 'HEAD';
  readonly headers: Record<string, string>;
  readonly reach: Reach;
  /** The registry's own proxy. */
  readonly proxy: string | null;
  readonly signal: AbortSignal;
  /** Milliseconds without a byte: before the headers, and within the body. */
  readonly stallTimeout: number;
}

/** Every outgoing HTTP connection: pools by proxy and reach, so that none made for one purpose serves another. */
export class Connections {
  readonly #choice: ProxyChoice;
  readonly #agents = new Map<string, Agent>();
  /** Origins whose connections all ended inside our own networks. */
  readonly #inside = new Map<string, boolean>();

  constructor(choice: ProxyChoice) {
    this.#choice = choice;
  }

  async request(url: URL, request: RawRequest): Promise<RawResponse> {
    const proxy = this.#choice.for(url, request.proxy);
    const options = {
      method: request.method,
      signal: request.signal,
      headersTimeout: request.stallTimeout,
      bodyTimeout: request.stallTimeout,
    };
    let response: Dispatcher.ResponseData;
    if (url.protocol === 'http:' && proxy !== null && proxy.kind !== 'socks5') {
      // HTTP proxies tunnel to ports of TLS only, as they commonly come; plain HTTP they forward (RFC 9112 §3.2.2).
      requireName(request.reach, bareHost(url.hostname));
      response = await this.#agent(`forward ${proxy.key}`, () => forwardConnector(proxy)).request({
        ...options,
        origin: `http://${proxy.host.includes(':') ? `[${proxy.host}]` : proxy.host}:${proxy.port}`,
        path: `${url.origin}${url.pathname}${url.search}`,
        headers: { ...request.headers, host: url.host, ...proxyAuthorization(proxy) },
      });
      if (response.statusCode === 407) {
        cutOff(response.body);
        throw new ProxyError(`the proxy ${proxy.host}:${proxy.port} answered 407: it wants other credentials`);
      }
    } else {
      const { reach } = request;
      response = await this.#agent(`${reach} ${proxy?.key ?? ''}`, () => this.#connector(proxy, reach)).request({
        ...options,
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        headers: request.headers,
      });
    }
    return { status: response.statusCode, headers: response.headers, body: response.body };
  }

  /** Whether an endpoint lies in a private network: by its name, or because no connection to it ever ended anywhere else. */
  isInside(url: URL): boolean {
    const host = bareHost(url.hostname);
    if (isIP(host) !== 0) return isInsideAddress(host);
    return isInsideName(host) || (this.#inside.get(url.origin) ?? false);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()));
  }

  #agent(key: string, connector: () => buildConnector.connector): Agent {
    let agent = this.#agents.get(key);
    if (agent === undefined) {
      agent = new Agent({
        connect: connector(),
        keepAliveTimeout: KEEP_ALIVE_MS,
        keepAliveMaxTimeout: KEEP_ALIVE_MS,
        maxHeaderSize: MAX_HEADER_BYTES,
        pipelining: 1,
        // HTTP/2 would put every piece of a blob on one TCP connection, which is what a throttled link punishes.
        allowH2: false,
      });
      this.#agents.set(key, agent);
    }
    return agent;
  }

  #connector(proxy: ProxyServer | null, reach: Reach): buildConnector.connector {
    const secure = buildConnector({ allowH2: false, timeout: CONNECT_TIMEOUT_MS });
    return (options, callback) => {
      const port = Number(options.port) || (options.protocol === 'https:' ? 443 : 80);
      openTunnel(options.hostname, port, { reach, proxy, timeout: CONNECT_TIMEOUT_MS }).then(
        ({ socket, address }) => {
          if (reach === 'operator' && address !== null) this.#remember(options, isInsideAddress(address));
          if (options.protocol === 'https:') secure({ ...options, httpSocket: socket }, callback);
          else callback(null, socket);
        },
        (error: Error) => callback(error, null),
      );
    };
  }

  #remember(options: buildConnector.Options, inside: boolean): void {
    const origin = new URL(`${options.protocol}//${options.host ?? options.hostname}`).origin;
    this.#inside.set(origin, inside && (this.#inside.get(origin) ?? true));
  }
}

/** Connections to the proxy itself, for what it forwards. */
function forwardConnector(proxy: ProxyServer): buildConnector.connector {
  return (_, callback) => {
    dialProxy(proxy, CONNECT_TIMEOUT_MS).then(
      (socket) => callback(null, socket),
      (error: Error) => callback(error, null),
    );
  };
}
