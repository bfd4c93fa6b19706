import { afterEach, describe, expect, it } from 'vitest';
import { Askers } from '../../src/kit/askers.ts';
import type { Digest } from '../../src/oci/names.ts';
import type { BlobSink } from '../../src/oci/transfer.ts';
import { POOLS } from '../../src/upstream/registry-upstream.ts';
import { eventually } from '../support/eventually.ts';
import type { Content } from '../support/fake-registry/index.ts';
import { FakeRegistry, type FakeRegistryOptions, generated, QUIRKS } from '../support/fake-registry/index.ts';
import { ReadingSink } from '../support/reading-sink.ts';
import { startUpstream, type TestUpstream } from '../support/upstream.ts';

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

function upstreamOf(fake: FakeRegistry, options: Parameters<typeof startUpstream>[1] = {}): TestUpstream {
  const upstream = startUpstream({ 'r.test': { endpoints: [fake.url] } }, options);
  cleanups.push(() => upstream.close());
  return upstream;
}

function layer(size: number, fake: FakeRegistry): Content {
  return fake.repository('library/app').addBlob(generated(size, size));
}

const fetchInto = (upstream: TestUpstream, digest: string, sink: BlobSink, stop = signal) =>
  upstream.download({ registry: 'r.test', repository: 'library/app', digest: digest as Digest }, sink, stop);

/** Downloads as often as there is something wanted, as a fill does, until `readers` are done. */
async function serve(upstream: TestUpstream, content: Content, sink: ReadingSink, readers: Promise<unknown>) {
  let reading = true;
  const done = readers.finally(() => {
    reading = false;
    sink.changed();
  });
  while (reading || sink.wantsAll) {
    await fetchInto(upstream, content.digest, sink);
    if (sink.present.bytes === content.size) break;
    // Readers that are served ask for more, if they do, in the next turn.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await done;
}

/** Runs the tasks, so many at a time. */
async function atATime(count: number, tasks: readonly (() => Promise<void>)[]): Promise<void> {
  const left = [...tasks];
  const worker = async (): Promise<void> => {
    for (let task = left.shift(); task !== undefined; task = left.shift()) await task();
  };
  await Promise.all(Array.from({ length: count }, worker));
}

function parts(size: number, count: number): { from: number; to: number }[] {
  const length = size / count;
  return Array.from({ length: count }, (_, i) => ({ from: i * length, to: (i + 1) * length }));
}

describe('what readers wish for', () => {
  it('is fetched, and nothing else; the size is told by the first response', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const content = layer(64 * MIB, fake);
    const sink = new ReadingSink(content.size);
    await serve(upstreamOf(fake), content, sink, Promise.all([sink.read(60 * MIB, 61 * MIB), sink.read(5, 10)]));
    expect(sink.begun).toBe(content.size);
    expect(sink.present.list()).toEqual([
      { from: 5, to: 10 },
      { from: 60 * MIB, to: 61 * MIB },
    ]);
    expect(fake.log.bytes({ kind: 'cdn' })).toBe(MIB + 5);
  });

  it('is nothing: the download ends without a request', async () => {
    const fake = await fakeRegistry();
    await fetchInto(upstreamOf(fake), layer(MIB, fake).digest, new ReadingSink(MIB));
    expect(fake.log.count()).toBe(0);
  });

  it('is all of it: one plain GET', async () => {
    const fake = await fakeRegistry();
    const content = layer(16 * MIB, fake);
    const sink = new ReadingSink(content.size);
    sink.wantsAll = true;
    await fetchInto(upstreamOf(fake), content.digest, sink);
    expect(sink.digest).toBe(content.digest);
    expect(fake.log.of({ kind: 'blob' }).map(({ range }) => range)).toEqual([undefined]);
  });

  it('lies behind the end: the size is told, and nothing is fetched', async () => {
    const fake = await fakeRegistry();
    const content = layer(MIB, fake);
    const sink = new ReadingSink(4 * MIB);
    void sink.read(3 * MIB, 4 * MIB);
    await fetchInto(upstreamOf(fake), content.digest, sink);
    expect(sink.begun).toBe(MIB);
    expect(sink.writes).toEqual([]);
  });

  it.each([4, 1])(
    'far behind what a slow stream brings comes at once, over %i connections at most',
    async (connections) => {
      const fake = await fakeRegistry({
        faults: ({ range }) => (range === undefined ? { bytesPerSecond: 2 * MIB } : {}),
      });
      const content = layer(40 * MIB, fake);
      const sink = new ReadingSink(content.size);
      sink.wantsAll = true;
      const running = fetchInto(upstreamOf(fake, { connections }), content.digest, sink);
      await eventually('bytes came', () => sink.writes.length > 0);
      const most = { now: 0 };
      const timer = setInterval(() => {
        most.now = Math.max(most.now, fake.log.of({ kind: 'blob' }).filter(({ done }) => !done).length);
      }, 5);
      await sink.read(32 * MIB, 33 * MIB);
      clearInterval(timer);
      expect(sink.present.endFrom(0)).toBeLessThan(32 * MIB);
      await running;
      expect(sink.digest).toBe(content.digest);
      // The registry learns later than we do that a body was given up.
      expect(most.now).toBeLessThanOrEqual(2);
      expect(fake.log.bytes({ kind: 'blob' })).toBeLessThan(1.5 * content.size);
    },
  );

  it('comes in order from an upstream that knows no ranges, once', async () => {
    const fake = await fakeRegistry({ refuseRange: 'ignore', bytesPerSecond: 20 * MIB });
    const content = layer(24 * MIB, fake);
    const sink = new ReadingSink(content.size);
    const readers = Promise.all([sink.read(20 * MIB, 21 * MIB), sink.read(2 * MIB, 3 * MIB)]);
    await serve(upstreamOf(fake), content, sink, readers);
    expect(fake.log.count({ kind: 'blob' })).toBe(1);
  });

  it('comes in order from an upstream that says that it serves ranges, and does not', async () => {
    const fake = await fakeRegistry({
      bytesPerSecond: 8 * MIB,
      faults: (request) => (request.range === undefined ? undefined : { ignoreRange: true }),
    });
    const content = layer(24 * MIB, fake);
    for (const connections of [4, 1]) {
      fake.log.clear();
      const sink = new ReadingSink(content.size);
      sink.wantsAll = true;
      const running = fetchInto(upstreamOf(fake, { connections }), content.digest, sink);
      await eventually('bytes came', () => sink.writes.length > 0);
      await sink.read(20 * MIB, 21 * MIB);
      await running;
      expect(sink.digest).toBe(content.digest);
      expect(fake.log.count({ kind: 'blob' })).toBeLessThanOrEqual(2);
    }
  });

  it('survives resets, stalls and an upstream that refuses several connections', async () => {
    const fake = await fakeRegistry({
      ...QUIRKS.docker,
      faults: (request) => {
        if (request.kind !== 'cdn') return undefined;
        const open = fake.log.of({ kind: 'cdn' }).filter(({ done }) => !done).length;
        if (open > 3) return { status: 429 };
        return [{ resetAfter: 300_000 }, { stallAfter: 100_000 }, {}, {}][request.nth % 4];
      },
    });
    const content = layer(32 * MIB, fake);
    const sink = new ReadingSink(content.size);
    const tasks = parts(content.size, 16).map(
      ({ from, to }) =>
        () =>
          sink.read(from, to),
    );
    await serve(upstreamOf(fake, { stallTimeout: 500 }), content, sink, atATime(8, tasks));
    expect(sink.digest).toBe(content.digest);
  });

  it('is forgotten at once when the signal is aborted', async () => {
    const fake = await fakeRegistry({ bytesPerSecond: MIB });
    const content = layer(64 * MIB, fake);
    const sink = new ReadingSink(content.size);
    for (const { from, to } of parts(content.size, 8)) void sink.read(from, to);
    const stop = new AbortController();
    const running = fetchInto(upstreamOf(fake), content.digest, sink, stop.signal);
    await eventually('several connections', () => fake.connections > 2);
    const reason = new Error('closing');
    stop.abort(reason);
    await expect(running).rejects.toBe(reason);
    await eventually('no connection is left', () => fake.connections === 0);
  });
});

describe('the bytes that the upstream sends', () => {
  const SIZE = 256 * MIB;

  it.each([
    ['8 MiB pieces, twenty at a time', 32, 20, true],
    ['sixteen parts at a time', 16, 16, true],
    ['sixteen parts at a time, of which no more is wanted', 16, 16, false],
  ])('are hardly more than the blob: %s', async (_, count, together, wantsAll) => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const content = layer(SIZE, fake);
    const sink = new ReadingSink(SIZE);
    sink.wantsAll = wantsAll;
    const tasks = parts(SIZE, count).map(
      ({ from, to }) =>
        () =>
          sink.read(from, to),
    );
    await serve(upstreamOf(fake), content, sink, atATime(together, tasks));
    expect(sink.digest).toBe(content.digest);
    expect(fake.log.bytes({ kind: 'cdn' })).toBeLessThan(1.05 * SIZE);
    // Connections are used again.
    expect(fake.accepted).toBeLessThan(20);
  });

  it('are hardly more than the blob where it began as one plain GET', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const content = layer(SIZE, fake);
    const sink = new ReadingSink(SIZE);
    sink.wantsAll = true;
    const tasks = parts(SIZE, 32).map(
      ({ from, to }) =>
        () =>
          sink.read(from, to),
    );
    const begin = sink.begin.bind(sink);
    let reading: Promise<void> | undefined;
    sink.begin = (size) => {
      begin(size);
      reading ??= atATime(20, tasks);
    };
    await fetchInto(upstreamOf(fake), content.digest, sink);
    await reading;
    expect(sink.digest).toBe(content.digest);
    expect(fake.log.of({ kind: 'cdn' })[0]?.range).toBeUndefined();
    expect(fake.log.bytes({ kind: 'cdn' })).toBeLessThan(1.05 * SIZE);
  });

  it('are hardly more than what is asked for in five hundred small ranges', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const content = layer(SIZE, fake);
    const sink = new ReadingSink(SIZE);
    const asked = Array.from({ length: 500 }, (_, i) => ({
      from: ((i * 7919) % 500) * 500_000,
      length: 20_000 + i * 100,
    }));
    const tasks = asked.map(
      ({ from, length }) =>
        () =>
          sink.read(from, from + length),
    );
    await serve(upstreamOf(fake), content, sink, atATime(10, tasks));
    for (const { from, length } of asked) expect(sink.present.endFrom(from)).toBeGreaterThanOrEqual(from + length);
    const total = asked.reduce((sum, { length }) => sum + length, 0);
    expect(fake.log.bytes({ kind: 'cdn' })).toBeLessThan(1.05 * total);
    expect(fake.accepted).toBeLessThan(20);
  });
});

describe('connections for readers that wait', () => {
  /** Far enough apart that none is served by what another one is brought. */
  const APART = 2 * MIB;
  const READERS = 24;

  /** Bodies that begin and do not go on. */
  const stalling = (fake: FakeRegistry, { digest }: Content) =>
    fake.log.of({ method: 'GET', kind: 'blob', reference: digest }).filter(({ done }) => !done).length;

  function readAll(sink: ReadingSink): void {
    for (let i = 0; i < READERS; i++) void sink.read(i * APART, i * APART + APART / 2);
  }

  it('are shared with other blobs: two that have all of them leave a third its part', async () => {
    const fake = await fakeRegistry({ faults: () => ({ stallAfter: 1 }) });
    const segment = { permits: 6, perGroup: 6, perAsker: 6, perItem: 6, safeFor: 100, turn: 60_000 };
    const options = { connections: 16, stallTimeout: 120_000, limits: { pools: { ...POOLS, segment } } };
    const upstream = upstreamOf(fake, options);
    const stop = new AbortController();
    const start = (size: number, client: string): Content => {
      const content = layer(size, fake);
      const sink = new ReadingSink(size);
      readAll(sink);
      const key = { registry: 'r.test', repository: 'library/app', digest: content.digest as Digest };
      upstream.download(key, sink, stop.signal, new Askers(client)).catch(() => {});
      return content;
    };
    const size = READERS * APART;
    const [one, other] = [start(size, 'one'), start(size + 1, 'other')];
    // Each blob's first connection takes no permit of these.
    const all = 2 + segment.permits;
    await eventually('they have all', () => stalling(fake, one) + stalling(fake, other) === all);
    const third = start(size + 2, 'third');
    await eventually('the third has its part', () => stalling(fake, third) === 1 + segment.permits / 3);
    stop.abort(new Error('seen enough'));
  });
});
