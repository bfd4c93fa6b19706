import { once } from 'node:events';
import { type AddressInfo, createServer, connect as dial, type Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import { afterEach, expect, it } from 'vitest';
import { dialAny, openSocket, resolveHost } from '../../src/upstream/net/dial.ts';
import { parseProxy } from '../../src/upstream/net/egress.ts';
import { Trust } from '../../src/upstream/net/trust.ts';
import { describeWith } from '../support/programs.ts';

/** Far more than any of these needs. */
const TIMEOUT_MS = 20_000;
const cleanups: (() => Promise<unknown> | unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Accepts connections, and counts them. */
async function listener(host: string, port = 0): Promise<{ port: number; open: Set<Socket>; accepted: () => number }> {
  let count = 0;
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    count++;
    open.add(socket);
    socket.on('error', () => {}).on('close', () => open.delete(socket));
    socket.resume();
  });
  server.listen(port, host);
  await once(server, 'listening');
  cleanups.push(async () => {
    for (const socket of open) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return { port: (server.address() as AddressInfo).port, open, accepted: () => count };
}

/** An address that lets every SYN fall: its listener never accepts, and its queue is full. */
async function silentAddress(host: string, port: number): Promise<void> {
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     const server = require('node:net').createServer();
     server.listen({ ...workerData, backlog: 1 }, () => {
       parentPort.postMessage('listening');
       // Off the stack, for the message to leave first; from then on nothing is accepted.
       setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0));
     });`,
    { eval: true, workerData: { host, port } },
  );
  cleanups.push(() => worker.terminate());
  await once(worker, 'message');
  // The queue is full once a connection stays without an answer: the kernel answers on loopback within the call.
  const fillers: Socket[] = [];
  cleanups.push(() => {
    for (const socket of fillers) socket.destroy();
  });
  for (let waiting = 0; waiting < 3; ) {
    if (fillers.length > 20) throw new Error(`the queue of ${host}:${port} does not fill`);
    const filler = dial({ host, port }).on('error', () => {});
    fillers.push(filler);
    const connected = once(filler, 'connect').then(() => true);
    if (!(await Promise.race([connected, new Promise((resolve) => setTimeout(resolve, 50, false))]))) waiting++;
  }
}

// All of 127.0.0.0/8 is this machine only there, and queues overflow silently.
describeWith(['linux'], 'a host of several addresses', () => {
  it('is reached though the first one does not answer', async () => {
    const { port, accepted } = await listener('127.0.0.3');
    await silentAddress('127.0.0.2', port);
    await expect(dialAny(['127.0.0.2'], port, 600)).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const socket = await dialAny(['127.0.0.2', '127.0.0.3'], port, TIMEOUT_MS);
    cleanups.push(() => socket.destroy());
    expect(socket.remoteAddress).toBe('127.0.0.3');
    await expect.poll(accepted).toBe(1);
  });

  it('is reached though the first ones refuse', async () => {
    const { port } = await listener('127.0.0.3');
    const socket = await dialAny(['127.0.0.4', '127.0.0.5', '127.0.0.3'], port, TIMEOUT_MS);
    cleanups.push(() => socket.destroy());
    expect(socket.remoteAddress).toBe('127.0.0.3');
  });

  it('is not asked at the second where the first answers', async () => {
    const first = await listener('127.0.0.2');
    const second = await listener('127.0.0.3', first.port);
    const socket = await dialAny(['127.0.0.2', '127.0.0.3'], first.port, TIMEOUT_MS);
    cleanups.push(() => socket.destroy());
    await expect.poll(first.accepted).toBe(1);
    expect(second.accepted()).toBe(0);
  });

  it('leaves no connection behind but the one that won', async () => {
    const { port, open } = await listener('127.0.0.3');
    await silentAddress('127.0.0.2', port);
    const socket = await dialAny(['127.0.0.2', '127.0.0.3', '127.0.0.3'], port, TIMEOUT_MS);
    await expect.poll(() => open.size).toBe(1);
    socket.destroy();
    await expect.poll(() => open.size).toBe(0);
  });

  it('fails with the reason of the last where all refuse', async () => {
    const { port } = await listener('127.0.0.3');
    await expect(dialAny(['127.0.0.4', '127.0.0.5'], port, TIMEOUT_MS)).rejects.toMatchObject({
      code: 'ECONNREFUSED',
    });
  });
});

it('what a public registry points to is refused where its name leads inside', async () => {
  const { port, accepted } = await listener('127.0.0.1');
  await expect(resolveHost('localhost', 'public')).rejects.toMatchObject({ code: 'EADDRFORBIDDEN' });
  const way = { reach: 'public', proxy: null, trust: new Trust(null), timeout: TIMEOUT_MS } as const;
  for (const host of ['localhost', '127.0.0.1', '[::1]', '::ffff:127.0.0.1']) {
    await expect(openSocket(host, port, way)).rejects.toMatchObject({ code: 'EADDRFORBIDDEN' });
  }
  expect(accepted()).toBe(0);
});

it.each(['http', 'https', 'socks5h'])(
  'a proxy %s:// that says nothing is left, its connection with it',
  async (scheme) => {
    const { port, open, accepted } = await listener('127.0.0.1');
    const proxy = parseProxy(`${scheme}://127.0.0.1:${port}`);
    const way = { reach: 'operator', proxy, trust: new Trust(null), timeout: 300 } as const;
    await expect(openSocket('registry.example', 443, way)).rejects.toThrow();
    await expect.poll(() => open.size, { timeout: 10_000 }).toBe(0);
    expect(accepted()).toBe(1);
  },
);
