import type { Socket } from 'node:net';
import { type ClientHello, HELLO_MAX, peekClientHello } from '../certs/client-hello.ts';

/** A hello and the record headers around it, even if each record carried a byte or two. */
const PEEKED_MAX = 2 * HELLO_MAX;

/**
 * Reads a connection's ClientHello, however it is cut, and puts every byte back.
 * Null where it is none, or the client leaves first.
 */
export function peekHello(socket: Socket): Promise<ClientHello | null> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const finish = (hello: ClientHello | null): void => {
      socket.off('data', onData);
      socket.off('close', onGone);
      socket.off('end', onGone);
      socket.pause();
      if (size > 0) socket.unshift(Buffer.concat(chunks, size));
      resolve(hello);
    };
    const onGone = (): void => {
      socket.off('data', onData);
      resolve(null);
    };
    const onData = (chunk: Buffer): void => {
      chunks.push(chunk);
      size += chunk.length;
      const result = peekClientHello(chunks.length === 1 ? chunk : Buffer.concat(chunks, size));
      if (result.state === 'hello') finish(result.hello);
      else if (result.state === 'other' || size > PEEKED_MAX) finish(null);
    };
    socket.on('data', onData);
    socket.once('close', onGone);
    socket.once('end', onGone);
  });
}
