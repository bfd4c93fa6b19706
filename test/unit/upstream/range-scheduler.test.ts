import { expect, it } from 'vitest';
import { DownloadConnection, RangeScheduler, SEGMENT_MIN } from '../../../src/upstream/download/range-scheduler.ts';

const run = (from: number, to: number) => ({ from, to });
const MIB = 1024 * 1024;

/** A scheduler for connections that are made by `add`, the first of them not additional. */
function scheduler(held: readonly { from: number; to: number }[] = [], maxConnections = 4) {
  const connections: DownloadConnection[] = [];
  const ranges = new RangeScheduler(held, () => connections, maxConnections);
  const add = (): DownloadConnection => {
    const connection = new DownloadConnection(connections.length > 0);
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
  expect(ranges.remainingFor(first)).toBe(Number.POSITIVE_INFINITY);
  ranges.setSize(25);
  expect(ranges.allAssigned).toBe(true);
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
  ranges.useOneConnection();
  ranges.assignNext(first);
  expect(first.assigned.list()).toEqual([run(0, MIB)]);
  expect(ranges.maxConnections).toBe(1);
  ranges.release(second);
  ranges.extend(first, MIB);
  expect(first.assigned.list()).toEqual([run(0, 100 * MIB)]);
});

it('halves what the busiest connection has left when all is assigned, unless it is little', () => {
  const { ranges, add } = scheduler([], 2);
  const [first, second, third] = [add(), add(), add()];
  ranges.assignNext(first);
  ranges.setSize(4 * SEGMENT_MIN);
  expect(ranges.assignNext(second)).toBe(true);
  expect(first.assigned.list()).toEqual([run(0, 2 * SEGMENT_MIN)]);
  expect(second.assigned.list()).toEqual([run(2 * SEGMENT_MIN, 4 * SEGMENT_MIN)]);
  expect(ranges.assignNext(third)).toBe(false);
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
