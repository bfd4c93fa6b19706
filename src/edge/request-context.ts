import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { AccessRequest, Grant } from '../access/access.ts';
import { NetworkList, parseAddress } from '../kit/networks.ts';
import type { Target } from '../oci/names.ts';
import type { Reply } from '../proxy/reply.ts';
import { type Connection, plainAddress, type Service } from './connections.ts';
import { hostName } from './target.ts';

/** Longest user agent that a log line carries. */
const USER_AGENT_SHOWN = 200;

/** What a request is about, for the log and as a metric's label. */
export type RequestKind =
  | Target['what']['kind']
  | 'ping'
  | 'page'
  | 'health'
  | 'challenge'
  | 'redirect'
  | 'refused'
  | 'other';

/** Port: users, address rules and limits, as the edge needs them. */
export interface AccessPort {
  /** @throws {RegistryError} unauthorized (with its challenge), clientDenied, tooManyRequests */
  check(asker: AccessRequest): Grant | Promise<Grant>;
  /** Body bytes that this client was sent. */
  countBytes(asker: AccessRequest, grant: Grant, bytes: number): void;
}

/** The reason of a request's aborted signal. */
class ClientLeftError extends Error {
  override readonly name = 'ClientLeftError';

  constructor() {
    super('the client left');
  }
}

/** One request: facts that are read once at its beginning, and what became of it, filled in on the way to the access log. */
export class RequestContext {
  readonly id = randomUUID();
  readonly started = performance.now();
  readonly connection: Connection;
  /** What the listener offers that the request came on, or `registry` where a trusted proxy took it by HTTPS from its client. */
  readonly service: Service;
  readonly method: string;
  /** Host and port as the request itself names them; undefined with HTTP/1.0 alone. */
  readonly authority: string | undefined;
  /** Lower case, without port. `X-Forwarded-Host` of a trusted proxy comes before the request's own host. */
  readonly host: string;
  /** Raw, still percent-encoded, never with a query. */
  readonly path: string;
  readonly query: string;
  readonly clientAddress: string;
  readonly userAgent: string;

  kind: RequestKind = 'other';
  target: Target | null = null;
  from: Reply['from'] | null = null;
  user: string | null = null;
  /** 0 until there is an answer. */
  status = 0;
  /** Body bytes handed to the connection. */
  bytes = 0;
  /** How the body ended, where it did not end well. */
  cut: 'client left' | 'client stalled' | 'truncated' | null = null;
  /** The client has left before its answer was whole. */
  left = false;
  #leaving: AbortController | null = null;

  constructor(request: IncomingMessage, connection: Connection, forwarded: ForwardedHeaders) {
    this.connection = connection;
    this.method = request.method ?? '';
    const headers = request.headers;
    const client = forwarded.read(connection.address, headers);
    const asked = splitTarget(request.url ?? '/');
    this.authority = asked.host ?? authorityOf(headers);
    this.host = hostName(client.host ?? this.authority);
    this.path = asked.path;
    this.query = asked.query;
    this.clientAddress = client.address;
    // A proxy that took the request by HTTPS must not be redirected to HTTPS: it would come back here without end.
    this.service = connection.service === 'redirect' && client.https ? 'registry' : connection.service;
    this.userAgent = (headers['user-agent'] ?? '').slice(0, USER_AGENT_SHOWN);
  }

  /** Aborted when the client leaves. Most answers are ready at once, so the signal is made only when it is asked for. */
  get signal(): AbortSignal {
    if (this.#leaving === null) {
      this.#leaving = new AbortController();
      if (this.left) this.#leaving.abort(new ClientLeftError());
    }
    return this.#leaving.signal;
  }

  leave(): void {
    this.left = true;
    this.cut ??= 'client left';
    this.#leaving?.abort(new ClientLeftError());
  }
}

/** `:authority` of HTTP/2, else the Host header. */
function authorityOf(headers: IncomingHttpHeaders): string | undefined {
  const authority = headers[':authority'] ?? headers.host;
  return typeof authority === 'string' ? authority : undefined;
}

/** Origin-form and absolute-form (RFC 9112 §3.2); the host of the latter wins over the Host header. */
function splitTarget(url: string): { host: string | undefined; path: string; query: string } {
  let rest = url;
  let host: string | undefined;
  const absolute = url.startsWith('/') ? null : /^https?:\/\/([^/?#]*)/i.exec(url);
  if (absolute !== null) {
    host = absolute[1];
    rest = url.slice(absolute[0].length);
    if (!rest.startsWith('/')) rest = `/${rest}`;
  }
  const mark = rest.indexOf('?');
  return mark < 0 ? { host, path: rest, query: '' } : { host, path: rest.slice(0, mark), query: rest.slice(mark + 1) };
}

/** What the connection and, where its peer is trusted, `X-Forwarded-*` say about the client. */
interface Client {
  /** IPv4 also where it came mapped into IPv6. */
  readonly address: string;
  /** `X-Forwarded-Host` of a trusted proxy; undefined: the request's own host counts. */
  readonly host: string | undefined;
  /** `X-Forwarded-Proto: https` of a trusted proxy. */
  readonly https: boolean;
}

/** Believes `X-Forwarded-*` from the configured networks only (`trustedProxies`). */
export class ForwardedHeaders {
  readonly #trusted: NetworkList;

  /** CIDRs or single addresses, already checked by the configuration. */
  constructor(trustedProxies: readonly string[]) {
    this.#trusted = new NetworkList(trustedProxies);
  }

  read(peer: string, headers: IncomingHttpHeaders): Client {
    if (!this.trusts(peer)) return { address: peer, host: undefined, https: false };
    return {
      address: this.#clientOf(peer, headers['x-forwarded-for']),
      host: first(headers['x-forwarded-host']),
      https: first(headers['x-forwarded-proto'])?.toLowerCase() === 'https',
    };
  }

  trusts(address: string): boolean {
    return this.#trusted.contains(address);
  }

  /** From the right, the first address that is no trusted proxy: any client can have written what lies left of it. */
  #clientOf(peer: string, header: string | string[] | undefined): string {
    const hops = (Array.isArray(header) ? header.join(',') : (header ?? '')).split(',');
    let client = peer;
    for (const hop of hops.reverse()) {
      const address = hop.trim();
      if (parseAddress(address) === null) break;
      client = plainAddress(address);
      if (!this.trusts(client)) break;
    }
    return client;
  }
}

function first(header: string | string[] | undefined): string | undefined {
  const value = (Array.isArray(header) ? header[0] : header)?.split(',')[0]?.trim();
  return value === '' ? undefined : value;
}
