import { once } from 'node:events';
import { chmod, lstat, open, unlink } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { readBounded, TooLargeError } from '../kit/http.ts';
import { OperatorError } from '../kit/operator-error.ts';
import type { Logger } from '../telemetry/log.ts';
import type { AdminLine, Operation, OperationContext } from './contract.ts';

const SOCKET_NAME = 'admin.sock';

/** The longest path of a Unix socket, bytes: `sun_path` (unix(7)) less its final zero; 108 on Linux, 104 on macOS and the BSDs. */
const MAX_SOCKET_PATH = process.platform === 'linux' ? 107 : 103;

interface SocketPath {
  /** May be given to `listen` and `connect` until `close`. */
  readonly path: string;
  close(): Promise<void>;
}

/**
 * The path of `<dataDir>/admin.sock` for bind and connect. Where it is too long for the kernel, the directory is opened and
 * the socket is addressed through `/proc/self/fd`, so that it is still made in the data directory.
 */
async function openSocketPath(dataDir: string): Promise<SocketPath> {
  const direct = path.join(dataDir, SOCKET_NAME);
  if (Buffer.byteLength(direct) <= MAX_SOCKET_PATH) return { path: direct, close: async () => {} };
  if (process.platform !== 'linux') {
    throw new OperatorError(
      'DATA_DIR_TOO_LONG',
      `the path ${direct} is longer than the ${MAX_SOCKET_PATH} bytes a socket may have`,
      {
        next: 'choose a shorter data directory: dataDir or GATEWAY_DATA_DIR',
      },
    );
  }
  const directory = await open(dataDir, 'r');
  return { path: `/proc/self/fd/${directory.fd}/${SOCKET_NAME}`, close: () => directory.close() };
}

/** The largest input, bytes: enough for a certificate chain or a table of ten thousand aliases. */
const MAX_INPUT = 16 * 1024 * 1024;

/** How often an empty line is sent while an operation runs, ms, so that a caller sees that the connection is alive. */
const HEARTBEAT = 10_000;

export interface AdminServer {
  /** Aborts what runs, ends every connection and removes the socket. */
  close(): Promise<void>;
}

/**
 * The operator's interface: `POST /v1/<operation>` on `<dataDir>/admin.sock`, JSON in, JSON lines out (`AdminLine`).
 * The socket has mode 0600 from its first moment: every process that may open it may call every operation.
 * @throws {OperatorError} `DATA_DIR_HELD` where another process answers on it
 */
export async function startAdminServer(options: {
  readonly dataDir: string;
  readonly operations: ReadonlyMap<string, Operation>;
  readonly log: Logger;
}): Promise<AdminServer> {
  const { dataDir, operations, log } = options;
  const running = new Set<AbortController>();
  const server = http.createServer((request, response) => {
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
  return { close: () => closeServer(server, running, socket) };
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

async function listenPrivately(server: http.Server, socketPath: string): Promise<void> {
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', resolve);
  });
  // `listen` binds before it returns, so nothing else is created under this mask.
  const mask = process.umask(0o177);
  try {
    server.listen({ path: socketPath });
  } finally {
    process.umask(mask);
  }
  await listening;
  await chmod(socketPath, 0o600);
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

function isAnswered(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect({ path: socketPath });
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
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

/**
 * Calls one operation of the gateway that runs on `dataDir`. Steps are passed on as they come; an abort closes the connection,
 * which aborts the operation on the other side.
 * @throws {NotRunningError} where nothing listens
 * @throws {OperatorError} as the operation threw it
 */
export async function callAdmin(
  dataDir: string,
  operation: string,
  input: unknown,
  context: OperationContext,
): Promise<unknown> {
  const socket = await openSocketPath(dataDir);
  try {
    const response = await post(socket.path, operation, JSON.stringify(input ?? {}), context.signal);
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
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== undefined && NOT_LISTENING.has(code)) throw new NotRunningError(`nothing runs on ${dataDir}`);
    if (code === 'EACCES' || code === 'EPERM') {
      throw new OperatorError('ADMIN_DENIED', `the admin socket in ${dataDir} belongs to another user`, {
        next: 'run this as the user that the gateway runs as, or as root',
      });
    }
    if (code === 'ECONNRESET' || code === 'EPIPE') throw gatewayGone(operation);
    throw error;
  } finally {
    await socket.close();
  }
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
