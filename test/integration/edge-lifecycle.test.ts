import { once } from 'node:events';
import { connect as connectHttp2, constants } from 'node:http2';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import { OperatorError } from '../../src/kit/operator-error.ts';
import { type EdgeBed, PatternSource, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';
import { parseAnswer, rawExchange, tlsClient } from '../support/raw-client.ts';

const BLOB = `/v2/app/blobs/sha256:${'a'.repeat(64)}`;
const SIZE = 700_000;

let bed: EdgeBed;
afterEach(() => bed.stop());

/** A pull that stands still until `go` is called. */
function heldPull(): { source: PatternSource; go: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  const source = new PatternSource(SIZE);
  source.gate = () => (source.at === 0 ? Promise.resolve() : promise);
  bed.registry.answer = () => ({
    status: 200,
    headers: { 'content-length': String(SIZE) },
    body: source,
    from: 'cache',
  });
  return { source, go: resolve };
}

const client = () => tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
const refused = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connectTcp(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', () => resolve(true));
  });

describe('shutdown', () => {
  test('idle connections end at once, running pulls finish, nothing new is accepted', async () => {
    bed = await startEdgeBed();
    const silent = connectTcp(bed.httpsPort, '127.0.0.1');
    await once(silent, 'connect');
    const idle = await client();
    idle.write('GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(idle, 'data');
    const idleSession = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    await once(idleSession, 'remoteSettings');

    const pull = heldPull();
    const busy = await client();
    const whole = rawExchange(0, `GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`, busy);
    await eventually('pull.source.at > 0', () => pull.source.at > 0);
    const held = heldPull();
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const stream = session.request({ ':path': BLOB });
    let received = 0;
    stream.on('data', (chunk) => {
      received += chunk.length;
    });
    await eventually('held.source.at > 0', () => held.source.at > 0);

    const ended = Promise.all([silent, idle, idleSession].map((one) => once(one, 'close')));
    const closed = bed.edge.close({ graceMs: 20_000 });
    await ended;
    for (const port of [bed.httpsPort, bed.httpPort, bed.metricsPort]) expect(await refused(port)).toBe(true);

    let done = false;
    void closed.then(() => {
      done = true;
    });
    pull.go();
    const text = await whole;
    expect(text.length).toBe(SIZE + text.indexOf('\r\n\r\n') + 4);
    expect(done).toBe(false);
    const streamEnd = once(stream, 'end');
    const sessionEnd = once(session, 'close');
    held.go();
    await Promise.all([streamEnd, sessionEnd, closed]);
    expect(received).toBe(SIZE);
  });

  test('over HTTP/2 GOAWAY comes at once, new streams are refused, and the running one finishes', async () => {
    bed = await startEdgeBed();
    const { source, go } = heldPull();
    const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
    const stream = session.request({ ':path': BLOB });
    let received = 0;
    stream.on('data', (chunk) => {
      received += chunk.length;
    });
    await eventually('the pull has begun', () => source.at > 0);
    const told = once(session, 'goaway');
    const closed = bed.edge.close({ graceMs: 60_000 });
    const [code] = await told;
    expect(code).toBe(constants.NGHTTP2_NO_ERROR);
    const [refused] = await once(session.request({ ':path': '/v2/' }), 'error').catch((error: unknown) => [error]);
    expect(refused).toMatchObject({ code: 'ERR_HTTP2_GOAWAY_SESSION' });
    const ended = Promise.all([once(stream, 'end'), once(session, 'close')]);
    go();
    await Promise.all([ended, closed]);
    expect(received).toBe(SIZE);
  });

  test.each([constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_CANCEL])(
    'over HTTP/2 nothing is waited for that was reset unread, with the code %i',
    async (code) => {
      bed = await startEdgeBed();
      const { source, go } = heldPull();
      go();
      const session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
      session.on('error', () => {});
      const stream = session.request({ ':path': BLOB });
      await once(stream, 'response');
      // What fits into the client's window is under way, and the rest of it waits for a reader.
      await eventually('the pull has begun', () => source.at > 0);
      stream.close(code);
      await eventually('it is over', () => source.closed);
      await bed.edge.close({ graceMs: 600_000 });
      session.destroy();
    },
  );

  /** A client that speaks HTTP/2 by hand, and neither closes its connection nor takes notice of what it is told. */
  async function deafSession(): Promise<TLSSocket> {
    const options = { port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost', ALPNProtocols: ['h2'] };
    const socket = await tlsClient({ ...options, allowHalfOpen: true } as Parameters<typeof tlsClient>[0]);
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    socket.write(frame(4, 0, 0));
    return socket;
  }

  /** RFC 9113 §4.1. */
  function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head.writeUInt8(type, 3);
    head.writeUInt8(flags, 4);
    head.writeUInt32BE(stream, 5);
    return Buffer.concat([head, payload]);
  }

  /** GET over https, in HPACK without compression of the values (RFC 7541). */
  function headersOf(path: string): Buffer {
    const text = (value: string) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);
    return Buffer.concat([Buffer.from([0x82, 0x87, 0x04]), text(path), Buffer.from([0x01]), text('localhost')]);
  }

  test('over HTTP/2 a client that resets its streams and keeps the connection open holds nothing up', async () => {
    bed = await startEdgeBed();
    const pull = heldPull();
    const sockets = [await deafSession(), await deafSession()];
    const ended = sockets.map((socket) =>
      once(
        socket.resume().on('error', () => {}),
        'end',
      ),
    );
    for (const socket of sockets) socket.write(frame(1, 5, 1, headersOf(BLOB)));
    await eventually('both pulls to run', () => bed.registry.pulls.length === 2 && pull.source.at > 0);
    const closing = bed.edge.close({ graceMs: 600_000 });
    // One is reset while it drains, the other one's client is gone for good.
    sockets[0]?.write(frame(3, 0, 1, Buffer.from([0, 0, 0, 8])));
    await ended[0];
    sockets[1]?.write(frame(3, 0, 1, Buffer.from([0, 0, 0, 8])));
    await closing;
    await ended[1];
    for (const socket of sockets) socket.destroy();
  });

  test('idle clients that keep their connections open hold nothing up, whichever HTTP they speak', async () => {
    bed = await startEdgeBed();
    const session = await deafSession();
    const options = { port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' };
    const kept = await tlsClient({ ...options, allowHalfOpen: true } as Parameters<typeof tlsClient>[0]);
    kept.write('GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const begun = await tlsClient({ ...options, allowHalfOpen: true } as Parameters<typeof tlsClient>[0]);
    begun.write('GET /v2/ HTTP/1.1\r\nHost:');
    const plain = connectTcp({ port: bed.httpPort, host: '127.0.0.1', allowHalfOpen: true });
    plain.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await Promise.all([once(kept, 'data'), once(plain, 'data'), once(session, 'data')]);
    await bed.edge.close({ graceMs: 600_000 });
    for (const socket of [session, kept, begun, plain]) socket.destroy();
  });

  test('while it drains it is not ready, and a kept connection is told to go', async () => {
    bed = await startEdgeBed();
    const { promise, resolve } = Promise.withResolvers<void>();
    bed.registry.answer = async () => {
      await promise;
      return { status: 200, headers: {}, body: Buffer.from('{}'), from: 'cache' };
    };
    const socket = await client();
    // The second request waits behind the first on the same connection, so it is read while the edge drains.
    const answers = rawExchange(
      0,
      'GET /v2/a/manifests/1 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n',
      socket,
    );
    await eventually('bed.registry.pulls.length === 1', () => bed.registry.pulls.length === 1);
    const closed = bed.edge.close({ graceMs: 20_000 });
    expect((await bed.edge.app.request('/readyz', {}, { context: {} } as never)).status).toBe(503);
    resolve();
    expect(parseAnswer(await answers).status).toBe(200);
    await closed;
  });

  test('what does not finish within the grace is cut', async () => {
    bed = await startEdgeBed();
    const { source } = heldPull();
    const socket = await client();
    const text = rawExchange(0, `GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`, socket).catch(() => 'reset');
    await eventually('source.at > 0', () => source.at > 0);
    await bed.edge.close({ graceMs: 200 });
    expect((await text).length).toBeLessThan(SIZE);
    expect(source.closed).toBe(true);
  });

  test('closing twice, and closing an edge without connections, is no error', async () => {
    bed = await startEdgeBed();
    await bed.edge.close({ graceMs: 1000 });
    await bed.edge.close({ graceMs: 1000 });
  });
});

describe('ports that cannot be had', () => {
  test('a taken one: what, where and what to do; the others are let go', async () => {
    bed = await startEdgeBed();
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    const { port } = blocker.address() as AddressInfo;
    const free = createServer().listen(0, '127.0.0.1');
    await once(free, 'listening');
    const https = (free.address() as AddressInfo).port;
    await new Promise((resolve) => free.close(resolve));

    const attempt = startEdgeBed({
      config: { listen: { https: { host: '127.0.0.1', port: https }, http: { host: '127.0.0.1', port }, workers: 1 } },
    });
    const error = await attempt.then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(OperatorError);
    expect(error).toMatchObject({ code: 'LISTEN_FAILED', message: expect.stringContaining(`127.0.0.1:${port}`) });
    expect((error as OperatorError).next).toContain('listen.http');
    expect(await refused(https)).toBe(true);
    await new Promise((resolve) => blocker.close(resolve));
  });

  test('an address of another machine', async () => {
    bed = await startEdgeBed();
    const attempt = startEdgeBed({ config: { metrics: { listen: { host: '192.0.2.1', port: 9 } } } });
    await expect(attempt).rejects.toMatchObject({
      code: 'LISTEN_FAILED',
      message: expect.stringMatching(/metrics on 192\.0\.2\.1:9/),
      next: expect.stringContaining('metrics.listen'),
    });
  });
});
