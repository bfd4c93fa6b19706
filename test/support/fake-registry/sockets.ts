import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** What TCP has beneath TLS, which alone can be reset. */
const beneath = new WeakMap<Socket, Socket>();

/** An https server whose connections `reset` can reset. */
export function secureServer(tls: { readonly key: string; readonly cert: string }): Server {
  const server = createServer({ key: tls.key, cert: tls.cert });
  const byPort = new Map<number | undefined, Socket>();
  server.on('connection', (tcp: Socket) => {
    const { remotePort } = tcp;
    byPort.set(remotePort, tcp);
    tcp.on('close', () => byPort.get(remotePort) === tcp && byPort.delete(remotePort));
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    const tcp = byPort.get(socket.remotePort);
    if (tcp !== undefined) beneath.set(socket, tcp);
  });
  return server;
}

/** TCP reset, whatever lies over it. */
export function reset(socket: Socket | null): void {
  if (socket !== null) (beneath.get(socket) ?? socket).resetAndDestroy();
}
