import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { type AccessRequest, clientNetwork, type Grant } from '../access/access.ts';
import type { ByteQuota } from '../access/quotas.ts';
import { bracketed, NetworkList, parseAddress } from '../kit/networks.ts';
import type { Target, What } from '../oci/names.ts';
import type { Reply } from '../proxy/reply.ts';
import type { Activity, Trouble } from '../telemetry/activity.ts';
import type { PlainLog } from '../telemetry/log.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import { type Connection, plainAddress, type Service } from './connections.ts';
import { HTTPS_PORT } from './registry-name.ts';
import { readRequestLine } from './request-line.ts';
import type { TroubleLog } from './trouble-log.ts';

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
  check(request: AccessRequest): Grant | Promise<Grant>;
  /** Asked before a body is sent; null where no bytes are limited. */
  readonly quota: ByteQuota | null;
}

const NOTHING_PASSED: readonly string[] = [];

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
  /** Lower case, without port. `X-Forwarded-Host` of a trusted proxy comes before the request's own host. */
  readonly host: string;
  /** Of the host; empty where none was written. */
  readonly port: string;
  /** Raw, still percent-encoded, never with a query. */
  readonly path: string;
  readonly query: string;
  /** Why HTTP forbids the request, in words; null where it does not. */
  readonly fault: string | null;
  readonly clientAddress: string;
  readonly userAgent: string;

  kind: RequestKind = 'other';
  /** Gateways of this kind that it passed. */
  via: readonly string[] = NOTHING_PASSED;
  target: Target | null = null;
  from: Reply['from'] | null = null;
  user: string | null = null;
  /** As whom it counts; null until that is known. @see Grant.client */
  client: string | null = null;
  /** Why it failed, for the log: more than the client is told. */
  reason: string | null = null;
  /** 0 until there is an answer. */
  status = 0;
  /** Body bytes handed to the connection. */
  bytes = 0;
  /** How the body ended, where it did not end well. */
  cut: 'client left' | 'client stalled' | 'client too slow' | 'truncated' | null = null;
  /** The client has left before its answer was whole. */
  left = false;
  #leaving: AbortController | null = null;

  constructor(request: IncomingMessage, connection: Connection, forwarded: ForwardedHeaders) {
    this.connection = connection;
    this.method = request.method ?? '';
    const headers = request.headers;
    const client = forwarded.read(connection.address, headers);
    const asked = readRequestLine(request, client.host);
    this.host = asked.host;
    this.port = asked.port === '' ? client.port : asked.port;
    this.path = asked.path;
    this.query = asked.query;
    this.fault = asked.fault;
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

  /** Host and port as people write them: what they log in to. */
  get authority(): string {
    const host = bracketed(this.host);
    return this.port === '' || this.port === HTTPS_PORT ? host : `${host}:${this.port}`;
  }

  leave(): void {
    this.left = true;
    this.cut ??= 'client left';
    this.#leaving?.abort(new ClientLeftError());
  }
}

/** What the connection and, where its peer is trusted, `X-Forwarded-*` say about the client. */
interface Client {
  /** IPv4 also where it came mapped into IPv6. */
  readonly address: string;
  /** `X-Forwarded-Host` of a trusted proxy; undefined: the request's own host counts. */
  readonly host: string | undefined;
  /** `X-Forwarded-Proto: https` of a trusted proxy. */
  readonly https: boolean;
  /** Where it came to, if the request does not say: many a proxy leaves the port out of `Host`. Empty where that is not known. */
  readonly port: string;
}

/** Believes `X-Forwarded-*` from the configured networks only (`trustedProxies`). */
export class ForwardedHeaders {
  /** Null where no proxy is trusted. */
  #trusted: NetworkList | null = null;
  #port = '';

  /**
   * @param trustedProxies CIDRs or single addresses, already checked by the configuration
   * @param port where clients reach the proxy (`publicUrl`); null where that is not known
   */
  constructor(trustedProxies: readonly string[], port: number | null) {
    this.reconfigure(trustedProxies, port);
  }

  /** For requests and connections from now on. */
  reconfigure(trustedProxies: readonly string[], port: number | null): void {
    this.#port = port === null ? '' : String(port);
    this.#trusted = trustedProxies.length === 0 ? null : new NetworkList(trustedProxies);
  }

  read(peer: string, headers: IncomingHttpHeaders): Client {
    if (!this.trusts(peer)) return { address: peer, host: undefined, https: false, port: '' };
    return {
      address: this.#clientOf(peer, headers['x-forwarded-for']),
      host: first(headers['x-forwarded-host']),
      https: first(headers['x-forwarded-proto'])?.toLowerCase() === 'https',
      port: this.#port,
    };
  }

  trusts(address: string): boolean {
    return this.#trusted?.contains(address) === true;
  }

  /** From the right, the first address that is no trusted proxy: any client can have written what lies left of it. */
  #clientOf(peer: string, header: string | string[] | undefined): string {
    const hops = (Array.isArray(header) ? header.join(',') : (header ?? '')).split(',');
    let client = peer;
    for (const hop of hops.reverse()) {
      const address = hopAddress(hop);
      if (address === null) break;
      client = address;
      if (!this.trusts(client)) break;
    }
    return client;
  }
}

/**
 * The address of one hop: alone, or with a port as some proxies write it (`203.0.113.9:4711`, `[2001:db8::1]:443`). `Forwarded` (RFC 7239)
 * is not read: a proxy that writes only the one header passes on the other as its client wrote it.
 */
function hopAddress(hop: string): string | null {
  const text = hop.trim();
  const [, v6, v4] = /^(?:\[([^\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5})$/.exec(text) ?? [];
  const address = v6 ?? v4 ?? text;
  return parseAddress(address) === null ? null : plainAddress(address);
}

function first(header: string | string[] | undefined): string | undefined {
  const value = (Array.isArray(header) ? header[0] : header)?.split(',')[0]?.trim();
  return value === '' ? undefined : value;
}

/** From a page of a warm cache (1 ms) to a layer over a slow link (10 min), in seconds. */
const DURATIONS = [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600];

/** Longest path that a log line carries. */
const PATH_SHOWN = 200;

/** One access-log line and the metrics of each request, once its response is closed; and what the operator is shown of it. */
export class AccessLog {
  readonly #log: PlainLog;
  readonly #requests;
  readonly #seconds;
  readonly #bytes;
  readonly #cut;
  readonly #rowName: (registry: string) => string;
  readonly #activity: Activity;
  readonly #troubles: TroubleLog;
  #running = 0;

  /**
   * @param log does not look for secrets: the fields are all named below, and none is one
   * @param rowName the row of the table as which a registry is counted
   */
  constructor(
    log: PlainLog,
    troubles: TroubleLog,
    metrics: Metrics,
    activity: Activity,
    rowName: (registry: string) => string,
  ) {
    this.#log = log;
    this.#troubles = troubles;
    this.#activity = activity;
    this.#rowName = rowName;
    this.#requests = metrics.tally('http_requests_total', 'Requests answered', ['kind', 'status', 'from']);
    this.#seconds = metrics.timings('http_request_seconds', 'From the request to its last byte', DURATIONS, [
      'kind',
      'registry',
    ]);
    this.#bytes = metrics.tally('http_sent_bytes_total', 'Body bytes sent to clients', ['from', 'registry']);
    this.#cut = metrics.counter('http_bodies_cut_total', 'Bodies that ended before their length', ['reason']);
    metrics.gauge('http_requests_running', 'Requests being answered', [], (gauge) => gauge.set(this.#running));
  }

  begin(): void {
    this.#running += 1;
  }

  end(context: RequestContext): void {
    this.#running -= 1;
    const ms = performance.now() - context.started;
    const from = context.from ?? 'gateway';
    this.#requests.add(1, context.kind, context.status, from);
    // Other requests than pulls have none.
    const registry = context.target === null ? '' : this.#rowName(context.target.registry);
    this.#seconds.observe(ms / 1000, context.kind, registry);
    if (context.bytes > 0) this.#bytes.add(context.bytes, from, registry);
    if (context.cut !== null) this.#cut.inc({ reason: context.cut });
    if (context.kind !== 'health') this.#show(context, registry);
    const level = context.kind === 'health' ? 'debug' : 'info';
    if (!this.#log.isLevelEnabled(level)) return;
    const { target } = context;
    // One shape for all lines; what is undefined is left out. A request that is no pull is shown by its path, never with its query: people
    // paste secrets into those.
    this.#log[level](
      {
        requestId: context.id,
        method: context.method,
        host: context.host,
        kind: context.kind,
        path: target === null ? context.path.slice(0, PATH_SHOWN) : undefined,
        registry: target?.registry,
        repository: target?.repository,
        reference: target === null ? undefined : referenceOf(target.what),
        status: context.status,
        bytes: context.bytes,
        ms: Math.round(ms * 10) / 10,
        from: context.from ?? undefined,
        cut: context.cut ?? undefined,
        reason: context.reason ?? undefined,
        client: context.clientAddress,
        user: context.user ?? undefined,
        userAgent: context.userAgent,
      },
      'request',
    );
  }

  /** Counts it for its client, and takes note of what went wrong. */
  #show(context: RequestContext, row: string): void {
    const { client, clientAddress, status, bytes, target, reason } = context;
    this.#activity.answered(client ?? clientNetwork(clientAddress), status, bytes);
    const kind = troubleOf(context);
    if (kind === null) return;
    const reference = target === null ? undefined : referenceOf(target.what);
    const trouble = {
      kind,
      registry: target?.registry ?? null,
      row,
      status,
      reason: reason ?? '',
      what:
        target === null
          ? context.path.slice(0, PATH_SHOWN)
          : `${target.repository}${reference === undefined ? '' : ` ${reference}`}`,
    };
    this.#activity.troubled(trouble);
    this.#troubles.tell(trouble);
  }
}

/** RFC 5842 §7.2. */
const LOOP_DETECTED = 508;

/** What went wrong, where something did that is no answer of the registry's and no client's doing. */
function troubleOf({ status, from, cut, target }: RequestContext): Trouble['kind'] | null {
  if (cut === 'truncated') return 'cut';
  // A request that came back: the one that sent it has the registry's name, and tells of it. doctor sends some to see whether an address leads here.
  if (status === LOOP_DETECTED && target === null) return null;
  if (status >= 500) return 'failed';
  return from === 'stale' ? 'stale' : null;
}

/** The tag or digest that was asked for; a list of tags has neither. */
function referenceOf(what: What): string | undefined {
  switch (what.kind) {
    case 'manifest':
      return what.reference.kind === 'tag' ? what.reference.tag : what.reference.digest;
    case 'blob':
    case 'referrers':
      return what.digest;
    case 'tags':
      return undefined;
  }
}
