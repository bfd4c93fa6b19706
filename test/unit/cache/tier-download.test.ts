import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { download } from '../../../src/cache/tier-download.ts';
import type { ByteSource } from '../../../src/kit/byte-source.ts';
import type { Extent } from '../../../src/kit/interval-set.ts';
import type { BlobSink } from '../../../src/oci/transfer.ts';

const MIB = 1024 * 1024;

/** What a store is asked for, and how it answers. */
class Request implements ByteSource {
  readonly length: number;
  readonly extent: Extent;
  readonly #pace: (request: Request) => Promise<void>;
  given = 0;
  pulled = false;
  closed = 0;

  constructor(extent: Extent, pace: (request: Request) => Promise<void>) {
    this.extent = extent;
    this.length = extent.to - extent.from;
    this.#pace = pace;
  }

  async pull(into: Uint8Array): Promise<number> {
    this.pulled = true;
    await this.#pace(this);
    const count = Math.min(into.length, this.length - this.given);
    this.given += count;
    return count;
  }

  async close(): Promise<void> {
    this.closed++;
  }
}

/** A store that remembers what it was asked for. `asked` is called with each request, before it is answered. */
function store(pace: (request: Request) => Promise<void>, asked: (requests: readonly Request[]) => void = () => {}) {
  const requests: Request[] = [];
  const open = async (extent: Extent): Promise<ByteSource> => {
    asked(requests);
    const request = new Request(extent, pace);
    requests.push(request);
    return request;
  };
  return { requests, open };
}

/** Counts what it is given. */
function sinkWith(held: readonly Extent[] = [], refuse: (offset: number) => void = () => {}) {
  const writes: Extent[] = [];
  const sink: BlobSink = {
    held,
    expectedSize: undefined,
    begin: () => {},
    write: async (offset, chunk) => {
      refuse(offset);
      writes.push({ from: offset, to: offset + chunk.length });
    },
  };
  return { sink, writes };
}

/** A pull that ends when the signal does, as one of a body whose connection is torn down. */
function stalled(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
}

describe('a download from the shared store', () => {
  test('sends the next request before the one before it has ended, and copies in order', async () => {
    const { requests, open } = store(async () => {});
    const { sink, writes } = sinkWith();
    await download(open, 40 * MIB, sink, new AbortController().signal);
    expect(requests.map(({ extent: { from, to } }) => [from / MIB, to / MIB])).toEqual([
      [0, 16],
      [16, 32],
      [32, 40],
    ]);
    expect(writes.map(({ from }) => from)).toEqual([0, ...writes.slice(0, -1).map(({ to }) => to)]);
    expect(writes.at(-1)?.to).toBe(40 * MIB);
    expect(requests.every(({ closed }) => closed === 1)).toBe(true);
  });

  test('closes a request that was sent ahead and waits its turn when it is aborted', async () => {
    const aborting = new AbortController();
    const { requests, open } = store(async (request) => {
      if (request.given >= 15 * MIB) await stalled(aborting.signal);
    });
    const done = download(open, 40 * MIB, sinkWith().sink, aborting.signal);
    const failed = expect(done).rejects.toThrow('nobody wants it');
    await expect.poll(() => requests.length).toBe(2);
    aborting.abort(new Error('nobody wants it'));
    await failed;
    expect(requests.map(({ pulled, closed }) => ({ pulled, closed }))).toEqual([
      { pulled: true, closed: 1 },
      { pulled: false, closed: 1 },
    ]);
  });

  test('closes a request that comes about only after the end', async () => {
    const late = Promise.withResolvers<void>();
    const { requests, open } = store(async (request) => {
      if (request.given >= 15 * MIB) {
        await delay(50);
        throw new Error('the store broke off');
      }
    });
    const slowly = async (extent: Extent): Promise<ByteSource> => {
      if (extent.from > 0) await late.promise;
      return open(extent);
    };
    const done = download(slowly, 40 * MIB, sinkWith().sink, new AbortController().signal);
    const failed = expect(done).rejects.toThrow('the store broke off');
    await expect.poll(() => requests[0]?.closed).toBe(1);
    late.resolve();
    await failed;
    expect(requests.map(({ pulled, closed }) => ({ pulled, closed }))).toEqual([
      { pulled: true, closed: 1 },
      { pulled: false, closed: 1 },
    ]);
  });

  test('ends with the failure of the sink, or of a part that is too short, and closes all requests', async () => {
    for (const [how, reason] of [
      ['sink', 'the disk is full'],
      ['short', 'the store ended at byte'],
    ] as const) {
      const { requests, open } = store(async (request) => {
        if (how === 'short' && request.given >= 15 * MIB) request.given = request.length;
      });
      const { sink } = sinkWith([], (offset) => {
        if (how === 'sink' && offset >= 15 * MIB) throw new Error(reason);
      });
      await expect(download(open, 40 * MIB, sink, new AbortController().signal)).rejects.toThrow(reason);
      expect(requests.length).toBe(2);
      expect(requests.every(({ closed }) => closed === 1)).toBe(true);
    }
  });

  test('lets no request lie open for long before its turn, however slow the store is', async () => {
    // Fifteen chunks of 64 KiB each, and a gap, so that nothing of it is one part.
    const part = 960 * 1024;
    const held = Array.from({ length: 7 }, (_, index) => ({
      from: (index + 1) * MIB - 64 * 1024,
      to: (index + 1) * MIB,
    }));
    const left: number[] = [];
    const { requests, open } = store(
      () => delay(150),
      (before) => {
        const under = before.filter(({ closed }) => closed === 0);
        if (under.length >= 4) left.push(Math.min(...under.map(({ given }) => part - given)));
      },
    );
    await download(open, 7 * MIB, sinkWith(held).sink, new AbortController().signal);
    expect(requests.length).toBe(7);
    expect(left.length).toBeGreaterThan(0);
    expect(Math.max(...left)).toBeLessThanOrEqual(512 * 1024);
  });
});
