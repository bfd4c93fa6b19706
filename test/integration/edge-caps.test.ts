import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { Writable } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { pino } from 'pino';
import { afterEach, describe, expect, test } from 'vitest';
import { connectionsInAll } from '../../src/edge/connections.ts';
import type { Reply } from '../../src/proxy/reply.ts';
import { type EdgeBed, PatternSource, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';
import { parseAnswer, rawExchange } from '../support/raw-client.ts';

const PING = 'GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
const BLOB = `/v2/app/blobs/sha256:${'a'.repeat(64)}`;
/** More than all socket buffers between two processes hold. */
const LARGE = 256 * 1024 * 1024;

let bed: EdgeBed;
const open: Socket[] = [];
afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  await bed.stop();
});

/** A client of one address, through its handshake; its error where the connection is refused. */
async function client(from = '127.0.0.1'): Promise<TLSSocket | NodeJS.ErrnoException> {
  const tcp = connectTcp({ port: bed.httpsPort, host: '127.0.0.1', localAddress: from });
  const socket = connectTls({ socket: tcp, servername: 'localhost', ca: bed.certificates.root });
  open.push(tcp, socket);
  tcp.on('error', (error) => socket.destroy(error));
  return new Promise((resolve) => {
    socket.once('secureConnect', () => resolve(socket));
    socket.on('error', resolve);
  });
}

async function connected(from?: string): Promise<TLSSocket> {
  const socket = await client(from);
  if (socket instanceof Error) throw socket;
  return socket;
}

const pings = async (socket: TLSSocket): Promise<number> => parseAnswer(await rawExchange(0, PING, socket)).status;
const refusals = (cap: string): Promise<number> => bed.metrics.total('http_connections_refused_total', { cap });

function capturedLog() {
  const lines: Record<string, unknown>[] = [];
  const destination = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)));
      done();
    },
  });
  return { lines, log: pino({ level: 'warn' }, destination) };
}

test('one client is sent so many bodies at a time and no more, over however many streams; others are served', async () => {
  bed = await startEdgeBed({
    limits: { bodies: 3 },
    access: {
      check: async ({ address }) => ({ authenticated: false, known: false, user: null, client: address }),
      quota: null,
    },
  });
  const sources: PatternSource[] = [];
  bed.registry.answer = (): Reply => {
    const body = new PatternSource(LARGE);
    sources.push(body);
    return { status: 200, headers: { 'content-length': String(LARGE) }, body, from: 'cache' };
  };
  const session = connectHttp2(`https://localhost:${bed.httpsPort}`, { ca: bed.certificates.root });
  try {
    const ask = async () => {
      const stream = session.request({ ':path': BLOB });
      const [headers] = await once(stream, 'response');
      return { stream, status: headers[':status'], retryAfter: headers['retry-after'] };
    };
    const running = [await ask(), await ask(), await ask()];
    expect(running.map(({ status }) => status)).toEqual([200, 200, 200]);
    const { status, retryAfter } = await ask();
    expect([status, retryAfter]).toEqual([429, '5']);
    expect(sources[3]?.closed).toBe(true);
    const other = await connected('127.0.0.2');
    other.write(`GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    expect(String((await once(other, 'data'))[0])).toMatch(/^HTTP\/1.1 200 /);
    other.destroy();
    running[0]?.stream.close(constants.NGHTTP2_CANCEL);
    await eventually('the body is over', () => sources[0]?.closed === true);
    expect((await ask()).status).toBe(200);
  } finally {
    session.destroy();
  }
});

describe('requests that a connection of HTTP/1.1 brings ahead', () => {
  test('wait for those before: one holds a body at a time, and all are answered in their order', async () => {
    bed = await startEdgeBed();
    const sources: PatternSource[] = [];
    let together = 0;
    bed.registry.answer = (): Reply => {
      const size = 100_000 + sources.length;
      const body = new PatternSource(size);
      sources.push(body);
      together = Math.max(together, sources.filter(({ closed }) => !closed).length);
      return { status: 200, headers: { 'content-length': String(size) }, body, from: 'cache' };
    };
    const socket = await connected();
    const ahead = `GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(20);
    const answered = await rawExchange(0, `${ahead}${PING}`, socket);
    expect([sources.length, together]).toEqual([20, 1]);
    const lengths = [...answered.matchAll(/^content-length: (\d+)\r$/gim)].map(([, length]) => Number(length));
    expect(lengths).toEqual([...sources.map((_, index) => 100_000 + index), 2]);
  });

  test('end it where they are hundreds', async () => {
    bed = await startEdgeBed();
    let asked = 0;
    bed.registry.answer = (): Reply => {
      asked++;
      return { status: 200, headers: {}, body: new PatternSource(LARGE), from: 'cache' };
    };
    const socket = await connected();
    socket.write(`GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(400));
    await new Promise((resolve) => socket.once('close', resolve));
    expect(asked).toBe(1);
  });
});

describe('connections', () => {
  test('of one client beyond its cap are refused; others, and the ones that are open, are served', async () => {
    const { lines, log } = capturedLog();
    bed = await startEdgeBed({ config: { limits: { connections: 3, minRate: 1024 } }, log });
    const held = [await connected(), await connected(), await connected()];
    for (let n = 0; n < 5; n++) expect(await client()).toBeInstanceOf(Error);
    expect(await pings(await connected('127.0.0.2'))).toBe(200);
    expect(await refusals('client')).toBe(5);
    const text = await rawExchange(bed.metricsPort, 'GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    expect(text).toContain('gateway_http_connections_refused_total{cap="client"} 5');
    // One line for all that come within some seconds.
    expect(lines.map(({ client: address, cap, most }) => ({ address, cap, most }))).toEqual([
      { address: '127.0.0.1', cap: 'client', most: 3 },
    ]);
    expect(await pings(held[0] as TLSSocket)).toBe(200);
    await eventually('a place is free', async () => {
      const next = await client();
      return next instanceof Error ? false : (await pings(next)) === 200;
    });
  });

  test('on the HTTP port count as well', async () => {
    bed = await startEdgeBed({ config: { limits: { connections: 1, minRate: 1024 } } });
    await connected();
    const tcp = connectTcp(bed.httpPort, '127.0.0.1');
    const [error] = (await once(tcp, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
  });

  test('of a trusted proxy are many clients’, and not capped', async () => {
    bed = await startEdgeBed({ config: { limits: { connections: 1, minRate: 1024 }, trustedProxies: ['127.0.0.1'] } });
    for (let n = 0; n < 4; n++) await connected();
    await connected('127.0.0.2');
    expect(await client('127.0.0.2')).toBeInstanceOf(Error);
  });

  test('of all together leave descriptors for files', async () => {
    bed = await startEdgeBed({ descriptors: 8 });
    for (let n = 1; n <= 4; n++) await connected(`127.0.0.${n}`);
    expect(await client('127.0.0.9')).toBeInstanceOf(Error);
    expect(await refusals('all')).toBe(1);
    expect([connectionsInAll(65_536), connectionsInAll(1_024), connectionsInAll(200), connectionsInAll(null)]).toEqual([
      49_152,
      768,
      100,
      Number.POSITIVE_INFINITY,
    ]);
  });
});

describe('a reader that takes next to nothing', () => {
  const LIMITS = { limits: { connections: 2, minRate: 64 * 1024 * 1024 } };

  function serve(from: Reply['from']): PatternSource[] {
    const sources: PatternSource[] = [];
    bed.registry.answer = () => {
      const source = new PatternSource(LARGE);
      sources.push(source);
      return { status: 200, headers: { 'content-length': String(LARGE) }, body: source, from };
    };
    return sources;
  }

  async function lazyPull(): Promise<void> {
    const socket = await connected();
    socket.write(`GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    await once(socket, 'data');
    socket.pause();
  }

  const tooSlow = (): Promise<number> => bed.metrics.total('http_bodies_cut_total', { reason: 'client too slow' });

  test.each(['fill', 'upstream'] as const)('is ended where it holds an upstream (%s)', async (from) => {
    bed = await startEdgeBed({ config: LIMITS, limits: { paceMs: 400 } });
    const sources = serve(from);
    await lazyPull();
    await eventually('it is ended', async () => (await tooSlow()) === 1);
    expect(sources.map(({ closed }) => closed)).toEqual([true]);
  });

  test('of what is kept goes on until its client’s cap is full', async () => {
    bed = await startEdgeBed({ config: LIMITS, limits: { paceMs: 200 } });
    const sources = serve('cache');
    await lazyPull();
    const other = await connected();
    // Two of the spans in which an unfit reader would be ended.
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(sources.map(({ closed }) => closed)).toEqual([false]);
    expect(await client()).toBeInstanceOf(Error);
    await eventually('it is ended', async () => (await tooSlow()) === 1);
    expect(sources.map(({ closed }) => closed)).toEqual([true]);
    expect(await pings(other)).toBe(200);
  });

  test('over HTTP/2 loses its connection, which is what others wait for', async () => {
    bed = await startEdgeBed({ config: LIMITS, limits: { paceMs: 400 } });
    serve('fill');
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    session.on('error', () => {});
    const stream = session.request({ ':path': BLOB });
    stream.on('error', () => {});
    await eventually('the connection ends', async () => session.closed || session.destroyed);
    await eventually('it is counted', async () => (await tooSlow()) === 1);
    session.destroy();
  });

  test('and one that reads is served whole', async () => {
    bed = await startEdgeBed({ config: { limits: { connections: 2, minRate: 1024 } }, limits: { paceMs: 200 } });
    const size = 8 * 1024 * 1024;
    const source = new PatternSource(size);
    // The upstream makes long pauses, in which no byte waits for the reader.
    source.gate = () => new Promise((resolve) => setTimeout(resolve, source.at % (4 * 1024 * 1024) === 0 ? 500 : 0));
    bed.registry.answer = () => ({
      status: 200,
      headers: { 'content-length': String(size) },
      body: source,
      from: 'fill',
    });
    const text = await rawExchange(
      0,
      `GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
      await connected(),
    );
    expect(text.length - text.indexOf('\r\n\r\n') - 4).toBe(size);
    expect(await tooSlow()).toBe(0);
  });
});

test('out of descriptors: logged and counted, clients are told, and the listener goes on', async () => {
  bed = await startEdgeBed();
  const program = new URL('../support/descriptor-child.ts', import.meta.url).pathname;
  const child = spawn('/bin/sh', ['-c', 'ulimit -n 160 && exec "$0" "$1"', process.execPath, program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [chunks, [code]] = await Promise.all([child.stdout.toArray(), once(child, 'close')]);
  expect(code).toBe(0);
  expect(JSON.parse(Buffer.concat(chunks).toString())).toEqual({
    logged: [expect.stringContaining('no file descriptor is left')],
    counted: true,
    told: { status: 503, retryAfter: '5', code: 'UNAVAILABLE' },
    after: 200,
  });
});
