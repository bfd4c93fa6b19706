import { expect, test } from 'vitest';
import { ConnectionShare, ConnectionTotals } from '../../../src/workers/connection-totals.ts';

function processes(cap: number, count: number) {
  const totals = new ConnectionTotals();
  let reports = 0;
  const shares = Array.from({ length: count }, () => {
    const share: ConnectionShare = new ConnectionShare(cap, count, (own) => {
      reports += 1;
      totals.report(share, own);
    });
    totals.join(share, share.hear);
    return share;
  });
  return { totals, shares: shares as [ConnectionShare, ConnectionShare, ...ConnectionShare[]], reports: () => reports };
}

test('each process knows what the others have of a client', () => {
  const { shares } = processes(4, 3);
  const [a, b, c] = shares;
  a.counted('x', 1);
  a.counted('x', 2);
  b.counted('x', 1);
  b.counted('y', 1);
  expect(shares.map((share) => share.others('x'))).toEqual([1, 2, 3]);
  expect(c?.others('y')).toBe(1);
  a.counted('x', 0);
  expect(shares.map((share) => share.others('x'))).toEqual([1, 0, 1]);
});

test('a few connections are told to nobody', () => {
  const { shares, reports } = processes(1_024, 2);
  const [a, b] = shares;
  for (let count = 1; count <= 128; count++) a.counted('x', count);
  expect([reports(), b.others('x')]).toEqual([0, 0]);
  a.counted('x', 129);
  expect(b.others('x')).toBe(129);
  a.counted('x', 128);
  expect([reports(), b.others('x')]).toEqual([2, 0]);
});

test('a process that ends takes its connections with it, and one that comes hears of the rest', () => {
  const { totals, shares } = processes(4, 2);
  const [a, b] = shares;
  a.counted('x', 3);
  b.counted('x', 1);
  totals.leave(a);
  expect(b.others('x')).toBe(0);
  const fresh = new ConnectionShare(4, 2, () => {});
  totals.join(fresh, fresh.hear);
  expect(fresh.others('x')).toBe(1);
});
