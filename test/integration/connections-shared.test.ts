import { connect as connectTcp } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';

const CAP = 6;

let gateway: TestGateway;
const held: TLSSocket[] = [];
afterEach(async () => {
  for (const socket of held.splice(0)) socket.destroy();
  await gateway.close();
});

/** A client's connection through its handshake; null where it is refused. */
function open(): Promise<TLSSocket | null> {
  return new Promise((resolve) => {
    // An address of its own: the test has asked for readiness from the usual one, and keeps that connection.
    const tcp = connectTcp({ port: gateway.httpsPort, host: '127.0.0.1', localAddress: '127.0.0.3' });
    const socket = connect({ socket: tcp, servername: 'localhost', rejectUnauthorized: false });
    tcp.on('error', () => resolve(null));
    socket.once('secureConnect', () => resolve(socket));
    socket.on('error', () => resolve(null));
  });
}

test('a client’s connections are counted over all processes', async () => {
  gateway = await startGateway({ config: { listen: { workers: 3 }, limits: { connections: CAP } } });
  await eventually('all workers take connections', async () => {
    const { stdout } = await gateway.cli(['status', '--json']);
    return (JSON.parse(stdout) as { workers: number }).workers === 3;
  });
  for (let n = 0; n < CAP; n++) {
    const socket = await open();
    expect(socket).not.toBeNull();
    if (socket !== null) held.push(socket);
  }
  // What one process has reaches the others a moment later.
  await eventually('every process refuses more', async () => {
    const more = await Promise.all(Array.from({ length: 12 }, open));
    for (const socket of more) socket?.destroy();
    return more.every((socket) => socket === null);
  });
  for (const socket of held.splice(0, 3)) socket.destroy();
  await eventually('there is room again', async () => {
    const socket = await open();
    if (socket !== null) held.push(socket);
    return socket !== null;
  });
});
