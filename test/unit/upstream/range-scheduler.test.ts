import { describe, expect, it, vi } from 'vitest';
import type { Extent, IntervalSet } from '../../../src/kit/interval-set.ts';
import type { Wish, Wishes } from '../../../src/oci/transfer.ts';
import { type ConnectionRole, DownloadConnection } from '../../../src/upstream/download/connection.ts';
import { RangeScheduler, SEGMENT_MIN } from '../../../src/upstream/download/range-scheduler.ts';

const run = (from: number, to: number) => ({ from, to });
const MIB = 1024 * 1024;

/** A scheduler for connections that are made by `add`, the first of them not additional. */
function scheduler(held: readonly Extent[] = [], wishes?: Pick<Wishes, 'next'>) {
  const connections: DownloadConnection[] = [];
  const ranges = new RangeScheduler({ held, wishes, connections: () => connections });
  const add = (role: ConnectionRole = connections.length === 0 ? 'first' : 'segment'): DownloadConnection => {
    const connection = new DownloadConnection(role);
    connections.push(connection);
    return connection;
  };
  return { ranges, add };
}

it('assigns everything to one connection, and what lies behind the size to none', () => {
  const { ranges, add } = scheduler([run(0, 10), run(20, 30)]);
  const first = add();
  expect(ranges.assignNext(first)).toBe(true);
  expect(first.assigned.list()).toEqual([run(10, 20)]);
  expect(ranges.remainingFor([first])).toBe(Number.POSITIVE_INFINITY);
  ranges.setSize(25);
  expect(ranges.hasNext).toBe(false);
  ranges.extend(first, 20);
  expect(first.assigned.list()).toEqual([run(10, 20)]);
});

it('assigns a segment at a time once the download is divided, the lowest first', () => {
  const { ranges, add } = scheduler();
  const [first, second] = [add(), add()];
  ranges.assignNext(first);
  ranges.setSize(100 * MIB);
  ranges.divide(first, MIB);
  expect(first.assigned.list()).toEqual([run(0, MIB)]);
  expect(ranges.assignNext(second)).toBe(true);
  expect(second.assigned.list()).toEqual([run(MIB, 2 * MIB)]);
  // The body of the second goes on where its segment ends.
  ranges.extend(second, 2 * MIB);
  expect(second.assigned.list()).toEqual([run(MIB, 3 * MIB)]);
});

it('frees what a connection did not fetch, and goes back to one connection', () => {
  const { ranges, add } = scheduler();
  const [first, second] = [add(), add()];
  ranges.assignNext(first);
  ranges.setSize(100 * MIB);
  ranges.divide(first, MIB);
  ranges.assignNext(second);
  ranges.release(first);
  ranges.undivide();
  ranges.assignNext(first);
  expect(first.assigned.list()).toEqual([run(0, MIB)]);
  ranges.release(second);
  ranges.extend(first, MIB);
  expect(first.assigned.list()).toEqual([run(0, 100 * MIB)]);
});

it('halves what the busiest connection has left when all is assigned, unless it is little', () => {
  const { ranges, add } = scheduler();
  const [first, second, third] = [add(), add(), add()];
  ranges.assignNext(first);
  ranges.setSize(4 * SEGMENT_MIN);
  expect(ranges.assignNext(second)).toBe(true);
  expect(first.assigned.list()).toEqual([run(0, 2 * SEGMENT_MIN)]);
  expect(second.assigned.list()).toEqual([run(2 * SEGMENT_MIN, 4 * SEGMENT_MIN)]);
  expect(ranges.assignNext(third)).toBe(false);
});

it('halves even little of what takes long, and nothing of what takes a moment', () => {
  const { ranges, add } = scheduler();
  const [first, second] = [add(), add()];
  ranges.assignNext(first);
  ranges.setSize(SEGMENT_MIN);
  const rate = vi.spyOn(first.throughput, 'rate').mockReturnValue(SEGMENT_MIN);
  expect(ranges.assignNext(second)).toBe(false);
  rate.mockReturnValue(SEGMENT_MIN / 10);
  expect(ranges.assignNext(second)).toBe(true);
  expect(second.assigned.list()).toEqual([run(SEGMENT_MIN / 2, SEGMENT_MIN)]);
});

it('lets a body go on into what another connection has no response for yet', () => {
  const { ranges, add } = scheduler();
  const [first, second] = [add(), add()];
  ranges.assignNext(first);
  ranges.setSize(2 * MIB);
  ranges.divide(first, MIB);
  ranges.assignNext(second);
  ranges.extend(first, MIB);
  expect(first.assigned.bytes).toBeGreaterThan(MIB);
  expect(second.assigned.empty).toBe(true);
});

/** Readers that want parts, in the order in which they came: of each the first part that may be asked for. */
class Readers implements Pick<Wishes, 'next'> {
  readonly wanted: Wish[];

  constructor(...wanted: Wish[]) {
    this.wanted = wanted;
  }

  next(missing: IntervalSet): Wish | null {
    for (const wish of [...this.wanted].sort((a, b) => Number(b.urgent) - Number(a.urgent))) {
      for (const { from, to } of missing.list()) {
        const part = run(Math.max(from, wish.from), Math.min(to, wish.to));
        // A reader waits for its first byte alone.
        if (part.from < part.to) return { ...part, urgent: wish.urgent && part.from === wish.from };
      }
    }
    return null;
  }
}

const urgent = (from: number, to: number): Wish => ({ from, to, urgent: true });
const calm = (from: number, to: number): Wish => ({ from, to, urgent: false });

describe('with wishes', () => {
  it('assigns what is wished for and nothing else, what readers wait for first', () => {
    const readers = new Readers(calm(0, MIB), urgent(50 * MIB, 51 * MIB));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    expect(ranges.assignNext(first)).toBe(true);
    expect(first.assigned.list()).toEqual([run(50 * MIB, 51 * MIB)]);
    ranges.setSize(100 * MIB);
    first.assigned.clear();
    expect(ranges.assignNext(first)).toBe(true);
    expect(first.assigned.list()).toEqual([run(0, MIB)]);
    first.assigned.clear();
    expect(ranges.hasNext).toBe(false);
    expect(ranges.assignNext(first)).toBe(false);
  });

  it('assigns wishes that follow each other to one request, as long as it is not too long', () => {
    const readers = new Readers(...[0, 1, 2, 3, 4, 5].map((i) => urgent(2 * i * MIB, 2 * (i + 1) * MIB)));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    ranges.assignNext(first);
    expect(first.assigned.list()).toEqual([run(0, 8 * MIB)]);
    const second = add('wish');
    ranges.assignNext(second);
    expect(second.assigned.list()).toEqual([run(8 * MIB, 12 * MIB)]);
  });

  it('takes what a reader waits for from a stream that would bring it much later, not what it brings soon', () => {
    const readers = new Readers(calm(0, Number.POSITIVE_INFINITY));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    ranges.assignNext(first);
    ranges.setSize(100 * MIB);
    readers.wanted.push(urgent(MIB, 2 * MIB));
    expect(ranges.someoneWaits).toBe(false);
    readers.wanted.push(urgent(50 * MIB, 100 * MIB));
    expect(ranges.someoneWaits).toBe(true);
    const second = add('wish');
    expect(ranges.assignNext(second)).toBe(true);
    expect(second.assigned.list()).toEqual([run(50 * MIB, 58 * MIB)]);
    expect(first.assigned.list()).toEqual([run(0, 50 * MIB), run(58 * MIB, 100 * MIB)]);
    // What is wanted, but nobody waits for, stays with the first.
    readers.wanted.length = 1;
    expect(ranges.assignNext(add('wish'))).toBe(false);
  });

  it('ends the body of a connection from which it takes all that is left', () => {
    const readers = new Readers(calm(50 * MIB, 52 * MIB));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    ranges.assignNext(first);
    ranges.setSize(100 * MIB);
    let ended = false;
    Object.assign(first, { responded: true, offset: 0, cancel: () => (ended = true) });
    readers.wanted.push(urgent(50 * MIB, 52 * MIB));
    const second = add('wish');
    expect(ranges.assignNext(second)).toBe(true);
    expect([second.assigned.list(), first.assigned.empty, ended]).toEqual([[run(50 * MIB, 52 * MIB)], true, true]);
  });

  it('ends a body early rather than reading past what others fetch, where ranges are served', () => {
    const readers = new Readers(calm(0, Number.POSITIVE_INFINITY));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    ranges.assignNext(first);
    ranges.setSize(100 * MIB);
    readers.wanted.push(urgent(20 * MIB, 28 * MIB));
    ranges.assignNext(add('wish'));
    first.assigned.remove(0, 20 * MIB);
    first.offset = 20 * MIB;
    expect(ranges.shouldSkip(first)).toBe(false);
    ranges.noteRanges(true);
    expect(ranges.shouldSkip(first)).toBe(true);
    first.offset = 27.5 * MIB;
    expect(ranges.shouldSkip(first)).toBe(false);
  });

  it('lets a body go on only where it is wanted and nobody waits elsewhere', () => {
    const readers = new Readers(urgent(0, MIB));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    ranges.assignNext(first);
    ranges.setSize(100 * MIB);
    ranges.extend(first, MIB);
    expect(first.assigned.end).toBe(MIB);
    readers.wanted.push(calm(MIB, 4 * MIB), urgent(50 * MIB, 51 * MIB));
    ranges.extend(first, MIB);
    expect(first.assigned.end).toBe(MIB);
    readers.wanted.pop();
    ranges.extend(first, MIB);
    expect(first.assigned.end).toBe(4 * MIB);
  });

  it('gives up a long body for a reader, and never a short one', () => {
    const readers = new Readers(calm(0, Number.POSITIVE_INFINITY));
    const { ranges, add } = scheduler([], readers);
    const first = add();
    ranges.assignNext(first);
    ranges.setSize(100 * MIB);
    let cancelled = 0;
    first.responded = true;
    first.cancel = () => cancelled++;
    readers.wanted.push(urgent(50 * MIB, 51 * MIB));
    ranges.interrupt();
    expect(cancelled).toBe(1);
    ranges.assignNext(first);
    expect(first.assigned.list()).toEqual([run(50 * MIB, 51 * MIB)]);
    ranges.interrupt();
    expect(cancelled).toBe(1);
  });

  it('asks for no parts of an upstream that sends the whole instead: all of it comes in order', () => {
    const readers = new Readers(urgent(50 * MIB, 51 * MIB));
    const { ranges, add } = scheduler([run(0, MIB)], readers);
    const first = add();
    ranges.assignNext(first);
    ranges.noteRanges(false);
    ranges.assignAll(first);
    ranges.setSize(100 * MIB);
    expect(first.assigned.list()).toEqual([run(MIB, 100 * MIB)]);
    readers.wanted.push(urgent(90 * MIB, 91 * MIB));
    expect(ranges.someoneWaits).toBe(false);
    // Where it breaks off it goes on in order too, as long as anything is wanted.
    ranges.release(first);
    ranges.assignNext(first);
    expect(first.assigned.list()).toEqual([run(MIB, 100 * MIB)]);
    ranges.release(first);
    readers.wanted.length = 0;
    expect(ranges.assignNext(first)).toBe(false);
  });
});
