import { afterAll, beforeAll, expect, test } from 'vitest';
import type { StatusReport } from '../../src/admin/contract.ts';
import { awayFromMidnight } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { allServe, everywhere, PROCESSES } from '../support/every-process.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, send } from '../support/http-client.ts';

const MIB = 1024 * 1024;

let upstream: FakeRegistry;
let gateway: TestGateway;
beforeAll(async () => {
  await awayFromMidnight();
  upstream = await FakeRegistry.start();
  gateway = await startGateway({
    config: {
      listen: { workers: PROCESSES },
      cache: { tagTtl: 0 },
      limits: { bytesPerDay: '9MiB', requestsPerMinute: 1000 },
    },
  });
  await gateway.ok('registry', 'set', 'quay.io', '--endpoint', upstream.url);
  await allServe(gateway);
});
afterAll(async () => {
  await gateway.close();
  await upstream.close();
});
showLogOfFailures(() => gateway);

const status = async () => JSON.parse(await gateway.ok('status', '--json')) as StatusReport;
const get = (path: string) => send({ port: gateway.httpsPort, path, ca: caOf(gateway) });

test('status shows a fill while it runs, and afterwards who was served what', async () => {
  const content = upstream.repository('org/app').addBlob(generated(4 * MIB));
  upstream.faults = ({ kind }) => (kind === 'blob' ? { stallAfter: MIB } : undefined);
  const path = `/v2/quay.io/org/app/blobs/${content.digest}`;
  const pulled = get(path);
  await eventually('the fill has its first bytes', async () => ((await status()).fills[0]?.bytes ?? 0) >= MIB / 2);
  const { fills } = await status();
  expect(fills).toEqual([
    expect.objectContaining({
      registry: 'quay.io',
      repository: 'org/app',
      digest: content.digest,
      total: content.size,
      readers: 1,
      resting: false,
    }),
  ]);
  const shown = await gateway.ok('status');
  expect(shown).toContain(`quay.io/org/app@${content.digest.slice(0, 19)}`);
  expect(shown).toMatch(/\d+ %: .* of 4 MiB, .*\/s, readers: 1, connections: \d/);
  upstream.faults = () => undefined;
  upstream.cut();
  expect((await pulled).digest).toBe(content.digest);
  expect((await get(path)).digest).toBe(content.digest);

  await eventually('the workers have told of it', async () => (await status()).byClient[0]?.bytes === 2 * content.size);
  const after = await status();
  expect(after.fills).toEqual([]);
  expect(after.byRegistry).toEqual([
    { registry: 'quay.io', requests: 2, bytesSent: 2 * content.size, bytesFetched: content.size, failed: 0 },
  ]);
  expect(after.saved).toMatchObject({ served: 2 * content.size, fetched: content.size, bytes: content.size });
  expect(after.limits).toMatchObject({ requestsPerMinute: 1000, bytesPerDay: { limit: 9 * MIB }, bytesPerMonth: null });
  expect(after.byClient[0]).toMatchObject({ client: '127.0.0.1', bytesToday: 2 * content.size, refused: 0 });
  expect(after.nextExpiry?.host).toBe('localhost');
});

test('what went wrong is shown once, with how often, for what and why', async () => {
  upstream.repository('org/app').addImage('v1', []);
  const path = '/v2/quay.io/org/app/manifests/v1';
  expect((await get(path)).status).toBe(200);
  upstream.faults = ({ kind }) => (kind === 'manifest' ? { status: 500, body: 'out of coffee' } : undefined);
  for (const { headers } of await everywhere(gateway, path)) expect(headers['x-cache']).toBe('STALE');
  const failed = (await everywhere(gateway, '/v2/quay.io/org/app/manifests/v2')).length;
  await eventually('the workers have told of it', async () => {
    const { troubles } = await status();
    return troubles.reduce((sum, { count }) => sum + count, 0) === 2 * failed;
  });
  const { troubles, byRegistry } = await status();
  expect(troubles.map(({ kind, registry, what, count }) => ({ kind, registry, what, count }))).toEqual([
    { kind: 'failed', registry: 'quay.io', what: 'org/app v2', count: failed },
    { kind: 'stale', registry: 'quay.io', what: 'org/app v1', count: failed },
  ]);
  expect(troubles[0]?.reason).toContain('500');
  expect(byRegistry[0]?.failed).toBe(failed);
  const shown = await gateway.ok('status');
  expect(shown).toContain(`${failed} times: a kept answer for quay.io/org/app v1`);
  for (const line of shown.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
  upstream.faults = () => undefined;
});

test('a client that has used its day up is told until when, and the operator who it is', async () => {
  const content = upstream.repository('org/app').addBlob(generated(MIB));
  const refused = await get(`/v2/quay.io/org/app/blobs/${content.digest}`);
  expect(refused.status).toBe(429);
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
  expect(refused.text).toMatch(/9437184 bytes a day.*begin anew at \d{4}-/);
  await eventually('it is counted', async () => (await status()).byClient[0]?.refused === 1);
  expect(await gateway.ok('status')).toMatch(/127\.0\.0\.1 .* 8 MiB \(8[89] %\)/);
});
