import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { RegistryError, renderError } from '../oci/errors.ts';
import type { Logger } from '../telemetry/log.ts';
import { isGone } from './body.ts';
import type { RequestContext } from './request-context.ts';

/** An answer that is held whole in memory: everything that the edge says itself, and every error. */
export interface SmallAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

/** The status for what Node's HTTP parser refuses, by its error code; everything else that it refuses is a 400. */
const PARSER_STATUS: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
};

/** Plain text that no cache keeps. */
export function textAnswer(status: number, body: string): SmallAnswer {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' }, body };
}

/** The only place that turns a failure into an answer. What is no RegistryError is logged, and the client gets `internal` with the request's id. */
export function errorAnswer(error: unknown, context: RequestContext, log: Logger): SmallAnswer {
  if (error instanceof RegistryError) return renderError(error);
  log.error({ requestId: context.id, err: error }, 'a request failed inside the gateway');
  return renderError(new RegistryError('internal', { facts: { requestId: context.id } }));
}

export function methodNotAllowed(method: string): SmallAnswer {
  return renderError(
    new RegistryError('methodNotAllowed', {
      facts: { method: method.slice(0, 32) },
      headers: { allow: 'GET, HEAD' },
    }),
  );
}

/**
 * Writes an answer and ends the response; a HEAD gets the headers alone. Does nothing where a header went out before or the client has left.
 * @param end false: the response is left open behind the answer, and the caller ends it
 */
export function sendAnswer(response: ServerResponse, context: RequestContext, answer: SmallAnswer, end = true): void {
  context.status = answer.status;
  if (response.headersSent || isGone(response)) return;
  const length = Buffer.byteLength(answer.body);
  response.writeHead(answer.status, {
    ...answer.headers,
    'content-length': String(length),
    'x-request-id': context.id,
  });
  const body = context.method === 'HEAD' || length === 0 ? undefined : answer.body;
  if (body !== undefined) context.bytes = length;
  // A single `end` lets Node put header and body into one write.
  if (end) response.end(body);
  else if (body !== undefined) response.write(body);
}

/**
 * Answers what never became a request: broken syntax, a header that is too large or too slow, a method that Node's parser does not know.
 * There is no response object for it, only the socket.
 */
export function answerParserError(error: Error & { code?: string }, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  if (error.code === 'HPE_INVALID_METHOD') sendToSocket(socket, methodNotAllowed('this method'));
  else sendToSocket(socket, { status: PARSER_STATUS[error.code ?? ''] ?? 400, headers: {}, body: '' });
}

/** Writes an answer to an HTTP/1.1 connection by hand and ends the connection. */
export function sendToSocket(socket: Duplex, { status, headers, body }: SmallAnswer): void {
  const fields = { ...headers, 'content-length': String(Buffer.byteLength(body)), connection: 'close' };
  const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`];
  for (const [name, value] of Object.entries(fields)) head.push(`${name}: ${value}`);
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}
