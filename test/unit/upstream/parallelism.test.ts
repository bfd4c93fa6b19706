import { expect, it } from 'vitest';
import { silentLog } from '../../../src/telemetry/log.ts';
import { DownloadConnection } from '../../../src/upstream/download/connection.ts';
import { ParallelHosts } from '../../../src/upstream/download/host-parallelism.ts';
import { Parallelism } from '../../../src/upstream/download/parallelism.ts';
import { RangeScheduler } from '../../../src/upstream/download/range-scheduler.ts';

const MIB = 1024 * 1024;
/** Of a reader: as much as one connection is given for readers at a time. More of them wait than there may be connections. */
const PART = 8 * MIB;
const READERS = 40;

/** A download whose readers wait, each for a part of its own; its connections are brought nothing. */
function bed(most: number) {
  const connections = new Set<DownloadConnection>();
  const ranges = new RangeScheduler({
    held: [],
    connections: () => connections,
    wishes: { next: ({ start, end }) => ({ from: start, to: Math.min(start + PART, end), urgent: true }) },
  });
  const hosts = new ParallelHosts(silentLog());
  const parallelism = new Parallelism({
    connections: () => connections,
    most,
    ranges,
    hosts,
    log: silentLog(),
    onDivided: () => {},
  });
  const open = (role: DownloadConnection['role']): DownloadConnection => {
    const connection = new DownloadConnection(role);
    connections.add(connection);
    return connection;
  };
  ranges.setSize(READERS * PART);
  const first = open('first');
  first.assigned.add(0, PART);
  ranges.takePassing(0, PART);
  parallelism.begun(first, 'r.test');
  /** As often as a download would open more. Returns how many it has then. */
  const adjust = (): number => {
    for (let i = 0; i < 2 * READERS; i++) {
      parallelism.adjust((role) => {
        // Each gets its part before another one is opened.
        ranges.assignNext(open(role));
      });
    }
    return connections.size;
  };
  return { hosts, ranges, connections, first, adjust };
}

it.each([
  [32, 16],
  [16, 16],
  [8, 8],
  // Enough that one slow reader's part delays no other.
  [2, 4],
  [1, 1],
])('where a blob may have %i connections, readers that wait have %i', (most, expected) => {
  const { ranges, connections, adjust } = bed(most);
  ranges.noteRanges(true);
  expect(adjust()).toBe(expected);
  expect([...connections].filter(({ role }) => role === 'wish')).toHaveLength(expected - 1);
});

it('one connection for a reader that waits shows whether there are ranges at all', () => {
  const { ranges, adjust } = bed(16);
  expect(adjust()).toBe(2);
  ranges.noteRanges(true);
  expect(adjust()).toBe(16);
});

it('readers that wait have no more connections than their host takes', () => {
  const { ranges, hosts, first, adjust } = bed(16);
  ranges.noteRanges(true);
  first.established = true;
  hosts.of('r.test').refused(0, 3);
  expect(adjust()).toBe(3);
});
