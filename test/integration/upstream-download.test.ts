import { describe, expect, it } from 'vitest';
import { downloads, failure, fakeRegistry, fetchInto, layer, MIB, signal, upstreamOf } from '../support/downloads.ts';
import { FakeRegistry, generated, QUIRKS } from '../support/fake-registry/index.ts';
import type { LoggedRequest } from '../support/fake-registry/log.ts';
import { MemorySink } from '../support/memory-sink.ts';

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
    await downloads(upstreamOf([fake.url]), layer(MIB + 1, fake));
    const sized = new MemorySink();
    sized.expectedSize = MIB + 3;
    const error = await failure(fetchInto(upstreamOf([fake.url]), layer(MIB + 2, fake).digest, sized));
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
