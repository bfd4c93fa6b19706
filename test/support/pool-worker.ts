import type { Server, Socket } from 'node:net';
import { Channel } from '../../src/workers/channel.ts';
import type { StartMessage, StateMessage } from '../../src/workers/protocol.ts';

/** A worker for tests of the supervisor: it answers each line that a client sends with its process id and the state that it knows. */
const channel = new Channel({
  send: (message) => process.connected && (process.send?.(message, undefined, {}, () => {}) ?? false),
  onMessage: (listener) => void process.on('message', (message, server) => listener(message, server as Server)),
  onClose: (listener) => void process.once('disconnect', listener),
});
channel.onClose(() => process.exit(0));

const open = new Set<Socket>();
let listening: Server | undefined;
let served = 0;
let drained = (): void => {};

channel.handle('start', ({ state, version }: StartMessage) => {
  if (version === 'fails') process.exit(3);
  let known = state;
  channel.handle('state', (newer: StateMessage) => {
    known = newer;
  });
  channel.handle('metrics', () => [
    {
      name: 'gateway_served_total',
      help: 'Connections served',
      type: 'counter',
      values: [{ value: served, labels: {} }],
      aggregator: 'sum',
    },
  ]);
  channel.handle('drain', async () => {
    listening?.close();
    const { promise, resolve } = Promise.withResolvers<void>();
    drained = resolve;
    if (open.size > 0) await promise;
  });
  channel.handle('listen', (_: null, { server }) => {
    listening = server;
    server?.on('connection', (socket) => {
      open.add(socket);
      served++;
      socket.on('error', () => {});
      socket.on('data', () => void socket.write(`${process.pid} ${known.ready}\n`));
      socket.on('close', () => {
        open.delete(socket);
        if (open.size === 0) drained();
      });
    });
  });
});
