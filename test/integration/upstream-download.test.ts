import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { ByteSource } from '../../src/kit/byte-source.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import type { Digest } from '../../src/oci/names.ts';
import { eventually } from '../support/eventually.ts';
import type { Content } from '../support/fake-registry/index.ts';
import { FakeRegistry, type FakeRegistryOptions, generated, QUIRKS } from '../support/fake-registry/index.ts';
import type { LoggedRequest, RequestKind } from '../support/fake-registry/log.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { startUpstream, type TestUpstream, tagsRequest } from '../support/upstream.ts';

const MIB = 1024 * 1024;
const signal = new AbortController().signal;
const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  cleanups.push(() => fake.close());
  return fake;
}

function upstreamOf(endpoints: readonly string[], options: Parameters<typeof startUpstream>[1] = {}): TestUpstream {
  const upstream = startUpstream({ 'r.test': { endpoints } }, options);
  cleanups.push(() => upstream.close());
  return upstream;
}

function layer(size: number, ...fakes: FakeRegistry[]): Content {
  const content = generated(size, size);
  for (const fake of fakes) fake.repository('library/app').addBlob(content);
  return content;
}

const fetchInto = (upstream: TestUpstream, digest: string, sink: MemorySink, stop = signal) =>
  upstream.download({ registry: 'r.test', repository: 'library/app', digest: digest as Digest }, sink, stop);

async function downloads(upstream: TestUpstream, content: Content, sink = new MemorySink()): Promise<MemorySink> {
  await fetchInto(upstream, content.digest, sink);
  expect(sink.bytes.length).toBe(content.size);
  expect(sink.digest).toBe(content.digest);
  return sink;
}

async function failure(promise: Promise<unknown>): Promise<RegistryError> {
  const error = await promise.then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RegistryError);
  return error as RegistryError;
}

async function digestOf(source: ByteSource | undefined): Promise<string> {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(64 * 1024);
  for (let count = -1; count !== 0; ) {
    count = (await source?.pull(buffer)) ?? 0;
    hash.update(buffer.subarray(0, count));
  }
  await source?.close();
  return `sha256:${hash.digest('hex')}`;
}

describe('a download', () => {
  it('is one plain GET', async () => {
    const fake = await fakeRegistry();
    const content = layer(8 * MIB, fake);
    const sink = await downloads(upstreamOf([fake.url]), content);
    expect(sink.begun).toBe(content.size);
    expect(fake.log.count({ kind: 'blob' })).toBe(1);
    expect(fake.log.of({ kind: 'blob' })[0]?.range).toBeUndefined();
  });

  it('of no bytes is done', async () => {
    const fake = await fakeRegistry();
    await downloads(upstreamOf([fake.url]), layer(0, fake));
  });

  it('without a Content-Length is whole when the body ends', async () => {
    const fake = await fakeRegistry({ faults: () => ({ chunked: true }) });
    const sink = await downloads(upstreamOf([fake.url]), layer(3 * MIB, fake));
    expect(sink.begun).toBeUndefined();
  });

  it('fetches only what is not held', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const content = layer(8 * MIB, fake);
    const held = [
      { from: 0, to: 2 * MIB },
      { from: 3 * MIB, to: 5 * MIB },
    ];
    const sink = await downloads(upstreamOf([fake.url]), content, new MemorySink(held, content));
    expect(sink.written).toBe(4 * MIB);
    expect(fake.log.bytes({ kind: 'cdn' })).toBe(4 * MIB);
  });

  it('of what is held already learns the size and ends', async () => {
    const fake = await fakeRegistry();
    const content = layer(MIB, fake);
    const sink = await downloads(upstreamOf([fake.url]), content, new MemorySink([{ from: 0, to: MIB }], content));
    expect(sink.begun).toBe(MIB);
    expect(sink.written).toBe(0);
  });

  it('skips what is held where ranges are not known', async () => {
    const fake = await fakeRegistry({ refuseRange: 'ignore' });
    const content = layer(4 * MIB, fake);
    const held = [
      { from: MIB, to: 2 * MIB },
      { from: 3 * MIB, to: 3 * MIB + 10 },
    ];
    const sink = await downloads(upstreamOf([fake.url]), content, new MemorySink(held, content));
    expect(sink.written).toBe(3 * MIB - 10);
  });

  it('that is missing says so at once', async () => {
    const fake = await fakeRegistry();
    const error = await failure(fetchInto(upstreamOf([fake.url]), generated(1).digest, new MemorySink()));
    expect(error.code).toBe('BLOB_UNKNOWN');
  });

  it('from a registry that is off says so in words', async () => {
    const gone = await FakeRegistry.start();
    await gone.close();
    const error = await failure(fetchInto(upstreamOf([gone.url]), generated(1).digest, new MemorySink()));
    expect(error.status).toBe(502);
  });

  it('ends when its signal is aborted, and leaves no connection', async () => {
    const fake = await fakeRegistry({ bytesPerSecond: MIB });
    const content = layer(8 * MIB, fake);
    const stop = new AbortController();
    const sink = new MemorySink();
    const running = fetchInto(upstreamOf([fake.url]), content.digest, sink, stop.signal);
    await expect.poll(() => sink.written).toBeGreaterThan(0);
    const reason = new Error('closing');
    stop.abort(reason);
    await expect(running).rejects.toBe(reason);
    await expect.poll(() => fake.connections).toBe(0);
  });

  it('ends with the failure of its sink, as it is', async () => {
    const fake = await fakeRegistry();
    const content = layer(8 * MIB, fake);
    const full = new Error('ENOSPC');
    const sink = new MemorySink();
    sink.write = () => Promise.reject(full);
    await expect(fetchInto(upstreamOf([fake.url]), content.digest, sink)).rejects.toBe(full);
    expect(fake.log.count({ kind: 'blob' })).toBe(1);
  });

  it('waits for a slow sink', async () => {
    const fake = await fakeRegistry();
    const content = layer(16 * MIB, fake);
    const sink = new MemorySink();
    const { write } = sink;
    const held: (() => void)[] = [];
    let handed = 0;
    sink.write = async (offset, chunk) => {
      handed += chunk.length;
      await write.call(sink, offset, chunk);
      await new Promise<void>((resolve) => held.push(resolve));
    };
    const running = fetchInto(upstreamOf([fake.url]), content.digest, sink);
    await expect.poll(() => handed).toBeGreaterThan(0);
    // What the sink was handed stays put while it does not answer.
    const settled = () => new Promise((resolve) => setTimeout(resolve, 100));
    await settled();
    const before = handed;
    await settled();
    expect(handed).toBe(before);
    expect(handed).toBeLessThan(MIB);
    sink.write = write;
    for (const resolve of held.splice(0)) resolve();
    await running;
    expect(sink.digest).toBe(content.digest);
  });
});

describe('an answer that cannot be', () => {
  const nothing = { status: 200, headers: { 'content-length': '0' }, body: '' };

  it.each([
    ['no bytes', () => nothing],
    ['no bytes, after a part', ({ nth }: LoggedRequest) => (nth === 0 ? { resetAfter: MIB } : nothing)],
    ['no bytes without a length', () => ({ ...nothing, headers: { 'transfer-encoding': 'chunked' } })],
  ])('is refused: %s', async (_, faults) => {
    const fake = await fakeRegistry({ faults });
    const sink = new MemorySink();
    const error = await failure(
      fetchInto(upstreamOf([fake.url], { connections: 1 }), layer(3 * MIB, fake).digest, sink),
    );
    expect(error.kind).toBe('upstreamWrong');
    expect(sink.begun).not.toBe(0);
  });

  it('is refused where another size is expected, before the sink hears of it', async () => {
    const fake = await fakeRegistry({ faults: () => ({ sizeOff: 5 }) });
    const content = layer(MIB, fake);
    const sink = new MemorySink();
    sink.expectedSize = content.size;
    expect((await failure(fetchInto(upstreamOf([fake.url]), content.digest, sink))).kind).toBe('upstreamWrong');
    expect(sink.begun).toBeNull();
  });

  it('says no size: the one that is expected is told', async () => {
    const fake = await fakeRegistry({ faults: () => ({ chunked: true }) });
    const content = layer(3 * MIB, fake);
    const sink = new MemorySink();
    sink.expectedSize = content.size;
    await downloads(upstreamOf([fake.url]), content, sink);
    expect(sink.begun).toBe(content.size);
    expect(fake.log.of({ kind: 'blob' }).map(({ range }) => range)).toEqual([undefined]);
  });

  it('is not one whose bytes are intact, whatever an object store says of how it got them', async () => {
    const fake = await fakeRegistry({ faults: () => ({ contentEncoding: 'aws-chunked' }) });
    await downloads(upstreamOf([fake.url]), layer(MIB, fake));
    fake.faults = () => ({ contentEncoding: 'aws-chunked,gzip' });
    const error = await failure(fetchInto(upstreamOf([fake.url]), layer(MIB + 1, fake).digest, new MemorySink()));
    expect(error.kind).toBe('upstreamWrong');
  });

  it('is passed through and measured neither', async () => {
    const fake = await fakeRegistry({ faults: ({ method }) => (method === 'HEAD' ? nothing : undefined) });
    const content = layer(MIB, fake);
    const upstream = upstreamOf([fake.url]);
    const key = { registry: 'r.test', repository: 'library/app', digest: content.digest };
    expect(await upstream.statBlob(key, signal)).toEqual({ size: MIB });
    fake.faults = () => nothing;
    expect((await failure(upstream.statBlob(key, signal))).kind).toBe('upstreamWrong');
    expect((await failure(upstream.openBlob(key, null, signal))).kind).toBe('upstreamWrong');
    fake.faults = () => ({ status: 206, headers: { 'content-range': 'bytes 0-0/0' }, body: '' });
    expect((await failure(upstream.statBlob(key, signal))).kind).toBe('upstreamWrong');
    fake.faults = () => undefined;
    const empty = { ...key, digest: layer(0, fake).digest };
    expect(await upstream.statBlob(empty, signal)).toEqual({ size: 0 });
    expect((await upstream.openBlob(empty, null, signal)).size).toBe(0);
  });
});

describe('a request that is not answered', () => {
  it.each(['a download', 'a stream', 'the size'])('is sent once more beside, and the answer used: %s', async (what) => {
    const fake = await fakeRegistry({ faults: ({ nth }) => (nth === 0 ? { hang: true } : undefined) });
    const content = layer(MIB, fake);
    const upstream = upstreamOf([fake.url], { stallTimeout: 2_000 });
    const key = { registry: 'r.test', repository: 'library/app', digest: content.digest };
    if (what === 'a download') await downloads(upstream, content);
    else if (what === 'the size') expect(await upstream.statBlob(key, signal)).toEqual({ size: MIB });
    else {
      const { source, size } = await upstream.openBlob(key, null, signal);
      expect(size).toBe(MIB);
      await source.close();
    }
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
    await eventually('the first is given up', () => fake.log.all.every(({ done }) => done));
  });

  const key = { registry: 'r.test', repository: 'library/app' };
  const tag = { kind: 'tag', tag: 'latest' } as const;
  it.each<[string, RequestKind, (upstream: TestUpstream) => Promise<unknown>]>([
    ['a manifest', 'manifest', (up) => up.manifest(key, tag, { method: 'GET', accept: undefined, signal })],
    ['the HEAD of one', 'manifest', (up) => up.manifest(key, tag, { method: 'HEAD', accept: undefined, signal })],
    ['tags', 'tags', (up) => up.tags(key, tagsRequest(), signal)],
    ['referrers', 'referrers', (up) => up.referrers(key, generated(1).digest, new URLSearchParams(), signal)],
    ['a token', 'token', (up) => up.tags(key, tagsRequest(), signal)],
  ])('is sent once more beside also for %s', async (_, kind, ask) => {
    const lost = ({ kind: asked, nth }: LoggedRequest) => (asked === kind && nth === 0 ? { hang: true } : undefined);
    const fake = await fakeRegistry({ auth: { scheme: 'bearer' }, faults: lost });
    fake.repository('library/app').addImage('latest', ['layer']);
    expect(await ask(upstreamOf([fake.url], { stallTimeout: 2_000 }))).toBeTruthy();
    // The first of the others is refused, without a token.
    expect(fake.log.of({ kind }).filter(({ status }) => status !== 401)).toHaveLength(2);
    await eventually('the first is given up', () => fake.log.all.every(({ done }) => done));
  });

  it('has its time beside the first, where that one gives up meanwhile', async () => {
    const fake = await fakeRegistry({ faults: ({ nth }) => (nth === 0 ? { hang: true } : { delay: 1_000 }) });
    await downloads(upstreamOf([fake.url], { stallTimeout: 1_000 }), layer(MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
  });

  it('is asked anew again and again in the middle of a blob, so that a registry that is well again is noticed soon', async () => {
    // The stall timeout is longer than a test may take.
    const fake = await fakeRegistry({
      faults: ({ nth }) => (nth === 0 ? { resetAfter: MIB } : nth < 3 ? { hang: true } : undefined),
    });
    await downloads(upstreamOf([fake.url], { stallTimeout: 300_000, connections: 1 }), layer(3 * MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(4);
  });

  it('is waited for, where the one beside fails', async () => {
    const fake = await fakeRegistry({ faults: ({ nth }) => (nth === 0 ? { delay: 1_200 } : { refuse: true }) });
    await downloads(upstreamOf([fake.url], { stallTimeout: 2_000 }), layer(MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
  });
});

describe('a bad link', () => {
  it('that resets every connection is resumed where it broke', async () => {
    const fake = await fakeRegistry({
      ...QUIRKS.docker,
      faults: (request) => (request.kind === 'cdn' ? { resetAfter: MIB + request.nth * 100_000 } : undefined),
    });
    const content = layer(12 * MIB, fake);
    await downloads(upstreamOf([fake.url]), content);
    const parts = fake.log.of({ kind: 'cdn' });
    expect(parts.length).toBeGreaterThan(4);
    expect(parts.slice(1).every((request) => (request.range?.from ?? 0) > 0)).toBe(true);
  });

  it('that ends bodies early is resumed', async () => {
    const fake = await fakeRegistry({ faults: () => ({ endAfter: 700_000 }) });
    await downloads(upstreamOf([fake.url]), layer(4 * MIB, fake));
  });

  it('that stalls is left after the stall timeout', async () => {
    const fake = await fakeRegistry({
      faults: (request) => (request.nth % 2 === 0 ? { stallAfter: MIB } : undefined),
    });
    const started = performance.now();
    await downloads(upstreamOf([fake.url], { stallTimeout: 500, connections: 1 }), layer(4 * MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
    expect(performance.now() - started).toBeGreaterThan(450);
  });

  it('that refuses ranges is read again from the start, keeping what is held', async () => {
    const fake = await fakeRegistry({
      refuseRange: 'ignore',
      faults: (request) => (request.nth < 3 ? { resetAfter: (request.nth + 1) * MIB } : undefined),
    });
    const content = layer(6 * MIB, fake);
    const sink = await downloads(upstreamOf([fake.url]), content);
    expect(sink.written).toBe(content.size);
  });

  it('that breaks a body without a length is resumed too', async () => {
    const fake = await fakeRegistry({
      faults: (request) => (request.nth === 0 ? { chunked: true, resetAfter: MIB } : undefined),
    });
    await downloads(upstreamOf([fake.url]), layer(3 * MIB, fake));
  });

  it('asks for a new redirect when a signature has expired', async () => {
    const fake = await fakeRegistry({
      redirect: { to: 'signed', lifetime: 50, status: 307 },
      faults: (request) => (request.kind === 'cdn' && request.nth < 3 ? { resetAfter: MIB } : undefined),
    });
    await downloads(upstreamOf([fake.url]), layer(4 * MIB, fake));
    expect(fake.log.count({ kind: 'blob', status: 307 })).toBe(4);
  });

  it('asks for a new token when the old one is no longer taken', async () => {
    const fake = await fakeRegistry({ auth: { scheme: 'bearer' } });
    fake.faults = (request) => {
      if (request.kind !== 'blob' || request.headers.authorization === undefined || request.nth > 2) return undefined;
      // After this request has been let in.
      setImmediate(() => fake.auth.revoke());
      return { resetAfter: MIB };
    };
    await downloads(upstreamOf([fake.url]), layer(4 * MIB, fake));
    expect(fake.log.count({ kind: 'token' })).toBeGreaterThan(1);
  });

  it('gives up after many attempts without a byte, not before', async () => {
    let broken = 0;
    const fake = await fakeRegistry({
      faults: (request) => {
        if (request.nth === 0) return { resetAfter: MIB };
        broken++;
        return { status: 404 };
      },
    });
    const error = await failure(
      fetchInto(upstreamOf([fake.url], { connections: 1 }), layer(3 * MIB, fake).digest, new MemorySink()),
    );
    expect(error.code).toBe('BLOB_UNKNOWN');
    expect(broken).toBe(4);
  });

  it('never mixes in a blob of another size', async () => {
    const fake = await fakeRegistry({
      faults: (request) => (request.nth === 0 ? { resetAfter: MIB } : { sizeOff: 5 }),
    });
    const error = await failure(fetchInto(upstreamOf([fake.url]), layer(3 * MIB, fake).digest, new MemorySink()));
    expect(error.kind).toBe('upstreamWrong');
  });
});

describe('pieces', () => {
  const slow = { bytesPerSecond: MIB, redirect: { to: 'signed', lifetime: 60_000 } } as const;

  it('are fetched by several connections where one is slow, lowest first', async () => {
    const fake = await fakeRegistry(slow);
    const content = layer(12 * MIB, fake);
    let most = 0;
    const timer = setInterval(() => {
      most = Math.max(most, fake.log.of({ kind: 'cdn' }).filter((request) => !request.done).length);
    }, 20);
    const sink = await downloads(upstreamOf([fake.url], { connections: 4 }), content);
    clearInterval(timer);
    // The registry learns of a connection's end later than we do, so that each may seem to overlap with the next.
    expect(most).toBeGreaterThanOrEqual(4);
    expect(most).toBeLessThanOrEqual(2 * 4);
    expect(fake.log.of({ kind: 'cdn' })[0]?.range).toBeUndefined();
    const starts = fake.log
      .of({ kind: 'cdn' })
      .slice(1, 4)
      .map((request) => request.range?.from ?? 0);
    expect(starts).toEqual([...starts].sort((a, b) => a - b));
    expect(sink.written).toBe(content.size);
  });

  it('are not fetched with connections: 1', async () => {
    const fake = await fakeRegistry(slow);
    await downloads(upstreamOf([fake.url], { connections: 1 }), layer(4 * MIB, fake));
    expect(fake.log.count({ kind: 'cdn' })).toBe(1);
  });

  it('survive resets', async () => {
    const fake = await fakeRegistry({
      ...slow,
      faults: (request) => (request.kind === 'cdn' && request.nth % 2 === 1 ? { resetAfter: 300_000 } : undefined),
    });
    await downloads(upstreamOf([fake.url]), layer(8 * MIB, fake));
  });

  it.each([429, 403])('end where the host answers them with %i', async (status) => {
    let open = 0;
    const fake = await fakeRegistry({
      bytesPerSecond: 2 * MIB,
      faults: () => {
        open = fake.log.of({ kind: 'blob' }).filter((request) => !request.done).length;
        return open > 1 ? { status } : undefined;
      },
    });
    const upstream = upstreamOf([fake.url]);
    await downloads(upstream, layer(8 * MIB, fake));
    expect(fake.log.count({ status })).toBe(1);
    // The next download does not even try.
    fake.log.clear();
    await downloads(upstream, layer(6 * MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(1);
  });

  it('end where ranges are not honoured, and nothing is fetched twice by the one that goes on', async () => {
    const fake = await fakeRegistry({
      bytesPerSecond: 2 * MIB,
      faults: (request) => (request.range === undefined ? undefined : { ignoreRange: true }),
    });
    await downloads(upstreamOf([fake.url]), layer(7 * MIB, fake));
    const whole = fake.log.of({ kind: 'blob' }).filter((request) => request.sent === 7 * MIB);
    expect(whole.length).toBe(1);
  });
});

describe('several endpoints', () => {
  it.each([
    ['refuses connections', { refuse: true }],
    ['answers 500', { status: 500 }],
    ['answers 429 with Retry-After', { status: 429, headers: { 'retry-after': '60' } }],
    ['has no such image', { status: 404 }],
  ])('the second serves when the first %s, and the first again when it has recovered', async (_, fault) => {
    const first = await fakeRegistry({ faults: () => fault });
    const second = await fakeRegistry();
    const content = layer(MIB, first, second);
    const upstream = upstreamOf([first.url, second.url]);
    for (let i = 0; i < 5; i++) await downloads(upstream, content);
    expect(second.log.count({ kind: 'blob', status: 200 })).toBe(5);
    first.faults = () => undefined;
    if ('status' in fault && fault.status === 429) return;
    await expect
      .poll(
        async () => {
          await downloads(upstream, content);
          return first.log.count({ kind: 'blob', status: 200 });
        },
        { timeout: 10_000, interval: 200 },
      )
      .toBeGreaterThan(0);
    expect(upstream.health('r.test')[0]).toMatchObject({ state: 'closed', failures: 0 });
  });

  it('are asked for a repository in another order while the first fails for it, and say what fails', async () => {
    const first = await fakeRegistry({ faults: () => ({ status: 500 }) });
    const second = await fakeRegistry();
    const content = layer(1000, first, second);
    const upstream = upstreamOf([first.url, second.url]);
    for (let i = 0; i < 10; i++) await downloads(upstream, content);
    expect(first.log.count()).toBeLessThan(6);
    const [state] = upstream.health('r.test');
    expect(state).toMatchObject({ url: first.url, state: 'closed', retryAt: null });
    expect(state?.lastError).toMatch(/^library\/app: .* answered 500$/);
    expect(state?.failing.map(({ repository }) => repository)).toEqual(['library/app']);
  });

  it('goes on at the second when the first stalls in the middle', async () => {
    const first = await fakeRegistry({
      faults: (request) => (request.nth === 0 ? { stallAfter: MIB } : { hang: true }),
    });
    const second = await fakeRegistry();
    const content = layer(4 * MIB, first, second);
    await downloads(upstreamOf([first.url, second.url], { stallTimeout: 400, connections: 1 }), content);
    expect(second.log.of({ kind: 'blob' })[0]?.range?.from).toBe(MIB);
    expect(first.log.count({ kind: 'blob' })).toBe(1);
  });

  it('never dresses a failure up as 404', async () => {
    const first = await fakeRegistry();
    const second = await fakeRegistry({ faults: () => ({ status: 500 }) });
    const error = await failure(fetchInto(upstreamOf([first.url, second.url]), generated(5).digest, new MemorySink()));
    expect(error.status).toBe(502);
  });
});

describe('more downloads than permits', () => {
  /** All that the pool of downloads has. */
  const MANY = 128;

  it('let another registry begin: the slowest rests, and goes on where it stopped', async () => {
    const dripping = await fakeRegistry({ bytesPerSecond: 20_000 });
    const good = await fakeRegistry();
    const upstream = startUpstream({
      'evil.test': { endpoints: [dripping.url] },
      'good.test': { endpoints: [good.url] },
    });
    cleanups.push(() => upstream.close());
    const drip = dripping.repository('library/app').addBlob(generated(MIB, 'drip'));
    const stop = new AbortController();
    const sinks = Array.from({ length: MANY }, () => new MemorySink());
    const slow = sinks.map((sink, i) =>
      upstream
        .download({ registry: 'evil.test', repository: `app${i % 2}`, digest: drip.digest }, sink, stop.signal)
        .catch((error: unknown) => error),
    );
    for (const i of [0, 1]) dripping.repository(`app${i}`).addBlob(drip);
    await eventually('all permits are taken', () => sinks.every(({ written }) => written > 0));
    const before = dripping.log.count({ kind: 'blob' });
    const content = good.repository('library/app').addBlob(generated(4 * MIB, 'good'));
    const sink = new MemorySink();
    await upstream.download({ registry: 'good.test', repository: 'library/app', digest: content.digest }, sink, signal);
    expect(sink.digest).toBe(content.digest);
    await eventually('whoever rested goes on', () => dripping.log.count({ kind: 'blob' }) > before);
    const [resumed] = dripping.log.of({ kind: 'blob' }).slice(before);
    expect(resumed?.range?.from).toBeGreaterThan(0);
    stop.abort(new Error('enough'));
    for (const ended of await Promise.all(slow)) expect(ended).toMatchObject({ message: 'enough' });
  });

  it('of what passes through: the one whose client does not read breaks off, and is taken up when it reads on', async () => {
    const fake = await fakeRegistry();
    const good = await fakeRegistry();
    const upstream = startUpstream({ 'evil.test': { endpoints: [fake.url] }, 'good.test': { endpoints: [good.url] } });
    cleanups.push(() => upstream.close());
    const content = generated(8 * MIB, 'passing');
    for (const i of [0, 1]) fake.repository(`app${i}`).addBlob(content);
    good.repository('app0').addBlob(content);
    const open = (registry: string, i: number) =>
      upstream.openBlob({ registry, repository: `app${i % 2}`, digest: content.digest }, null, signal);
    // As many as the pool of what passes through has permits.
    const lazy = await Promise.all(Array.from({ length: 64 }, (_, i) => open('evil.test', i)));
    const honest = await open('good.test', 0);
    expect(await digestOf(honest.source)).toBe(content.digest);
    for (const { source } of lazy.slice(1)) await source.close();
    expect(await digestOf(lazy[0]?.source)).toBe(content.digest);
  });
});

describe('many at once', () => {
  it('share what there is and all come through', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const contents = Array.from({ length: 40 }, (_, i) => layer(MIB + i, fake));
    const upstream = upstreamOf([fake.url]);
    await Promise.all(contents.map((content) => downloads(upstream, content)));
    expect(fake.log.count({ kind: 'cdn', status: 200 })).toBe(40);
  });
});
