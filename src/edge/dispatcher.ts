import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { constants } from 'node:http2';
import { getRequestListener } from '@hono/node-server';
import type { Grant } from '../access/access.ts';
import type { Reservation } from '../access/quotas.ts';
import { andThen } from '../kit/async.ts';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import type { Freshness } from '../kit/freshness.ts';
import { elapsed, steadyNow } from '../kit/time.ts';
import { gatewaysIn, MAX_GATEWAYS } from '../kit/via.ts';
import { RegistryError } from '../oci/errors.ts';
import { REGISTRY_HEADERS } from '../oci/response-headers.ts';
import type { ProxyCore, Pull, Reply } from '../proxy/reply.ts';
import type { Logger } from '../telemetry/log.ts';
import type { Bodies } from './bodies.ts';
import type { Connection } from './connections.ts';
import type { EdgeApp } from './handlers.ts';
import { refuseMethod } from './method-refusal.ts';
import { admitBody } from './quota.ts';
import type { Reads } from './reads.ts';
import { type AccessLog, type AccessPort, type ForwardedHeaders, RequestContext } from './request-context.ts';
import {
  errorAnswer,
  guardStall,
  http2Stream,
  isGone,
  requestInvalid,
  sendAnswer,
  sendBody,
} from './response-writer.ts';
import type { SlowReaderWatch } from './slow-readers.ts';
import { namespaceOf, type PullRoute, type Routes } from './target.ts';

/** Node's request listener, with the connection that the request came on. */
export type Dispatcher = (request: IncomingMessage, response: ServerResponse, connection: Connection) => void;

export interface DispatcherDeps {
  readonly app: EdgeApp;
  readonly routes: Routes;
  readonly pulls: PullDeps;
  /** Null where nobody else changes what requests are decided by. */
  readonly freshness: Freshness | null;
  /** As `Via` names this gateway. */
  readonly pseudonym: string;
  readonly forwarded: ForwardedHeaders;
  readonly accessLog: AccessLog;
  readonly log: Logger;
}

/** Status in the log and the metrics where the client left before there was an answer; nginx uses the same. */
const CLIENT_CLOSED_REQUEST = 499;
/** Sees every request of every port first: refuses methods, serves pulls straight to Node's response, and gives the rest to Hono. */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { routes, pulls, freshness, pseudonym, forwarded, accessLog, log } = deps;
  const decide = (context: RequestContext, request: IncomingMessage, response: ServerResponse): void => {
    try {
      if (request.headers.via !== undefined) context.via = requireForward(request.headers.via, pseudonym);
      const route = context.service === 'registry' ? routes.resolve(context) : null;
      if (route !== null) {
        servePull(pulls, context, route, request, response);
        return;
      }
      response.setHeader('x-request-id', context.id);
      void answerByApp(deps, context)(request, response);
    } catch (error) {
      sendAnswer(response, context, errorAnswer(error, context, log));
    }
  };
  return (request, response, connection) => {
    // The connection ends with the answer before.
    if (connection.confused) return;
    const context = new RequestContext(request, connection, forwarded);
    connection.active += 1;
    accessLog.begin();
    response.once('close', () => {
      if (context.status === 0) context.status = response.headersSent ? response.statusCode : CLIENT_CLOSED_REQUEST;
      if (!response.writableEnded) context.leave();
      accessLog.end(context);
      connection.settled(response.writableFinished ? context.bytes : 0);
    });
    const stream = http2Stream(response);
    stream?.once('aborted', () => {
      // Whoever resets a stream has left, with this code, too (RFC 9113 §6.4): Node would wait until the rest is taken.
      if (stream.rstCode === constants.NGHTTP2_NO_ERROR) stream.destroy();
    });
    if (connection.draining && stream === undefined) response.setHeader('connection', 'close');

    if (context.method !== 'GET' && context.method !== 'HEAD') {
      refuseMethod(context, request, response);
      return;
    }
    if (context.fault !== null) {
      context.kind = 'refused';
      if (stream === undefined) {
        connection.confused = true;
        response.setHeader('connection', 'close');
      }
      sendAnswer(response, context, requestInvalid(context.fault));
      return;
    }
    if (freshness?.isOver(context.started) === true && context.service === 'registry') {
      const go = (): void => {
        if (!context.left) decide(context, request, response);
      };
      freshness.renewed().then(go, go);
      return;
    }
    decide(context, request, response);
  };
}

/**
 * The gateways that a request passed on its way here.
 * @throws {RegistryError} loop, where this one is among them, or there are so many that they can only go round
 */
function requireForward(via: string, pseudonym: string): readonly string[] {
  const gateways = gatewaysIn(via);
  if (gateways.includes(pseudonym) || gateways.length >= MAX_GATEWAYS) throw new RegistryError('loop');
  return gateways;
}

/** Answers by the app, through Hono's adapter for Node. It never rejects: the app has a handler for its own errors. */
function answerByApp({ app, log }: DispatcherDeps, context: RequestContext): ReturnType<typeof getRequestListener> {
  return getRequestListener((request) => app.fetch(request, { context }), {
    // Serves where a client of HTTP/1.0 sent no Host. Routing reads the context, never this.
    hostname: 'localhost',
    overrideGlobalObjects: false,
    errorHandler: (error) => {
      log.debug({ err: error }, 'a request that is no valid URL');
      const { status, headers, body } = requestInvalid('its host is no host name or address');
      context.kind = 'refused';
      return new Response(body, { status, headers });
    },
  });
}

interface PullDeps {
  readonly proxy: ProxyCore;
  readonly access: AccessPort;
  /** `Pull.audience` of a client: see `Audiences.of`. */
  readonly audience: (user: string | null, address: string) => string;
  readonly reads: Reads;
  readonly bodies: Bodies;
  readonly stallMs: number;
  readonly slowReaders: SlowReaderWatch;
  /** Whether others cannot connect because of this connection's client, or because there are too many in all. */
  readonly isFull: (connection: Connection) => boolean;
  readonly log: Logger;
}

/** Answers up to this size fit into the kernel's send buffer, so a client that stops reading holds no memory of ours. */
const UNGUARDED_BYTES = 16 * 1024;

/** The question to the proxy core. */
class ClientPull implements Pull {
  readonly target: Pull['target'];
  readonly method: Pull['method'];
  readonly accept: string | undefined;
  readonly range: string | undefined;
  readonly ifRange: string | undefined;
  readonly ifNoneMatch: string | undefined;
  readonly authenticated: boolean;
  readonly audience: string;
  readonly client: string;
  readonly name: string | undefined;
  readonly base: string;
  readonly ns: string | undefined;
  readonly via: readonly string[];
  readonly #context: RequestContext;

  constructor(context: RequestContext, route: PullRoute, headers: IncomingHttpHeaders, grant: Grant, audience: string) {
    this.target = route.target;
    this.method = context.method === 'HEAD' ? 'HEAD' : 'GET';
    this.accept = headers.accept;
    this.range = headers.range;
    this.ifRange = headers['if-range'] as string | undefined;
    this.ifNoneMatch = headers['if-none-match'];
    this.authenticated = grant.authenticated;
    this.audience = audience;
    this.client = grant.client;
    this.name = route.name;
    this.base = route.base;
    this.ns = route.ns;
    this.via = context.via;
    this.#context = context;
  }

  get signal(): AbortSignal {
    return this.#context.signal;
  }
}

/**
 * Serves one pull on Node's response, from the check of the client to the last byte. Never throws. An answer that is ready in memory is
 * written before this returns; every other follows later.
 */
function servePull(
  deps: PullDeps,
  context: RequestContext,
  route: PullRoute,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  context.kind = route.target.what.kind;
  context.target = route.target;
  const { headers } = request;
  const client = { address: context.clientAddress, authorization: headers.authorization, host: context.authority };
  const serve = (grant: Grant) => {
    context.user = grant.user;
    context.client = grant.client;
    const audience = deps.audience(grant.user, context.clientAddress);
    const reply = deps.proxy.serve(new ClientPull(context, route, headers, grant, audience));
    return andThen(reply, (ready) => sendReply(deps, context, route, ready, response, grant));
  };
  const fail = (error: unknown): void => {
    if (context.left) return;
    const answer = errorAnswer(error, context, deps.log);
    sendAnswer(response, context, { ...answer, headers: { ...answer.headers, ...namespaceOf(route) } });
  };
  try {
    const served = andThen(deps.access.check(client), serve);
    if (served instanceof Promise) served.catch(fail);
  } catch (error) {
    fail(error);
  }
}

function sendReply(
  deps: PullDeps,
  context: RequestContext,
  route: PullRoute,
  reply: Reply,
  response: ServerResponse,
  { client }: Grant,
): Promise<void> | void {
  const { body } = reply;
  if (body !== null && !(body instanceof Uint8Array)) countBody(deps.bodies, client, body, response);
  const headers: Record<string, string> = {
    ...REGISTRY_HEADERS,
    ...reply.headers,
    'x-request-id': context.id,
  };
  noteOrigin(headers, reply);
  Object.assign(headers, namespaceOf(route), placeOf(context, route, reply));
  if (body !== null && body.length !== undefined) headers['content-length'] ??= String(body.length);
  const { quota } = deps.access;
  if (quota !== null && reply.elsewhere !== undefined) {
    const set = quota.reserve(client, { bytes: reply.elsewhere, fetched: false });
    return andThen(set, (reservation) => {
      // Nobody here sees whether it is fetched.
      reservation.sent(reservation.bytes);
      return writeReply(deps, context, reply, headers, response, reservation);
    });
  }
  if (quota === null || body === null) return writeReply(deps, context, reply, headers, response, null);
  const length = headers['content-length'];
  const admitted = admitBody(quota, client, { body, from: reply.from }, length === undefined ? length : Number(length));
  return andThen(admitted, ({ body: counted, reservation }) =>
    writeReply(deps, context, { ...reply, body: counted }, headers, response, reservation),
  );
}

/** `X-Cache`, as caches have it by custom: where an answer came from. What is still coming from its registry for another client is no hit. */
const CACHE_STATUS: Readonly<Record<Reply['from'], string>> = {
  cache: 'HIT',
  stale: 'STALE',
  fill: 'MISS',
  upstream: 'MISS',
};

/** Says where an answer came from, and how old it is in seconds (`Age`, RFC 9111 §5.1). */
function noteOrigin(headers: Record<string, string>, { from, since }: Reply): void {
  headers['x-cache'] = CACHE_STATUS[from];
  const isKept = from === 'cache' || from === 'stale';
  if (!isKept || since === undefined) return;
  const age = elapsed(since, steadyNow());
  if (Number.isFinite(age)) headers.age = String(Math.floor(age / 1000));
}

/** How ollama begins its `User-Agent`. */
const OLLAMA = 'ollama/';

/**
 * A blob's own place for ollama, which asks where a blob is before it fetches the parts: it takes the `Location` of a redirect and of a 200
 * alike, and gives up where there is none ("http: no Location header in response"). To other clients a `Location` beside 200 says nothing
 * (RFC 9110 §10.2.2), so they get none. Relative, since a proxy may stand before this gateway; `./` since a digest alone reads as a scheme.
 */
function placeOf({ userAgent }: RequestContext, { target }: PullRoute, { status }: Reply): { location?: string } {
  const { what } = target;
  if (status !== 200 || what.kind !== 'blob' || !userAgent.startsWith(OLLAMA)) return {};
  return { location: `./${what.digest}` };
}

/** @throws {RegistryError} tooManyRequests; the body is closed then */
function countBody(bodies: Bodies, client: string, body: ByteSource, response: ServerResponse): void {
  try {
    response.once('close', bodies.begin(client));
  } catch (error) {
    void body.close();
    throw error;
  }
}

function writeReply(
  deps: PullDeps,
  context: RequestContext,
  reply: Reply,
  headers: Readonly<Record<string, string>>,
  response: ServerResponse,
  reservation: Reservation | null,
): Promise<void> | void {
  const { body } = reply;
  context.status = reply.status;
  context.from = reply.from;
  context.reason ??= reply.reason ?? null;
  if (body !== null && !(body instanceof Uint8Array)) {
    const sent = sendStream(deps, context, { ...reply, headers, body }, response, reservation);
    return reservation === null ? sent : sent.finally(() => reservation.close());
  }
  try {
    if (isGone(response)) return;
    response.writeHead(reply.status, headers);
    if (body === null) {
      response.end();
      return;
    }
    context.bytes = body.length;
    if (body.length > UNGUARDED_BYTES) guardStall(response, deps.stallMs);
    if (reply.text === undefined) response.end(body);
    else response.end(reply.text, 'latin1');
    reservation?.sent(body.length);
  } finally {
    reservation?.close();
  }
}

async function sendStream(
  deps: PullDeps,
  context: RequestContext,
  reply: Reply & { readonly body: ByteSource },
  response: ServerResponse,
  reservation: Reservation | null,
): Promise<void> {
  const { headers, body } = reply;
  if (isGone(response)) {
    context.cut = 'client left';
    await body.close();
    return;
  }
  const begin = () => void response.writeHead(reply.status, headers);
  // Clients give up when no header comes, so it must not wait for bytes that are not here yet.
  if (reply.from !== 'cache') {
    begin();
    response.flushHeaders();
  }
  const length = headers['content-length'];
  const { end, error } = await sendBody(body, response, {
    length: length === undefined ? undefined : Number(length),
    reads: deps.reads,
    stallMs: deps.stallMs,
    watch: (paced) =>
      deps.slowReaders.watch(
        paced,
        () => reply.from === 'fill' || reply.from === 'upstream' || deps.isFull(context.connection),
      ),
    begin,
    onBytes: (count) => {
      context.bytes += count;
      if (reservation?.sent(count) === false)
        throw new TruncatedError('the quota of this month ends in the middle of the body');
    },
    onCut: (why) => {
      context.cut ??= why;
    },
  });
  if (end === 'unsent') throw reasonIn(error);
  if (end !== 'whole') context.cut = end;
  // Over HTTP/2 the stream alone has ended, and its connection is what others wait for.
  if (end === 'client too slow') context.connection.drain();
  if (end === 'truncated') {
    context.reason ??= error instanceof Error ? error.message : null;
    // The trouble log says it, with the reason; whoever looks into it wants the causes too.
    deps.log.debug({ requestId: context.id, err: error }, 'a body broke off: the client got a short one');
  }
}

/** Why a source gave no byte, for the client: the upstream's own refusal where there is one. */
function reasonIn(error: unknown): unknown {
  const cause = error instanceof TruncatedError ? error.cause : undefined;
  return cause instanceof RegistryError ? cause : error;
}
