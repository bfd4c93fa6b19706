import { once } from 'node:events';
import { lstat, unlink } from 'node:fs/promises';
import http from 'node:http';
import type net from 'node:net';
import path from 'node:path';
import type { ImageSource } from '../images/image-source.ts';
import { readBounded, TooLargeError } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';
import type { AdminLine, Operation, OperationContext } from './contract.ts';
import { isImageRequest, serveImage } from './pulls.ts';
import { isAnswered, listenPrivately, openSocketPath, SOCKET_NAME, type SocketPath } from './socket-path.ts';

/** The largest input, bytes: enough for a certificate chain or a table of ten thousand aliases. */
const MAX_INPUT = 16 * 1024 * 1024;

/** How often an empty line is sent while an operation runs, ms, so that a caller sees that the connection is alive. */
const HEARTBEAT = 10_000;

/** Headers of every answer: which gateway gives it. The path in URI encoding, as a header takes no bytes beyond ASCII. */
const DATA_DIR_HEADER = 'gateway-data-dir';
const PID_HEADER = 'gateway-pid';

/** The gateway that answers on a socket. */
export interface GatewayIdentity {
  readonly dataDir: string;
  readonly pid: number;
}

export interface AdminServer {
  /** Serves a connection that was made to another socket. */
  accept(connection: net.Socket): void;
  /** Aborts what runs, ends every connection and removes the socket. */
  close(): Promise<void>;
}

/**
 * The operator's interface: `POST /v1/<operation>` on `<dataDir>/admin.sock`, JSON in, JSON lines out (`AdminLine`); `GET /v2/…` for images.
 * The socket has mode 0600 from its first moment: every process that may open it may call every operation.
 * @throws {OperatorError} `DATA_DIR_HELD` where another process answers on it
 */
export async function startAdminServer(options: {
  readonly dataDir: string;
  readonly operations: ReadonlyMap<string, Operation>;
  /** Left out where there are none to be had. */
  readonly images?: ImageSource;
  readonly log: Logger;
}): Promise<AdminServer> {
  const { dataDir, operations, images, log } = options;
  const running = new Set<AbortController>();
  const server = http.createServer((request, response) => {
    response.setHeader(DATA_DIR_HEADER, encodeURI(dataDir));
    response.setHeader(PID_HEADER, process.pid);
    if (images !== undefined && isImageRequest(request)) {
      void serveImage(images, request, response);
      return;
    }
    serveRequest(request, response, operations, running, log).catch((error: unknown) => {
      log.error({ err: error }, 'the admin socket failed on a request');
      response.destroy();
    });
  });
  // Operations may take long (an order at a CA, a check of the whole cache), and every client of this socket is the operator.
  server.requestTimeout = 0;
  server.timeout = 0;

  const socket = await openSocketPath(dataDir);
  try {
    await removeStale(socket.path, dataDir);
    await listenPrivately(server, socket.path);
  } catch (error) {
    await socket.close();
    throw error;
  }
  log.debug({ path: path.join(dataDir, SOCKET_NAME) }, 'the admin socket is open');
  return {
    // Node documents this event for connections that come from elsewhere.
    accept: (connection) => void server.emit('connection', connection),
    close: () => closeServer(server, running, socket),
  };
}

async function closeServer(server: http.Server, running: Set<AbortController>, socket: SocketPath): Promise<void> {
  const reason = new OperatorError('GATEWAY_ENDING', 'the gateway is ending', {
    next: 'run the command again when it is up',
  });
  for (const controller of running) controller.abort(reason);
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  // Aborted operations still write their error line; a connection that has not ended after a second is destroyed.
  const cut = setTimeout(() => server.closeAllConnections(), 1000);
  await closed;
  clearTimeout(cut);
  await socket.close();
}

/** Removes the socket of a process that has ended: `bind` fails on a path that exists. */
async function removeStale(socketPath: string, dataDir: string): Promise<void> {
  const found = await lstat(socketPath).catch(() => null);
  if (found === null) return;
  if (!found.isSocket()) {
    throw new OperatorError('ADMIN_SOCKET', `${path.join(dataDir, SOCKET_NAME)} exists and is no socket`, {
      next: 'move that file away: the gateway listens there for its own commands',
    });
  }
  if (await isAnswered(socketPath)) {
    throw new OperatorError('DATA_DIR_HELD', `a gateway already runs on ${dataDir}`, {
      next: 'end it first, or give this one a data directory of its own (--data-dir)',
    });
  }
  await unlink(socketPath);
}

async function serveRequest(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  operations: ReadonlyMap<string, Operation>,
  running: Set<AbortController>,
  log: Logger,
): Promise<void> {
  const name = /^\/v1\/([a-z.]+)$/.exec(request.url ?? '')?.[1] ?? '';
  const operation = operations.get(name);
  if (request.method !== 'POST' || operation === undefined) {
    request.resume();
    const message = `the gateway that runs knows no operation ${name === '' ? (request.url ?? '') : name}`;
    respond(response, 404, errorLine(new OperatorError('OPERATION_UNKNOWN', message)));
    return;
  }
  let input: unknown;
  try {
    input = JSON.parse((await readBounded(request, MAX_INPUT)).toString('utf8'));
  } catch (error) {
    const message =
      error instanceof TooLargeError ? `the input is larger than ${MAX_INPUT} bytes` : 'the input is no JSON';
    respond(response, 400, errorLine(new OperatorError('INPUT_INVALID', message)));
    return;
  }

  const controller = new AbortController();
  running.add(controller);
  response.once('close', () => controller.abort(new OperatorError('STOPPED', 'whoever asked has left')));
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  response.flushHeaders();
  const write = (line: AdminLine): void => {
    if (!response.destroyed) response.write(`${JSON.stringify(line)}\n`);
  };
  const heartbeat = setInterval(() => response.destroyed || response.write('\n'), HEARTBEAT);
  try {
    const result = await operation(input, {
      step: (step, message, data) => write({ type: 'step', step, message, ...(data === undefined ? {} : { data }) }),
      drained: async () => {
        if (response.writableNeedDrain && !response.destroyed)
          await once(response, 'drain', { signal: controller.signal });
      },
      signal: controller.signal,
    });
    write({ type: 'result', result: result ?? null });
  } catch (error) {
    if (!(error instanceof OperatorError)) log.error({ err: error, operation: name }, 'an operation failed');
    write(errorLine(error));
  } finally {
    clearInterval(heartbeat);
    running.delete(controller);
    response.end();
  }
}

/** An error as the last line of an answer. Anything but an `OperatorError` is a fault of the gateway; its stack goes to the log only. */
function errorLine(error: unknown): AdminLine {
  if (!(error instanceof OperatorError)) {
    const message = `the gateway failed: ${error instanceof Error ? error.message : String(error)}`;
    const next = "its log has the details; this is the gateway's fault, not yours";
    return errorLine(new OperatorError('INTERNAL', message, { next }));
  }
  const { code, message, next, usage } = error;
  return { type: 'error', code, message, next, usage };
}

function respond(response: http.ServerResponse, status: number, line: AdminLine): void {
  response.writeHead(status, { 'content-type': 'application/x-ndjson', connection: 'close' });
  response.end(`${JSON.stringify(line)}\n`);
}

/** Nothing listens on the admin socket: no gateway runs on this data directory (or it is just starting or ending). */
export class NotRunningError extends Error {
  override readonly name = 'NotRunningError';
}

/** Codes of a socket that is not there, or that a dead process left behind. */
const NOT_LISTENING = new Set(['ENOENT', 'ECONNREFUSED', 'ENOTDIR']);

/** What a caller hears besides the result. */
export interface CallContext extends OperationContext {
  /** The gateway has taken the call, and is this one; null where it is too old to say. */
  readonly reached?: (gateway: GatewayIdentity | null) => void;
}

/**
 * Calls one operation of the gateway whose admin socket is in `directory`: its data directory, or a well-known one. Steps are passed
 * on as they come; an abort closes the connection, which aborts the operation on the other side.
 * @throws {NotRunningError} where nothing listens
 * @throws {OperatorError} as the operation threw it
 */
export async function callAdmin(
  directory: string,
  operation: string,
  input: unknown,
  context: CallContext,
): Promise<unknown> {
  let socket: SocketPath | undefined;
  try {
    socket = await openSocketPath(directory);
    const response = await post(socket.path, operation, JSON.stringify(input ?? {}), context.signal);
    context.reached?.(identityIn(response.headers));
    for await (const line of jsonLines(response)) {
      if (line.type === 'step') {
        context.step(line.step, line.message, line.data);
        await context.drained?.();
      } else if (line.type === 'result') return line.result;
      else throw OperatorError.received(line);
    }
    throw gatewayGone(operation);
  } catch (error) {
    context.signal.throwIfAborted();
    throw unreached(error, directory, operation);
  } finally {
    await socket?.close();
  }
}

/** What a failure to reach the gateway in a directory means. */
export function unreached(error: unknown, directory: string, operation: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code !== undefined && NOT_LISTENING.has(code)) return new NotRunningError(`nothing runs on ${directory}`);
  if (code === 'EACCES' || code === 'EPERM') {
    return new OperatorError('ADMIN_DENIED', `the admin socket in ${directory} belongs to another user`, {
      next: 'run this as the user that the gateway runs as, or as root',
    });
  }
  return code === 'ECONNRESET' || code === 'EPIPE' ? gatewayGone(operation) : error;
}

/** Which gateway gives an answer; null where it is too old to say. */
export function identityIn(headers: http.IncomingHttpHeaders): GatewayIdentity | null {
  const dataDir = headers[DATA_DIR_HEADER];
  return typeof dataDir === 'string' ? { dataDir: decodeURI(dataDir), pid: Number(headers[PID_HEADER]) } : null;
}

function gatewayGone(operation: string): OperatorError {
  return new OperatorError('GATEWAY_GONE', `the gateway ended before it had finished ${operation}`, {
    next: 'see its log; what it had stored it still has: run the command again when it is up',
  });
}

function post(socketPath: string, operation: string, body: string, signal: AbortSignal): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = http.request(
      {
        socketPath,
        method: 'POST',
        path: `/v1/${encodeURIComponent(operation)}`,
        headers: { host: 'admin', 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        agent: false,
        signal,
      },
      resolve,
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

/** Splits the answer into its JSON lines; empty ones keep the connection alive and say nothing. */
async function* jsonLines(response: http.IncomingMessage): AsyncGenerator<AdminLine> {
  let rest = '';
  response.setEncoding('utf8');
  for await (const chunk of response) {
    const parts = (rest + String(chunk)).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part !== '') yield JSON.parse(part) as AdminLine;
  }
  if (rest !== '') yield JSON.parse(rest) as AdminLine;
}
