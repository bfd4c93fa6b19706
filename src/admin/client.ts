import http from 'node:http';
import { OperatorError } from '../kit/operator-error.ts';
import type { AdminLine, OperationContext } from './contract.ts';
import { openSocketPath } from './socket-path.ts';

/** Nothing listens on the admin socket: no gateway runs on this data directory (or it is just starting or ending). */
export class NotRunningError extends Error {
  override readonly name = 'NotRunningError';
}

/** Codes of a socket that is not there, or that a dead process left behind. */
const NOBODY = new Set(['ENOENT', 'ECONNREFUSED', 'ENOTDIR']);

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
    const response = await request(socket.path, operation, JSON.stringify(input ?? {}), context.signal);
    for await (const line of lines(response)) {
      if (line.type === 'step') context.step(line.step, line.message, line.data);
      else if (line.type === 'result') return line.result;
      else throw OperatorError.received(line);
    }
    throw brokeOff(operation);
  } catch (error) {
    context.signal.throwIfAborted();
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== undefined && NOBODY.has(code)) throw new NotRunningError(`nothing runs on ${dataDir}`);
    if (code === 'EACCES' || code === 'EPERM') {
      throw new OperatorError('ADMIN_DENIED', `the admin socket in ${dataDir} belongs to another user`, {
        next: 'run this as the user that the gateway runs as, or as root',
      });
    }
    if (code === 'ECONNRESET' || code === 'EPIPE') throw brokeOff(operation);
    throw error;
  } finally {
    await socket.close();
  }
}

function brokeOff(operation: string): OperatorError {
  return new OperatorError('GATEWAY_GONE', `the gateway ended before it had finished ${operation}`, {
    next: 'see its log; what it had stored it still has: run the command again when it is up',
  });
}

function request(
  socketPath: string,
  operation: string,
  body: string,
  signal: AbortSignal,
): Promise<http.IncomingMessage> {
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
async function* lines(response: http.IncomingMessage): AsyncGenerator<AdminLine> {
  let rest = '';
  response.setEncoding('utf8');
  for await (const chunk of response) {
    const parts = (rest + String(chunk)).split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part !== '') yield JSON.parse(part) as AdminLine;
  }
  if (rest !== '') yield JSON.parse(rest) as AdminLine;
}
