import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { Quotas } from '../../src/access/quotas.ts';
import type { Reply } from '../../src/proxy/reply.ts';
import { MemoryCounterStore } from '../support/access-stores.ts';
import { type EdgeBed, PatternSource, startEdgeBed } from '../support/edge-bed.ts';
import { eventually } from '../support/eventually.ts';

const MIB = 1024 * 1024;
const BLOB = `/v2/app/blobs/sha256:${'a'.repeat(64)}`;

const clocks = { now: () => Date.UTC(2026, 10, 22, 23), monotonic: () => 0 };

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly bytes: number;
  readonly text: string;
  readonly whole: boolean;
}

let session: ClientHttp2Session | null = null;
afterEach(() => session?.destroy());

/** An edge whose only client may have so many bytes, and a connection to it. */
async function start(bytesPerDay: number | null, bytesPerMonth: number | null = null): Promise<[EdgeBed, Quotas]> {
  const quota = await Quotas.open({ bytesPerDay, bytesPerMonth, store: new MemoryCounterStore(), clocks });
  const check = () => {
    quota.check('192.0.2.1');
    return { user: null, authenticated: false, known: false, client: '192.0.2.1' };
  };
  const bed = await startEdgeBed({ access: { check, quota } });
  onTestFinished(() => bed.stop());
  session = connectHttp2(`https://127.0.0.1:${bed.httpsPort}`, { ca: bed.certificates.root });
  return [bed, quota];
}

function ask(method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const stream = session?.request({ ':path': BLOB, ':method': method });
    if (stream === undefined) throw new Error('no session');
    let headers: Record<string, unknown> = {};
    const chunks: Buffer[] = [];
    let error: Error | null = null;
    stream.once('response', (received) => {
      headers = received;
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.once('error', (reason) => {
      error = reason;
    });
    stream.once('close', () => {
      const body = Buffer.concat(chunks);
      const status = Number(headers[':status']);
      if (Number.isNaN(status)) reject(error ?? new Error('no answer'));
      else resolve({ status, headers, bytes: body.length, text: body.toString(), whole: error === null });
    });
    stream.end();
  });
}

/** What the registry answers with from now on. The sources that were made. */
function serve(bed: EdgeBed, size: number, options: { lengthKnown?: boolean; from?: Reply['from'] } = {}) {
  const made: PatternSource[] = [];
  bed.registry.answer = (): Reply => {
    const body = new PatternSource(size, options);
    made.push(body);
    const length = options.lengthKnown === false ? {} : { 'content-length': String(size) };
    return { status: 200, headers: length, body, from: options.from ?? 'cache' };
  };
  return made;
}

describe('a quota', () => {
  test('holds for pulls at the same time: what does not fit is refused at once, in words', async () => {
    const [bed] = await start(10 * MIB);
    const sources = serve(bed, 3 * MIB);
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask()));
    const served = answers.filter(({ status }) => status === 200);
    expect(served.map(({ bytes, whole }) => ({ bytes, whole }))).toEqual(
      Array.from({ length: 3 }, () => ({ bytes: 3 * MIB, whole: true })),
    );
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused).toHaveLength(5);
    for (const { headers, text } of refused) {
      expect(headers['retry-after']).toBe('3600');
      const [{ code, message }] = JSON.parse(text).errors;
      expect(code).toBe('TOOMANYREQUESTS');
      expect(message).toContain(`${10 * MIB} bytes a day`);
      expect(message).toContain(`${MIB} of them are left`);
      expect(message).toContain('2026-11-23T00:00:00.000Z');
    }
    expect(sources.every(({ closed }) => closed)).toBe(true);
  });

  test('is what a manifest counts for, too', async () => {
    const [bed] = await start(10);
    bed.registry.answer = () => ({ status: 200, headers: {}, body: Buffer.from('12345'), from: 'cache' });
    expect((await ask()).status).toBe(200);
    expect((await ask()).text).toBe('12345');
    expect((await ask()).status).toBe(429);
  });

  test('sets nothing aside for answers without a body', async () => {
    const [bed] = await start(10 * MIB);
    serve(bed, 11 * MIB);
    expect((await ask('HEAD')).status).toBe(200);
    expect((await ask()).status).toBe(429);
    bed.registry.answer = () => ({ status: 304, headers: {}, body: null, from: 'cache' });
    expect((await ask()).status).toBe(304);
    serve(bed, 10 * MIB);
    expect(await ask()).toMatchObject({ status: 200, bytes: 10 * MIB, whole: true });
  });

  test('cuts a body of unknown length where nothing is left, and takes nothing that was not sent', async () => {
    const [bed] = await start(3 * MIB + 5);
    serve(bed, 2 * MIB, { lengthKnown: false });
    expect(await ask()).toMatchObject({ status: 200, bytes: 2 * MIB, whole: true });
    const source = serve(bed, 20 * MIB, { lengthKnown: false });
    expect(await ask()).toMatchObject({ status: 200, bytes: MIB + 5, whole: false });
    await eventually('the source is closed', () => source[0]?.closed === true);
    expect(await ask()).toMatchObject({ status: 429 });
  });

  test('lets a body of unknown length end where the quota ends', async () => {
    const [bed] = await start(3 * MIB);
    serve(bed, 3 * MIB, { lengthKnown: false });
    expect(await ask()).toMatchObject({ status: 200, bytes: 3 * MIB, whole: true });
  });

  test('counts what passes through as sent and as fetched', async () => {
    const [bed] = await start(null, 5 * MIB);
    serve(bed, 2 * MIB, { from: 'upstream' });
    expect((await ask()).bytes).toBe(2 * MIB);
    expect((await ask()).status).toBe(429);
    serve(bed, MIB);
    expect((await ask()).status).toBe(200);
  });

  test('gives back what a client that left was not sent', async () => {
    const [bed, quota] = await start(100 * MIB);
    const sources = serve(bed, 100 * MIB);
    const stream = session?.request({ ':path': BLOB });
    await new Promise((resolve) => stream?.once('data', resolve));
    expect(() => quota.reserve('192.0.2.1', { bytes: 1, fetched: false })).toThrow('0 of them are left');
    stream?.close(constants.NGHTTP2_CANCEL);
    await eventually('the source is closed', () => sources[0]?.closed === true);
    await eventually('the rest is there again', () => {
      try {
        quota.reserve('192.0.2.1', { bytes: 50 * MIB, fetched: false });
        return true;
      } catch {
        return false;
      }
    });
  });
});
