import { connect as connectTcp, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';

/** A TLS client that has finished its handshake; rejects with the error of one that failed. */
export function tlsClient(options: ConnectionOptions & { port: number }): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', ...options }, () => resolve(socket));
    socket.once('error', reject);
  });
}

/** What a client saw of the handshake; the other side may have ended the connection since. */
export async function handshake(
  options: ConnectionOptions & { port: number },
): Promise<{ subject: string | undefined; protocol: string | false | null }> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ host: '127.0.0.1', ...options }, () => {
      resolve({ subject: socket.getPeerCertificate().subjectaltname, protocol: socket.alpnProtocol });
      socket.destroy();
    });
    socket.once('error', reject);
  });
}

/** Writes bytes as they are and reads until the other side closes. */
export function rawExchange(
  port: number,
  bytes: string | Buffer,
  socket: Socket = connectTcp(port, '127.0.0.1'),
): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.once('error', reject);
    socket.once('close', () => resolve(Buffer.concat(chunks).toString('latin1')));
    socket.write(bytes);
  });
}

export interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/** Reads one HTTP/1.1 answer with a Content-Length. */
export function parseAnswer(text: string): Answer {
  const [head = '', body = ''] = text.split('\r\n\r\n', 2);
  const [first = '', ...lines] = head.split('\r\n');
  return {
    status: Number(first.split(' ')[1]),
    headers: Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    ),
    body,
  };
}
