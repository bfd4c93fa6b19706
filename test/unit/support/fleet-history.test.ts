import { describe, expect, test } from 'vitest';
import {
  type Bounds,
  type Change,
  type Handshake,
  type History,
  type Pull,
  violations,
} from '../../support/fleet-history.ts';

const BOUNDS: Bounds = { lifetime: 60_000, lease: 15_000, recovery: 5_000, onTheWay: 10 };
const NODES = ['node 1', 'node 2', 'node 3'];
const MIB = 1024 * 1024;

const pull = (more: Partial<Pull> = {}): Pull => ({
  ...{
    from: 10_000,
    to: 11_000,
    node: 'node 1',
    user: null,
    what: 'a blob',
    mayHave: true,
    status: 200,
    bytes: MIB,
    right: true,
  },
  ...more,
});
const change = (more: Partial<Change> = {}): Change => ({
  ...{
    from: 1_000,
    to: 2_000,
    node: 'node 1',
    kind: 'user',
    name: 'ci',
    state: 'there',
    confirmed: true,
    laggards: [],
  },
  ...more,
});
const shown = (more: Partial<Handshake> = {}): Handshake => ({
  ...{ at: 20_000, node: 'node 1', host: 'a.gw.test', serial: '1', issuedAt: 10_000, notAfter: 70_000 },
  ...more,
});
const all = (more: Partial<{ aliases: string[]; users: string[] }> = {}) =>
  NODES.map((node) => ({ node, aliases: [], users: [], ...more }));

/** A history that keeps to every rule, with something of each kind in it. */
const RIGHT: History = {
  nodes: NODES,
  pulls: [pull(), pull({ user: 'ci' }), pull({ mayHave: false, status: 404, bytes: 0 })],
  changes: [change(), change({ kind: 'alias', name: 'a', from: 3_000, to: 4_000 })],
  faults: [],
  orders: [
    { at: 0, host: 'a.gw.test' },
    { at: 40_000, host: 'a.gw.test' },
  ],
  handshakes: [shown(), shown({ at: 60_000, serial: '2', issuedAt: 50_000, notAfter: 110_000 })],
  fetches: [{ digest: 'sha256:1', size: MIB, sent: MIB, from: 9_000, to: 11_000, brokenOff: 0, missingAtTakeOver: [] }],
  quota: { limit: 10 * MIB, slice: MIB },
  final: all({ aliases: ['a'], users: ['ci'] }),
};

const judge = (more: Partial<History>): string[] => violations({ ...RIGHT, ...more }, BOUNDS);

describe('the judge of a history', () => {
  test('finds nothing in one that keeps to the rules', () => {
    expect(judge({})).toEqual([]);
  });

  test('finds wrong bytes', () => {
    expect(judge({ pulls: [pull({ right: false })] })).toEqual([expect.stringMatching(/^node 1 gave wrong bytes/)]);
  });

  test('finds content given by a registry that never had it, whatever the status of success', () => {
    for (const status of [200, 206]) expect(judge({ pulls: [pull({ mayHave: false, status })] })).toHaveLength(1);
  });

  test('finds content given to a user who was removed, and to one who never was', () => {
    const changes = [change(), change({ from: 5_000, to: 6_000, state: 'gone' })];
    expect(judge({ changes, pulls: [pull({ user: 'ci' })], final: all() })).toEqual([
      expect.stringContaining('who was removed'),
    ]);
    expect(judge({ pulls: [pull({ user: 'nobody' })] })).toHaveLength(1);
    // A node that was stopped reads what has changed before it serves anybody, whether the command named it or not.
    const late = [change(), change({ from: 5_000, to: 6_000, state: 'gone', laggards: ['node 1'] })];
    const pause = { from: 4_000, to: 9_000, node: 'node 1', kind: 'pause' } as const;
    for (const list of [changes, late]) {
      expect(judge({ changes: list, pulls: [pull({ user: 'ci' })], faults: [pause], final: all() })).toHaveLength(1);
    }
    // One that is cut off from the database does not know it, where the command named it.
    const cut = { ...pause, kind: 'database' } as const;
    expect(judge({ changes, pulls: [pull({ user: 'ci' })], faults: [cut], final: all() })).toHaveLength(1);
    expect(judge({ changes: late, pulls: [pull({ user: 'ci' })], faults: [cut], final: all() })).toEqual([]);
    for (const fault of [
      { ...cut, node: 'node 2' },
      { ...cut, to: 4_500 },
      { ...cut, from: 10_500 },
    ]) {
      expect(judge({ changes: late, pulls: [pull({ user: 'ci' })], faults: [fault], final: all() })).toHaveLength(1);
    }
    expect(
      judge({ changes: late, pulls: [pull({ user: 'ci', from: 15_000, to: 16_000 })], faults: [cut], final: all() }),
    ).toHaveLength(1);
    // While the removal runs, either is right.
    const running = [change(), change({ from: 5_000, to: 12_000, state: 'gone' })];
    expect(judge({ changes: running, pulls: [pull({ user: 'ci' })], final: all() })).toEqual([]);
  });

  test('finds a user who was added and is refused, unless the node was cut off', () => {
    const pulls = [pull({ user: 'ci', status: 401, bytes: 0 })];
    expect(judge({ pulls })).toEqual([expect.stringContaining('who was added')]);
    const fault = { from: 6_000, to: 7_000, node: null, kind: 'database' } as const;
    expect(judge({ pulls, faults: [fault] })).toEqual([]);
    expect(judge({ pulls, faults: [{ ...fault, node: 'node 2' }] })).toHaveLength(1);
    expect(judge({ pulls, faults: [{ ...fault, from: 1_000, to: 2_000 }] })).toHaveLength(1);
  });

  test('finds an order too many, and lets each stop explain one of each host', () => {
    const orders = [0, 40_000, 50_000].map((at) => ({ at, host: 'a.gw.test' }));
    expect(judge({ orders })).toEqual([expect.stringContaining('was ordered again')]);
    const stop = { from: 41_000, to: 45_000, node: 'node 1', kind: 'kill' } as const;
    expect(judge({ orders, faults: [stop] })).toEqual([]);
    expect(judge({ orders, faults: [{ ...stop, kind: 'store' }] })).toHaveLength(1);
    expect(judge({ orders: [...orders, { at: 55_000, host: 'a.gw.test' }], faults: [stop] })).toHaveLength(1);
    expect(judge({ orders, faults: [{ ...stop, from: 51_000 }] })).toHaveLength(1);
  });

  test('finds a certificate that has ended, and one that is older than what the node has shown', () => {
    expect(judge({ handshakes: [shown({ at: 70_001 })] })).toEqual([expect.stringContaining('that ended')]);
    const newer = shown({ serial: '2', issuedAt: 15_000, notAfter: 75_000 });
    expect(judge({ handshakes: [newer, shown({ at: 21_000 })] })).toEqual([expect.stringContaining('went back')]);
    expect(judge({ handshakes: [newer, shown({ at: 21_000, node: 'node 2' })] })).toEqual([]);
  });

  test('finds bytes fetched again that some node still held', () => {
    const fetched = {
      digest: 'sha256:1',
      size: MIB,
      sent: MIB + 1,
      from: 9_000,
      to: 11_000,
      brokenOff: 0,
      missingAtTakeOver: [],
    };
    expect(judge({ fetches: [fetched] })).toEqual([expect.stringContaining('were allowed')]);
    expect(judge({ fetches: [{ ...fetched, missingAtTakeOver: [1] }] })).toEqual([]);
    expect(judge({ fetches: [{ ...fetched, sent: MIB + 2, missingAtTakeOver: [1] }] })).toHaveLength(1);
    expect(judge({ fetches: [{ ...fetched, sent: MIB + 10, brokenOff: 1 }] })).toEqual([]);
    expect(judge({ fetches: [{ ...fetched, sent: MIB + 11, brokenOff: 1 }] })).toHaveLength(1);
    const fault = { from: 10_000, to: 10_500, node: null, kind: 'database' } as const;
    expect(judge({ fetches: [{ ...fetched, sent: 3 * MIB }], faults: [fault] })).toEqual([]);
    expect(judge({ fetches: [{ ...fetched, sent: 3 * MIB }], faults: [{ ...fault, kind: 'pause' }] })).toHaveLength(1);
    expect(judge({ fetches: [{ ...fetched, sent: 3 * MIB }], faults: [{ ...fault, kind: 'starved' }] })).toEqual([]);
    expect(judge({ fetches: [{ ...fetched, sent: 3 * MIB + 1 }], faults: [fault] })).toHaveLength(1);
  });

  test('finds more than a quota and its slices', () => {
    const many = (count: number) => Array.from({ length: count }, () => pull({ user: 'ci' }));
    expect(judge({ pulls: many(13) })).toEqual([]);
    expect(judge({ pulls: many(14) })).toEqual([expect.stringContaining('of a quota of')]);
  });

  test('finds a confirmed change that is lost, and nodes that do not agree about one that was not', () => {
    expect(judge({ final: all({ users: ['ci'] }) })).toHaveLength(3);
    const changes = [change({ confirmed: false })];
    expect(judge({ changes, pulls: [], final: all() })).toEqual([]);
    expect(
      judge({ changes, pulls: [], final: [{ node: 'node 1', aliases: [], users: ['ci'] }, ...all().slice(1)] }),
    ).toEqual(['the nodes do not agree about user ci']);
  });
});
