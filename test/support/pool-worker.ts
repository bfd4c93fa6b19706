import type { Socket } from 'node:net';
import { Channel } from '../../src/workers/channel.ts';
import type { StartMessage, StateMessage } from '../../src/workers/wire.ts';

/** A worker for tests of the pool: it answers each line that a client sends with its process id and the state that it knows. */
const channel = new Channel({
  send: (message) => process.connected && (process.send?.(message, undefined, {}, () => {}) ?? false),
  onMessage: (listener) => void process.on('message', listener),
  onClose: (listener) => void process.once('disconnect', listener),
});
channel.onClose(() => process.exit(0));

const open = new Set<Socket>();
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
    const { promise, resolve } = Promise.withResolvers<void>();
    drained = resolve;
    if (open.size > 0) await promise;
  });
  process.on('message', (message: { t?: string; id?: number }, socket: Socket | undefined) => {
    if (message.t !== 'socket') return;
    channel.tell('took', message.id);
    if (socket === undefined) return channel.tell('gone', null);
    open.add(socket);
    served++;
    socket.on('error', () => {});
    socket.on('data', () => void socket.write(`${process.pid} ${known.ready}\n`));
    socket.on('close', () => {
      open.delete(socket);
      channel.tell('gone', null);
      if (open.size === 0) drained();
    });
  });
});
