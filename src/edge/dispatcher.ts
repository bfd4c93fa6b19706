import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants } from 'node:http2';
import { getRequestListener } from '@hono/node-server';
import type { Logger } from '../telemetry/log.ts';
import type { AccessLog } from './access-log.ts';
import { errorAnswer, methodNotAllowed, sendAnswer } from './answers.ts';
import type { EdgeApp } from './app.ts';
import { http2Stream } from './body.ts';
import type { Connection } from './connections.ts';
import { type PullDeps, servePull } from './pull.ts';
import { type ForwardedHeaders, RequestContext } from './request-context.ts';
import type { Routes } from './target.ts';

/** Node's request listener, with the connection that the request came on. */
export type Dispatcher = (request: IncomingMessage, response: ServerResponse, connection: Connection) => void;

export interface DispatcherDeps {
  readonly app: EdgeApp;
  readonly routes: Routes;
  readonly pulls: PullDeps;
  readonly forwarded: ForwardedHeaders;
  readonly accessLog: AccessLog;
  readonly log: Logger;
}

/** Status in the log and the metrics where the client left before there was an answer; nginx uses the same. */
const CLIENT_CLOSED_REQUEST = 499;
/** How much of a refused request's body is read, and for how long, so that its client gets to see the answer. */
const REFUSED_BODY_BYTES = 256 * 1024;
const REFUSED_BODY_MS = 1_000;

/** Sees every request of every port first: refuses methods, serves pulls straight to Node's response, and gives the rest to Hono. */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { routes, pulls, forwarded, accessLog, log } = deps;
  return (request, response, connection) => {
    const context = new RequestContext(request, connection, forwarded);
    connection.active += 1;
    accessLog.begin();
    response.once('close', () => {
      if (context.status === 0) context.status = response.headersSent ? response.statusCode : CLIENT_CLOSED_REQUEST;
      if (!response.writableEnded) context.leave();
      accessLog.end(context);
      connection.settled();
    });
    if (connection.draining && http2Stream(response) === undefined) response.setHeader('connection', 'close');

    if (context.method !== 'GET' && context.method !== 'HEAD') {
      refuseMethod(context, request, response);
      return;
    }
    // RFC 9112 §3.2; HTTP/1.0 has no Host.
    if (request.httpVersion === '1.1' && request.headers.host === undefined) {
      sendAnswer(response, context, { status: 400, headers: {}, body: 'a request needs a Host header\n' });
      return;
    }
    try {
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
}

/** Answers by the app, through Hono's adapter for Node. It never rejects: the app has a handler for its own errors. */
function answerByApp({ app, log }: DispatcherDeps, context: RequestContext): ReturnType<typeof getRequestListener> {
  return getRequestListener((request) => app.fetch(request, { context }), {
    // Serves where a client of HTTP/1.0 sent no Host. Routing reads the context, never this.
    hostname: 'localhost',
    overrideGlobalObjects: false,
    errorHandler: (error) => {
      log.debug({ err: error }, 'a request that is no valid URL');
      return new Response('bad request\n', { status: 400, headers: { 'content-type': 'text/plain' } });
    },
  });
}

/** 405 for everything that is not GET or HEAD. The body is not worth reading, so an HTTP/1.1 connection that has one ends. */
function refuseMethod(context: RequestContext, request: IncomingMessage, response: ServerResponse): void {
  context.kind = 'refused';
  const answer = methodNotAllowed(context.method);
  const stream = http2Stream(response);
  if (stream !== undefined) {
    sendAnswer(response, context, answer);
    if (!request.readableEnded) response.once('finish', () => stream.close(constants.NGHTTP2_NO_ERROR));
    return;
  }
  const hasBody =
    request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
  if (!hasBody) {
    sendAnswer(response, context, answer);
    return;
  }
  response.setHeader('connection', 'close');
  // Under Expect the client holds the body back until it is invited (RFC 9110 §10.1.1), which never happens.
  const bodyComes = request.headers.expect === undefined;
  sendAnswer(response, context, answer, !bodyComes);
  if (bodyComes) endAfterBody(request, response);
}

/**
 * The answer is out. Closing at once would reset the connection of a client that is still sending, and the answer would be lost with it:
 * so a little more is read first.
 */
function endAfterBody(request: IncomingMessage, response: ServerResponse): void {
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
