import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { Agent, get } from 'node:https';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ByteOrder, ByteQuota, Reservation } from '../../src/access/quotas.ts';
import { TruncatedError } from '../../src/kit/byte-source.ts';
import { readBounded } from '../../src/kit/http.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import type { Reply } from '../../src/proxy/reply.ts';
import { type EdgeBed, PatternSource, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';
import { tlsClient } from '../support/raw-client.ts';

const MiB = 1024 * 1024;
const BLOB = `/v2/app/blobs/sha256:${'a'.repeat(64)}`;

/** Room for everything; remembers what was set aside, and what was sent of it. */
class TestQuota implements ByteQuota {
  replies: { order: ByteOrder; sent: number; settled: boolean }[] = [];

  reserve(_client: string, order: ByteOrder): Reservation {
    const reply = { order, sent: 0, settled: false };
    this.replies.push(reply);
    return {
      bytes: order.bytes,
      sent: (bytes) => {
        reply.sent += bytes;
        return true;
      },
      close: () => {
        reply.settled = true;
      },
    };
  }

  get settled(): number {
    return this.replies.filter(({ settled }) => settled).length;
  }
}

let bed: EdgeBed;
const quota = new TestQuota();
beforeAll(async () => {
  bed = await startEdgeBed({
    limits: { stallMs: 500 },
    access: {
      check: () => ({ user: null, authenticated: false, known: false, client: '192.0.2.1' }),
      quota,
    },
  });
});
afterAll(() => bed.stop());
beforeEach(() => {
  quota.replies = [];
});

function serve(
  source: PatternSource,
  headers: Record<string, string> = {},
  from: Reply['from'] = 'fill',
): PatternSource {
  bed.registry.answer = (): Reply => ({
    status: 200,
    headers: {
      'content-type': 'application/octet-stream',
      ...(source.length === undefined ? {} : { 'content-length': String(source.length) }),
      ...headers,
    },
    body: source,
    from,
  });
  return source;
}

function pull(agent?: Agent): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    get(
      {
        host: '127.0.0.1',
        port: bed.httpsPort,
        path: BLOB,
        ca: bed.certificates.root,
        headers: { host: 'localhost' },
        ...(agent === undefined ? {} : { agent }),
      },
      resolve,
    ).once('error', reject);
  });
}

/** Checks every byte against the pattern; gives the count, and whether the body ended as whole. */
async function drain(stream: AsyncIterable<Buffer>): Promise<{ size: number; whole: boolean; right: boolean }> {
  let size = 0;
  let right = true;
  try {
    for await (const chunk of stream) {
      for (let index = 0; index < chunk.length; index++) right &&= chunk[index] === (size + index) % 251;
      size += chunk.length;
    }
    return { size, whole: true, right };
  } catch {
    return { size, whole: false, right };
  }
}

function openHttp2(options: { window?: number } = {}): ClientHttp2Session {
  return connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, {
    ca: bed.certificates.root,
    settings: { initialWindowSize: options.window ?? 65_535 },
  });
}

describe('whole bodies', () => {
  test.each([0, 1, 131_071, 131_072, 131_073, 3 * MiB + 7])('%i bytes, HTTP/1.1 and HTTP/2', async (size) => {
    const first = serve(new PatternSource(size));
    expect(await drain(await pull())).toEqual({ size, whole: true, right: true });
    await eventually('first.closed', () => first.closed);
    const second = serve(new PatternSource(size));
    const session = openHttp2();
    expect(await drain(session.request({ ':path': BLOB }))).toEqual({ size, whole: true, right: true });
    await eventually('second.closed', () => second.closed);
    session.close();
    await eventually('all settled', () => quota.settled === 2);
    const reply = { order: { bytes: size, fetched: false }, sent: size, settled: true };
    expect(quota.replies).toEqual([reply, reply]);
  });

  test('of unknown length: chunked, and whole', async () => {
    serve(new PatternSource(300_000, { lengthKnown: false }));
    const answer = await pull();
    expect(answer.headers['transfer-encoding']).toBe('chunked');
    expect(await drain(answer)).toEqual({ size: 300_000, whole: true, right: true });
  });

  test('one after the other on a kept connection', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    for (let index = 0; index < 5; index++) {
      serve(new PatternSource(200_000 + index));
      const answer = await pull(agent);
      ports.add(answer.socket.localPort);
      expect((await drain(answer)).size).toBe(200_000 + index);
    }
    expect(ports.size).toBe(1);
    agent.destroy();
  });

  test('headers go out before the first byte is here', async () => {
    const source = serve(new PatternSource(10));
    const { promise, resolve } = Promise.withResolvers<void>();
    source.gate = () => promise;
    const answer = await pull();
    expect(answer.headers['content-length']).toBe('10');
    resolve();
    expect((await drain(answer)).size).toBe(10);
  });

  test('a pause of the source longer than the stall limit is no stall of the client', async () => {
    const source = serve(new PatternSource(400_000));
    let pulls = 0;
    source.gate = async () => {
      pulls += 1;
      if (pulls === 2) await new Promise((resolve) => setTimeout(resolve, 1200));
    };
    expect(await drain(await pull())).toEqual({ size: 400_000, whole: true, right: true });
  });
});

describe('bodies that cannot be finished', () => {
  const broken = () => new PatternSource(2 * MiB, { cutAt: MiB, error: new TruncatedError('gone') });

  test('HTTP/1.1: short, with an ordinary close, everything before it delivered', async () => {
    const source = serve(broken());
    const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
    let size = 0;
    socket.on('data', (chunk) => {
      size += chunk.length;
    });
    socket.write(`GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    // A reset would be an error event, and `once` would throw it.
    await once(socket, 'end');
    expect(size).toBeGreaterThan(MiB);
    expect(size).toBeLessThan(MiB + 1000);
    await eventually('source.closed', () => source.closed);
  });

  test('what fails before the first byte of a kept blob is told in words, and the connection goes on', async () => {
    const cause = new RegistryError('unavailable', { facts: { reason: 'no upstream' } });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const source = serve(
      new PatternSource(MiB, { cutAt: 0, error: new TruncatedError('gone', { cause }) }),
      {},
      'cache',
    );
    const refused = await pull(agent);
    expect(refused.statusCode).toBe(503);
    expect(JSON.parse((await readBounded(refused, 10_000)).toString())).toMatchObject({
      errors: [{ code: 'UNAVAILABLE' }],
    });
    await eventually('source.closed', () => source.closed);
    serve(new PatternSource(1000), {}, 'cache');
    expect(await drain(await pull(agent))).toEqual({ size: 1000, whole: true, right: true });
    agent.destroy();
  });

  test('HTTP/1.1 chunked: no last chunk', async () => {
    serve(new PatternSource(2 * MiB, { lengthKnown: false, cutAt: MiB, error: new TruncatedError('gone') }));
    expect(await drain(await pull())).toMatchObject({ size: MiB, whole: false });
  });

  test('HTTP/2: the stream is reset, the connection goes on', async () => {
    serve(broken());
    const session = openHttp2();
    expect(await drain(session.request({ ':path': BLOB }))).toMatchObject({ whole: false, right: true });
    serve(new PatternSource(1000));
    expect(await drain(session.request({ ':path': BLOB }))).toEqual({ size: 1000, whole: true, right: true });
    session.close();
  });

  test('a source that ends early or goes on too long never looks whole', async () => {
    serve(new PatternSource(MiB, { cutAt: 1000 }));
    expect((await drain(await pull())).whole).toBe(false);
    serve(new PatternSource(MiB, { lengthKnown: false }), { 'content-length': '1000' });
    const answer = await drain(await pull());
    expect(answer.size === 1000 || !answer.whole).toBe(true);
  });

  test('an unknown failure is no whole body either', async () => {
    serve(new PatternSource(MiB, { cutAt: 5000, error: new Error('EIO') }));
    expect(await drain(await pull())).toMatchObject({ size: 5000, whole: false });
  });
});

describe('clients', () => {
  test.each(['HTTP/1.1', 'HTTP/2'])('%s: one that leaves closes the source and aborts the pull', async (version) => {
    const source = serve(new PatternSource(512 * MiB));
    if (version === 'HTTP/1.1') {
      const answer = await pull();
      await once(answer, 'data');
      answer.destroy();
    } else {
      const session = openHttp2();
      const stream = session.request({ ':path': BLOB });
      await once(stream, 'data');
      stream.close(constants.NGHTTP2_CANCEL);
      await eventually('source.closed', () => source.closed);
      session.close();
    }
    await eventually('source.closed', () => source.closed);
    expect(bed.registry.pulls.at(-1)?.signal.aborted).toBe(true);
    expect(source.at).toBeLessThan(512 * MiB);
    await eventually('it is settled', () => quota.settled === 1);
    expect(quota.replies[0]?.order.bytes).toBe(512 * MiB);
    expect(quota.replies[0]?.sent).toBeLessThan(512 * MiB);
  });

  test('one that leaves before the core has answered aborts the pull', async () => {
    const { promise, resolve } = Promise.withResolvers<Reply>();
    bed.registry.answer = () => promise;
    const before = bed.registry.pulls.length;
    const request = get({
      host: '127.0.0.1',
      port: bed.httpsPort,
      path: BLOB,
      ca: bed.certificates.root,
      headers: { host: 'localhost' },
    });
    request.on('error', () => {});
    await eventually('bed.registry.pulls.length > before', () => bed.registry.pulls.length > before);
    request.destroy();
    await eventually(
      'bed.registry.pulls.at(-1)?.signal.aborted === true',
      () => bed.registry.pulls.at(-1)?.signal.aborted === true,
    );
    const source = new PatternSource(MiB);
    resolve({ status: 200, headers: {}, body: source, from: 'fill' });
    await eventually('source.closed', () => source.closed);
    expect(source.at).toBe(0);
  });

  test.each(['HTTP/1.1', 'HTTP/2'])(
    '%s: one that stops reading holds the source back, and is dropped',
    async (version) => {
      const source = serve(new PatternSource(512 * MiB));
      if (version === 'HTTP/1.1') {
        const socket = await tlsClient({ port: bed.httpsPort, ca: bed.certificates.root, servername: 'localhost' });
        socket.on('error', () => {});
        socket.write(`GET ${BLOB} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
        socket.pause();
        await eventually('source.closed', () => source.closed);
        socket.destroy();
      } else {
        const session = openHttp2();
        session.on('error', () => {});
        const stream = session.request({ ':path': BLOB });
        stream.on('error', () => {});
        stream.pause();
        await eventually('source.closed', () => source.closed);
        session.destroy();
      }
      // What the kernel's buffers and ours hold, no more.
      expect(source.at).toBeLessThan(32 * MiB);
      const metrics = await bed.metrics.text();
      expect(metrics).toContain('gateway_http_bodies_cut_total{reason="client stalled"}');
    },
  );

  test('one that reads slowly gets it all', async () => {
    const size = 24 * MiB;
    serve(new PatternSource(size));
    const answer = await pull();
    let seen = 0;
    const pauses = setInterval(() => answer.resume(), 150);
    answer.on('data', (chunk) => {
      seen += chunk.length;
      if (seen % (4 * MiB) < chunk.length) answer.pause();
    });
    await once(answer, 'end').finally(() => clearInterval(pauses));
    expect(seen).toBe(size);
  });

  test('fifty bodies at once, half of them paused: memory does not grow with their size', async () => {
    const agent = new Agent({ maxSockets: 100 });
    const sources: PatternSource[] = [];
    bed.registry.answer = () => {
      const source = new PatternSource(1024 * MiB);
      sources.push(source);
      return { status: 200, headers: { 'content-length': String(1024 * MiB) }, body: source, from: 'cache' };
    };
    const answers = await Promise.all(Array.from({ length: 50 }, () => pull(agent)));
    let read = 0;
    for (const [index, answer] of answers.entries()) {
      answer.on('error', () => {});
      if (index % 2 === 0) {
        answer.on('data', (chunk) => {
          read += chunk.length;
        });
      }
    }
    await eventually('read > 64 * MiB', () => read > 64 * MiB, 20_000);
    const early = process.memoryUsage().rss;
    await eventually('read > 256 * MiB', () => read > 256 * MiB, 25_000);
    const late = process.memoryUsage().rss;
    for (const answer of answers) answer.destroy();
    await eventually('sources.every((source) => source.closed)', () => sources.every((source) => source.closed));
    expect(late - early).toBeLessThan(64 * MiB);
    agent.destroy();
  });
});
