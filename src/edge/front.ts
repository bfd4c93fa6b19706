import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants } from 'node:http2';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { RegistryError, renderError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { errorAnswer, sendSmall } from './answer.ts';
import { http2Stream } from './body.ts';
import type { Connection } from './connections.ts';
import { Exchange } from './exchange.ts';
import type { ForwardedHeaders } from './forwarded.ts';
import type { Report } from './report.ts';

/** What Hono's handlers get besides the request. */
export interface EdgeBindings {
  Bindings: { readonly exchange: Exchange };
}
export type EdgeApp = Hono<EdgeBindings>;

/** Node's request listener, with the connection that the request came on. */
export type Front = (request: IncomingMessage, response: ServerResponse, connection: Connection) => void;

/** Takes a request off Hono's hands where the response is written straight to the connection; false leaves it to Hono. */
export type Direct = (exchange: Exchange, request: IncomingMessage, response: ServerResponse) => boolean;

export interface FrontDeps {
  readonly appFor: (exchange: Exchange) => EdgeApp;
  readonly direct?: Direct;
  readonly forwarded: ForwardedHeaders;
  readonly report: Report;
  readonly log: Logger;
}

/** What the log and the metrics say where the client left before there was an answer; nginx's word for it. */
const NO_ANSWER = 499;
/** How much of a refused request's body is read, and for how long, so that its client gets to see the answer. */
const REFUSED_BODY_BYTES = 256 * 1024;
const REFUSED_BODY_MS = 1_000;

/** The first thing that sees a request on any port: refuses methods, lets pulls through directly, leaves the rest to Hono. */
export function createFront(deps: FrontDeps): Front {
  const { appFor, direct, forwarded, report, log } = deps;
  const exchanges = new WeakMap<object, Exchange>();
  const small = getRequestListener(
    (request, env) => {
      const exchange = exchanges.get(env.incoming);
      if (exchange === undefined) throw new Error('a request without its exchange');
      return appFor(exchange).fetch(request, { ...env, exchange });
    },
    {
      // A fixed name serves where a client sent none; routing reads the exchange, never this.
      hostname: 'localhost',
      overrideGlobalObjects: false,
      errorHandler: (error) => {
        log.debug({ err: error }, 'a request that is no valid URL');
        return new Response('bad request\n', { status: 400, headers: { 'content-type': 'text/plain' } });
      },
    },
  );

  return (request, response, connection) => {
    const exchange = new Exchange(request, connection, forwarded);
    connection.active += 1;
    report.begin();
    response.once('close', () => {
      if (exchange.status === 0) exchange.status = response.headersSent ? response.statusCode : NO_ANSWER;
      if (!response.writableEnded) exchange.leave();
      report.end(exchange);
      connection.settled();
    });
    const overHttp2 = http2Stream(response) !== undefined;
    if (connection.draining && !overHttp2) response.setHeader('connection', 'close');

    if (exchange.method !== 'GET' && exchange.method !== 'HEAD') {
      refuseMethod(exchange, request, response);
      return;
    }
    // RFC 9112 §3.2; older clients came without one.
    if (request.httpVersion === '1.1' && request.headers.host === undefined) {
      sendSmall(response, exchange, { status: 400, headers: {}, body: 'a request needs a Host header\n' });
      return;
    }
    try {
      if (direct?.(exchange, request, response)) return;
    } catch (error) {
      sendSmall(response, exchange, errorAnswer(error, exchange, log));
      return;
    }
    exchanges.set(request, exchange);
    response.setHeader('x-request-id', exchange.id);
    void small(request, response);
  };
}

/** 405 for everything that is not GET or HEAD (the contract); the body is not worth reading, so the connection ends. */
function refuseMethod(exchange: Exchange, request: IncomingMessage, response: ServerResponse): void {
  exchange.kind = 'refused';
  const answer = renderError(methodNotAllowed(exchange.method));
  const stream = http2Stream(response);
  if (stream !== undefined) {
    sendSmall(response, exchange, answer);
    if (!request.readableEnded) response.once('finish', () => stream.close(constants.NGHTTP2_NO_ERROR));
    return;
  }
  const hasBody =
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
  if (!hasBody) {
    sendSmall(response, exchange, answer);
    return;
  }
  if (request.headers.expect !== undefined) {
    // The body waits for an invitation that never comes.
    response.setHeader('connection', 'close');
    sendSmall(response, exchange, answer);
    return;
  }
  // The whole answer goes out now. Closing at once would reset the connection under a client that is still sending
  // and lose the answer, so a little more is read before the end.
  exchange.status = answer.status;
  exchange.bytes = Buffer.byteLength(answer.body);
  response.writeHead(answer.status, {
    ...answer.headers,
    'content-length': String(exchange.bytes),
    'x-request-id': exchange.id,
    connection: 'close',
  });
  response.write(answer.body);
  let seen = 0;
  const finish = (): void => {
    clearTimeout(bound);
    request.off('data', onData);
    response.end();
  };
  const onData = (chunk: Buffer): void => {
    seen += chunk.length;
    if (seen > REFUSED_BODY_BYTES) finish();
  };
  const bound = setTimeout(finish, REFUSED_BODY_MS);
  request.on('data', onData);
  request.once('end', finish);
  response.once('close', finish);
}

export function methodNotAllowed(method: string): RegistryError {
  return new RegistryError('methodNotAllowed', {
    facts: { method: method.slice(0, 32) },
    headers: { allow: 'GET, HEAD' },
  });
}
