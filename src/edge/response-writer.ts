import { type ServerResponse, STATUS_CODES } from 'node:http';
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { type ByteSource, TruncatedError } from '../kit/byte-source.ts';
import { type ErrorName, RegistryError, renderError } from '../oci/errors.ts';
import { SAFETY_HEADERS } from '../oci/response-headers.ts';
import type { Logger } from '../telemetry/log.ts';
import { isOutOfDescriptors } from './descriptors.ts';
import type { BodyChunk, Reads } from './reads.ts';
import type { RequestContext } from './request-context.ts';
import type { PacedBody } from './slow-readers.ts';

export interface BodyOptions {
  /** The Content-Length that was announced; undefined where the body ends with its last chunk. */
  readonly length: number | undefined;
  readonly reads: Reads;
  readonly stallMs: number;
  /** Watches the pace of the reader until the function returned is called. */
  readonly watch: (body: PacedBody) => () => void;
  /** Writes the header; called once, right before the first byte, so that a failure before it can still be answered as an error. */
  readonly begin: () => void;
  /** Called for each chunk that was handed to the connection. */
  readonly onBytes: (count: number) => void;
  /** Called where the client is about to be cut off, before the response closes. */
  readonly onCut: (why: ClientFault) => void;
}

/** Why a client is cut off. */
export type ClientFault = 'client stalled' | 'client too slow';

/** `unsent`: nothing of it, and no header, has gone out. */
export type BodyEnd = 'whole' | 'client left' | ClientFault | 'truncated' | 'unsent';

/**
 * Writes a source straight to Node's response, HTTP/1.1 or HTTP/2. One chunk is held at a time, from its read to the end of its write, and
 * none while the source waits for more; the kernel's send buffer keeps the client busy meanwhile. A body that cannot be finished ends below
 * its length, so that no client takes it for whole.
 * The source is closed when this returns. `error` is why a source ended early.
 */
export async function sendBody(
  source: ByteSource,
  response: ServerResponse,
  options: BodyOptions,
): Promise<{ end: BodyEnd; error?: unknown }> {
  const writer = new Writer(response, options.stallMs, options.onCut);
  const onClose = (): void => void source.close();
  response.once('close', onClose);
  const unwatch = options.watch(writer);
  let chunk: BodyChunk | null = null;
  let sent = 0;
  options.reads.join();
  try {
    for (;;) {
      chunk = await options.reads.next(source);
      const { bytes } = chunk;
      if (writer.lost) return { end: writer.lostBy };
      if (!response.headersSent) options.begin();
      if (bytes.length === 0) break;
      sent += bytes.length;
      if (options.length !== undefined && sent > options.length) throw new TruncatedError('more bytes than announced');
      writer.write(bytes);
      options.onBytes(bytes.length);
      await writer.drained();
      if (writer.lost) return { end: writer.lostBy };
      chunk.release();
      chunk = null;
    }
    if (options.length !== undefined && sent < options.length) throw new TruncatedError('fewer bytes than announced');
    writer.end();
    return { end: 'whole' };
  } catch (error) {
    // What was written goes out first: a client resumes after a short body, not after a reset.
    await writer.drained();
    if (writer.lost) return { end: writer.lostBy, error };
    if (!response.headersSent) return { end: 'unsent', error };
    cutShort(response, options.length !== undefined);
    return { end: 'truncated', error };
  } finally {
    response.off('close', onClose);
    unwatch();
    options.reads.leave();
    await source.close();
    chunk?.release();
  }
}

/** One write at a time, and how it ended. The buffer may be used again once `drained` resolves. */
class Writer implements PacedBody {
  readonly #response: ServerResponse;
  readonly #onCut: (why: ClientFault) => void;
  #pending = false;
  #wake: (() => void) | null = null;
  lost = false;
  /** How the client was lost, where it was. */
  lostBy: 'client left' | ClientFault = 'client left';
  taken = 0;
  waiting = 0;

  constructor(response: ServerResponse, stallMs: number, onCut: (why: ClientFault) => void) {
    this.#response = response;
    this.#onCut = onCut;
    this.lost = isGone(response);
    response.once('close', this.#onClose);
    // Node lets the timer pass over writes that still make progress, so a slow client is not a stalled one.
    response.setTimeout(stallMs, this.#onTimeout);
  }

  write(chunk: Uint8Array): void {
    this.#pending = true;
    this.waiting = chunk.length;
    this.#response.write(chunk, this.#onWritten);
  }

  async drained(): Promise<void> {
    if (!this.#pending || this.lost) return;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  /** The stall timer goes on for what the connection still holds, until the response closes. */
  end(): void {
    this.#pending = true;
    this.#response.end();
  }

  cut(): void {
    this.#cutOff('client too slow');
  }

  #cutOff(why: ClientFault): void {
    this.lostBy = why;
    this.#onCut(why);
    cutOff(this.#response);
  }

  #onWritten = (error?: Error | null): void => {
    this.#pending = false;
    this.taken += this.waiting;
    this.waiting = 0;
    if (error) this.lost = true;
    this.#wake?.();
  };

  #onClose = (): void => {
    this.lost = true;
    this.#wake?.();
  };

  #onTimeout = (): void => {
    // With no byte waiting for the client, it is the upstream that pauses.
    if (!this.#pending) return;
    this.#cutOff('client stalled');
  };
}

/**
 * Ends the connection after what was written; HTTP/2 resets the stream alone. With neither a length nor chunks the end of the connection
 * is the end of the body (RFC 9112 §6.3), so only a reset shows that the body is not whole.
 */
function cutShort(response: ServerResponse, lengthKnown: boolean): void {
  const stream = http2Stream(response);
  if (stream !== undefined) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else if (lengthKnown || response.chunkedEncoding) response.socket?.destroySoon();
  else response.socket?.resetAndDestroy();
}

function cutOff(response: ServerResponse): void {
  const stream = http2Stream(response);
  if (stream !== undefined) stream.close(constants.NGHTTP2_CANCEL);
  else response.destroy();
}

/** Whether nothing that is written can reach the client any more. */
export function isGone(response: ServerResponse): boolean {
  return http2Stream(response)?.destroyed ?? response.destroyed;
}

/** Drops a client that stops taking an answer that was written in one go. */
export function guardStall(response: ServerResponse, stallMs: number): void {
  response.setTimeout(stallMs, () => cutOff(response));
}

/** Node's HTTP/2 responses look like HTTP/1 ones, and have a stream. */
export function http2Stream(response: ServerResponse): ServerHttp2Stream | undefined {
  return 'stream' in response ? (response.stream as ServerHttp2Stream | undefined) : undefined;
}

/** An answer that is held whole in memory: everything that the edge says itself, and every error. */
export interface SmallAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

/** What Node's HTTP parser refuses for another reason than its syntax, by its error code. */
const PARSER_ERRORS: Readonly<Record<string, ErrorName>> = {
  HPE_HEADER_OVERFLOW: 'headerTooLarge',
  ERR_HTTP_REQUEST_TIMEOUT: 'requestTimeout',
};

/** Plain text that no cache keeps. */
export function textAnswer(status: number, body: string): SmallAnswer {
  const headers = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store', ...SAFETY_HEADERS };
  return { status, headers, body };
}

/** The only place that turns a failure into an answer. What is no RegistryError is logged, and the client gets `internal` with the request's id. */
export function errorAnswer(error: unknown, context: RequestContext, log: Logger): SmallAnswer {
  if (isOutOfDescriptors(error)) {
    log.error({ requestId: context.id, err: error }, 'a request failed because no file descriptor is left');
    context.reason = 'no file descriptor is left';
    const facts = { reason: 'it has as many files and connections open as its system allows' };
    return renderError(new RegistryError('unavailable', { facts }));
  }
  if (error instanceof RegistryError) {
    // What the registry failed of is for the operator, whatever the client is told; a refusal says it all by its status.
    context.reason = error.status >= 500 ? error.logged : (error.options.operatorReason ?? null);
    context.client ??= error.options.client ?? null;
    return renderError(error);
  }
  log.error({ requestId: context.id, err: error }, 'a request failed inside the gateway');
  context.reason = `a fault of the gateway: ${error instanceof Error ? error.message : String(error)}`;
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

/** @param fault why HTTP forbids the request, in words */
export function requestInvalid(fault: string): SmallAnswer {
  return renderError(new RegistryError('requestInvalid', { facts: { fault } }));
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
  else {
    const name = PARSER_ERRORS[error.code ?? ''];
    sendToSocket(socket, name === undefined ? requestInvalid('it is no HTTP') : renderError(new RegistryError(name)));
  }
}

/** Writes an answer to an HTTP/1.1 connection by hand and ends the connection. */
export function sendToSocket(socket: Duplex, { status, headers, body }: SmallAnswer): void {
  const fields = { ...headers, 'content-length': String(Buffer.byteLength(body)), connection: 'close' };
  const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`];
  for (const [name, value] of Object.entries(fields)) head.push(`${name}: ${value}`);
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}
