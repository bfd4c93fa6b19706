import { expect, test } from 'vitest';
import { Activity } from '../../../src/telemetry/activity.ts';

const trouble = {
  kind: 'failed',
  registry: 'quay.io',
  row: 'quay.io',
  status: 502,
  reason: 'it answered 500',
  what: 'a v1',
} as const;

test('clients and troubles of several processes become one', () => {
  const [owner, worker] = [new Activity(), new Activity()];
  expect(worker.take()).toBeNull();
  owner.answered('192.0.2.1', 200, 10);
  worker.answered('192.0.2.1', 429, 0);
  worker.answered('user:ci', 200, 100);
  owner.troubled(trouble);
  worker.troubled({ ...trouble, what: 'b v2' });
  const delta = worker.take();
  if (delta !== null) owner.add(delta);
  expect(worker.take()).toBeNull();
  expect(owner.clients(10)).toMatchObject([
    { client: 'user:ci', requests: 1, bytes: 100, refused: 0 },
    { client: '192.0.2.1', requests: 2, bytes: 10, refused: 1 },
  ]);
  expect(owner.clients(1)).toHaveLength(1);
  expect(owner.troubles(10)).toMatchObject([{ what: 'b v2', count: 2, reason: 'it answered 500' }]);
});

test('a stale answer is one trouble of its registry, however old it is', () => {
  const activity = new Activity();
  for (const age of ['1 s', '2 s']) {
    activity.troubled({ ...trouble, kind: 'stale', status: 200, reason: `it answered 500; this answer is ${age} old` });
  }
  activity.troubled(trouble);
  expect(activity.troubles(10).map(({ kind, count }) => `${kind} ${count}`)).toEqual(
    expect.arrayContaining(['stale 2', 'failed 1']),
  );
  expect(activity.troubles(10).find(({ kind }) => kind === 'stale')?.reason).toContain('2 s');
});

test('what is remembered is bounded', () => {
  const activity = new Activity();
  for (let n = 0; n < 10_000; n++) {
    activity.answered(`10.0.${n >> 8}.${n & 255}`, 200, 1);
    activity.troubled({ ...trouble, reason: `${'x'.repeat(2_000)} ${n}`, row: `r${n}` });
  }
  expect(activity.clients(100_000)).toHaveLength(4_096);
  expect(activity.troubles(100_000)).toHaveLength(100);
  expect(activity.troubles(1)[0]?.reason.length).toBeLessThanOrEqual(500);
});

test('a registry that words each failure anew, or a pattern that has no end of hosts, leaves room for others', () => {
  const activity = new Activity();
  activity.troubled(trouble);
  for (let n = 0; n < 10_000; n++) {
    activity.troubled({ ...trouble, row: 'loud.example', registry: 'loud.example', reason: `request ${n}` });
    activity.troubled({ ...trouble, row: '*.pkg.dev', registry: `a${n}.pkg.dev`, reason: `there is no a${n}.pkg.dev` });
  }
  expect(activity.troubles(1_000)).toHaveLength(1 + 10 + 10);
  expect(activity.troubles(1_000).some(({ registry }) => registry === 'quay.io')).toBe(true);
});
