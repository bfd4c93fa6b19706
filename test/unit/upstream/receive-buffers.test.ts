import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { giveBack, ReceiveBuffers } from '../../../src/upstream/net/receive-buffers.ts';
import { generated } from '../../support/content.ts';

const cleanups: (() => void)[] = [];

afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

const SIZE = 4 * 1024 * 1024;
const content = generated(SIZE, 'received');

/** A connection to a server that sends the content, or what else it is told to. */
async function connection(send = (to: Socket) => void to.end(content.read(0, SIZE))): Promise<Socket> {
  const server: Server = createServer((socket) => send(socket.on('error', () => {})));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const socket = ReceiveBuffers.connect({ host: '127.0.0.1', port: address.port }, null);
  cleanups.push(() => {
    socket.destroy();
    server.close();
  });
  return socket;
}

/** Reads to the end. Returns what came, and how many buffers it came in. */
async function read(socket: Socket, take: (chunk: Buffer) => Buffer): Promise<{ all: Buffer; buffers: number }> {
  const kept: Buffer[] = [];
  const buffers = new Set<ArrayBufferLike>();
  socket.on('data', (chunk: Buffer) => {
    buffers.add(chunk.buffer);
    kept.push(take(chunk));
  });
  await new Promise((resolve) => socket.once('close', resolve));
  return { all: Buffer.concat(kept), buffers: buffers.size };
}

const isContent = (bytes: Buffer): boolean => bytes.equals(content.read(0, SIZE));

it('what is given back is received into again', async () => {
  const { all, buffers } = await read(await connection(), (chunk) => {
    const copy = Buffer.from(chunk);
    giveBack(chunk);
    return copy;
  });
  expect(isContent(all)).toBe(true);
  expect(buffers).toBeLessThanOrEqual(4);
});

it('what is kept, whole or in part, stays as it was', async () => {
  expect(isContent((await read(await connection(), (chunk) => chunk)).all)).toBe(true);
  const inPart = await read(await connection(), (chunk) => {
    giveBack(chunk.subarray(1));
    return chunk;
  });
  expect(isContent(inPart.all)).toBe(true);
});

it('what waits while nobody reads stays as it was', async () => {
  const socket = await connection();
  let paused = 0;
  const { all } = await read(socket, (chunk) => {
    const copy = Buffer.from(chunk);
    giveBack(chunk);
    if (paused++ % 3 === 0) {
      socket.pause();
      setImmediate(() => setImmediate(() => socket.resume()));
    }
    return copy;
  });
  expect(isContent(all)).toBe(true);
  expect(paused).toBeGreaterThan(1);
});

it('few bytes that are kept hold no buffer', async () => {
  const pieces = 500;
  let sent = 0;
  const socket = await connection((to) => {
    to.setNoDelay(true);
    const next = (): void => {
      if (sent++ < pieces) to.write('x', () => setImmediate(next));
      else to.end();
    };
    next();
  });
  const memory = new Set<ArrayBufferLike>();
  let held = 0;
  const { all } = await read(socket, (chunk) => {
    if (!memory.has(chunk.buffer)) held += chunk.buffer.byteLength;
    memory.add(chunk.buffer);
    return chunk;
  });
  expect(all.toString()).toBe('x'.repeat(pieces));
  expect(held).toBeLessThanOrEqual(4 * 64 * 1024);
});
