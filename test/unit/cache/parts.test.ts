import { afterEach, describe, expect, it } from 'vitest';
import type { Fetch, FillOptions } from '../../../src/cache/blob-cache.ts';
import { IntervalSet } from '../../../src/kit/interval-set.ts';
import type { BlobSink } from '../../../src/oci/transfer.ts';
import {
  type Content,
  DrivenFetch,
  endRig,
  MIB,
  makeContent,
  makeRig,
  type Rig,
  type RigOptions,
  readAll,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';

let rig: Rig;
afterEach(() => endRig(rig));

const SIZE = 100_000;
const start = async (options: RigOptions = {}): Promise<Content> => {
  rig = await makeRig(options);
  return makeContent(SIZE);
};

/** A download that goes by the sink's wishes, as the upstream's does; counts what it brings. */
class WishedFetch {
  readonly #content: Content;
  bytes = 0;
  calls = 0;

  constructor(content: Content) {
    this.#content = content;
  }

  readonly fetch: Fetch = async (sink: BlobSink, signal) => {
    this.calls++;
    const { bytes } = this.#content;
    const missing = IntervalSet.complement(sink.held);
    for (let wish = sink.wishes?.next(missing); wish != null; wish = sink.wishes?.next(missing)) {
      signal.throwIfAborted();
      sink.begin(bytes.length);
      missing.remove(bytes.length);
      const { from } = wish;
      const to = Math.min(wish.to, missing.endFrom(from), from + 10_000);
      if (to <= from) continue;
      await sink.write(from, Buffer.from(bytes.subarray(from, to)));
      this.bytes += to - from;
      missing.remove(from, to);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
}

async function read(
  content: Content,
  fetch: Fetch,
  from: number,
  to: number,
  options: FillOptions = {},
): Promise<void> {
  const part = { from, to, openEnded: false };
  const handle = rig.cache.growing(content.key) ?? rig.cache.fill(content.key, fetch, { part, ...options });
  await handle.size();
  const bytes = await readAll(handle.open({ from, to }));
  expect(bytes.equals(content.bytes.subarray(from, to))).toBe(true);
  handle.release();
}

const kept = ({ digest }: Content) => eventually('it is kept', () => rig.index.blob(digest) !== null);

describe('a fill begun by parts', () => {
  it('fetches what is asked for and rests; the next part goes on, and what is there costs nothing', async () => {
    const content = await start();
    const wished = new WishedFetch(content);
    await read(content, wished.fetch, 50_000, 60_000);
    await read(content, wished.fetch, 0, 5_000);
    await read(content, wished.fetch, 52_000, 58_000);
    expect(wished.bytes).toBe(15_000);
    await eventually('it rests', () => rig.cache.admin.stats().fills === 0);
    expect(rig.index.blob(content.digest)).toBeNull();
  });

  it('gives the end of it, too: only a reply that carries all of it waits for the digest', async () => {
    const content = await start();
    const wished = new WishedFetch(content);
    await read(content, wished.fetch, SIZE - 100, SIZE);
    expect(wished.bytes).toBe(100);
  });

  it('fetches the rest once half was asked for', async () => {
    const content = await start();
    const wished = new WishedFetch(content);
    await read(content, wished.fetch, 0, 30_000);
    await read(content, wished.fetch, 70_000, 90_000);
    await kept(content);
    expect(wished.bytes).toBe(SIZE);
  });

  it('fetches the rest for a reader of all of it', async () => {
    const content = await start();
    const wished = new WishedFetch(content);
    await read(content, wished.fetch, 50_000, 60_000);
    const handle = rig.cache.growing(content.key)!;
    expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
    handle.release();
    await kept(content);
    expect(wished.bytes).toBe(SIZE);
  });

  it('fetches the rest when nothing else is fetched for a while', async () => {
    const content = await start({ limits: { linger: 20 } });
    const wished = new WishedFetch(content);
    await read(content, wished.fetch, 50_000, 60_000);
    await kept(content);
    expect(wished.bytes).toBe(SIZE);
  });

  it('ends, its parts on disk, while others are fetched; the next one asks the upstream for nothing that is there', async () => {
    const content = await start({ limits: { linger: 20, tail: 1_000 } });
    const other = makeContent(SIZE);
    const busy = rig.cache.fill(other.key, new DrivenFetch().fetch);
    const wished = new WishedFetch(content);
    await read(content, wished.fetch, 50_000, 60_000);
    await eventually('its parts are a partial file', () => rig.cache.admin.stats().partialBytes === 10_000);

    const again = new WishedFetch(content);
    await read(content, again.fetch, 51_000, 59_000, { known: true });
    expect(again.calls).toBe(0);
    await read(content, again.fetch, 60_000, 61_000);
    expect(again.bytes).toBe(1_000);
    busy.release();
  });

  it('is not promised the room of the whole: what is only announced keeps nobody out', async () => {
    rig = await makeRig({ maxSize: 64 * MIB });
    for (const content of [makeContent(10), makeContent(20)]) {
      const driven = new DrivenFetch();
      const handle = rig.cache.fill(content.key, driven.fetch, { part: { from: 0, to: 1, openEnded: false } });
      (await driven.sink()).begin(60 * MIB);
      expect(await handle.size()).toBe(60 * MIB);
      await (await driven.sink()).write(0, Buffer.alloc(1));
      await readAll(handle.open({ from: 0, to: 1 }));
      handle.release();
    }
  });
});

describe('a fill that its readers have left', () => {
  const leave = async (content: Content, mayFetch: boolean): Promise<WishedFetch> => {
    rig = await makeRig({ clients: { fill: () => null, mayFetch: () => mayFetch } });
    const wished = new WishedFetch(content);
    const handle = rig.cache.fill(content.key, wished.fetch, { client: '192.0.2.1' });
    const source = handle.open();
    await source.pull(Buffer.alloc(10));
    await source.close();
    handle.release();
    return wished;
  };

  it('goes on within what its client is allowed', async () => {
    const content = makeContent(SIZE);
    await leave(content, true);
    await kept(content);
  });

  it('rests beyond it; what it has is there for the next', async () => {
    // So large that its reader leaves long before its end.
    const content = makeContent(20 * SIZE);
    const wished = await leave(content, false);
    await eventually('it has ended', () => rig.cache.admin.stats().partials === 1);
    expect(wished.bytes).toBeLessThan(content.bytes.length);
    const again = new WishedFetch(content);
    const handle = rig.cache.fill(content.key, again.fetch);
    expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
    handle.release();
    await kept(content);
    expect(again.bytes).toBeLessThan(content.bytes.length);
    expect(await rig.metrics.total('cache_fills_total', { outcome: 'rested' })).toBe(1);
  });
});
