import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants } from 'node:http2';
import type { RequestContext } from './request-context.ts';
import { http2Stream, methodNotAllowed, sendAnswer } from './response-writer.ts';

/** How much of a refused request's body is read, and for how long, so that its client gets to see the answer. */
const REFUSED_BODY_BYTES = 256 * 1024;
const REFUSED_BODY_MS = 1_000;

/** Answers 405 to everything that is not GET or HEAD. The body is not worth reading, so an HTTP/1.1 connection that has one ends. */
export function refuseMethod(context: RequestContext, request: IncomingMessage, response: ServerResponse): void {
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
