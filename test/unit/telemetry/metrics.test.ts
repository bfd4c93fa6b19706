import { expect, test } from 'vitest';
import { Metrics } from '../../../src/telemetry/metrics.ts';

test('each row of labels is counted by itself, and told once', async () => {
  const metrics = new Metrics();
  const requests = metrics.tally('requests_total', 'Requests', ['kind', 'status']);
  requests.add(1, 'blob', 200);
  requests.add(1, 'blob', 404);
  requests.add(5, 'blob', 200);
  expect(await metrics.total('requests_total')).toBe(7);
  expect(await metrics.total('requests_total')).toBe(7);
  requests.add(1, 'tags', 200);
  expect(await metrics.text()).toContain(
    [
      'gateway_requests_total{kind="blob",status="200"} 6',
      'gateway_requests_total{kind="blob",status="404"} 1',
      'gateway_requests_total{kind="tags",status="200"} 1',
    ].join('\n'),
  );
});

test('processes are added up', async () => {
  const [one, other] = [new Metrics(), new Metrics()];
  one.tally('sent_total', 'Bytes', ['from']).add(3, 'cache');
  other.tally('sent_total', 'Bytes', ['from']).add(4, 'cache');
  one.include(async () => [await other.values()]);
  expect(await one.total('sent_total', { from: 'cache' })).toBe(7);
});
