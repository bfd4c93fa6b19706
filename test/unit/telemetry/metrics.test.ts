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

test('what is timed comes in cumulative buckets, with its sum and count', async () => {
  const metrics = new Metrics();
  const seconds = metrics.timings('request_seconds', 'Requests', [0.1, 1], ['kind', 'registry']);
  for (const took of [0.05, 0.1, 0.5, 3]) seconds.observe(took, 'blob', 'quay.io');
  seconds.observe(0.5, 'page', '');
  const text = await metrics.text();
  expect(text).toContain('# TYPE gateway_request_seconds histogram');
  expect(text).toContain(
    [
      'gateway_request_seconds_bucket{kind="blob",registry="quay.io",le="0.1"} 2',
      'gateway_request_seconds_bucket{kind="blob",registry="quay.io",le="1"} 3',
      'gateway_request_seconds_bucket{kind="blob",registry="quay.io",le="+Inf"} 4',
      'gateway_request_seconds_sum{kind="blob",registry="quay.io"} 3.65',
      'gateway_request_seconds_count{kind="blob",registry="quay.io"} 4',
    ].join('\n'),
  );
});

test('of several processes, timings are added up, and what says nothing as a sum is not', async () => {
  const [one, other] = [new Metrics(), new Metrics()];
  for (const metrics of [one, other]) {
    metrics.timings('request_seconds', 'Requests', [0.1], ['kind']).observe(0.05, 'blob');
    metrics.ofProcess();
  }
  const started = async (metrics: Metrics) => /^process_start_time_seconds (\S+)$/m.exec(await metrics.text())?.[1];
  const alone = await started(one);
  one.include(async () => [await other.values()]);
  expect(await started(one)).toBe(alone);
  const text = await one.text();
  expect(text).toContain('gateway_request_seconds_bucket{kind="blob",le="0.1"} 2');
  expect(text).toMatch(/^process_open_fds \d+$/m);
  // The conventions keep `_total` for counters.
  expect(text).not.toMatch(/^# TYPE \S+_total gauge$/m);
});
