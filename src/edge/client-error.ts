import type { Duplex } from 'node:stream';
import { type RegistryError, renderError } from '../oci/errors.ts';
import { methodNotAllowed } from './front.ts';

/** What Node's parser says, and what the client is told. Everything else it finds wrong is a 400. */
const STATUS: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  HPE_CHUNK_EXTENSIONS_OVERFLOW: '413 Content Too Large',
};

/**
 * Answers what never became a request: broken syntax, too large or too slow a header, a method that the parser does not know.
 * Written by hand, because there is no response object to write to.
 */
export function answerClientError(error: Error & { code?: string }, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  if (error.code === 'HPE_INVALID_METHOD') {
    endWith(socket, '405 Method Not Allowed', methodNotAllowed('this method'));
    return;
  }
  const status = STATUS[error.code ?? ''] ?? '400 Bad Request';
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}

/** CONNECT reaches Node as an event of its own, with a bare socket. */
export function refuseConnect(socket: Duplex): void {
  endWith(socket, '405 Method Not Allowed', methodNotAllowed('CONNECT'));
}

function endWith(socket: Duplex, status: string, error: RegistryError): void {
  const { headers, body } = renderError(error);
  const lines = Object.entries({ ...headers, 'content-length': String(Buffer.byteLength(body)), connection: 'close' });
  socket.end(`HTTP/1.1 ${status}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n${body}`, () =>
    socket.destroy(),
  );
}
