// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables as manifests have them
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { StatusReport } from '../../src/admin/contract.ts';
import type { CacheStats } from '../../src/cache/admin.ts';
import type { WarmListed } from '../../src/warm/service.ts';
import type { WarmOutcome } from '../../src/warm/warmer.ts';
import { generatedLayer } from '../support/content.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import type { Fault } from '../support/fake-registry/options.ts';
import { startGateway, type TestGateway } from '../support/gateway.ts';
import { describeWith } from '../support/programs.ts';
import { skopeoPull } from '../support/skopeo.ts';

const MIB = 1024 * 1024;

let folder: string;
let fake: FakeRegistry;
let gateway: TestGateway;
let fault: Fault | undefined;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gateway-warm-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function start(cache: Record<string, unknown> = {}): Promise<void> {
  fault = undefined;
  fake = await FakeRegistry.start({ faults: ({ kind }) => (kind === 'blob' ? fault : undefined) });
  gateway = await startGateway({ config: { listen: { workers: 1 }, cache } });
  await gateway.ok('registry', 'set', 'quay.io', '--endpoint', fake.url);
}

afterEach(async () => {
  await gateway.close();
  await fake.close();
});

const json = async <T>(...args: string[]): Promise<T> => JSON.parse(await gateway.ok(...args, '--json')) as T;
const blobGets = () => fake.log.of({ method: 'GET', kind: 'blob' }).length;

test('lists of files, what is asked of the registry once, and rows that say so', async () => {
  await start();
  const app = fake.repository('org/app');
  const one = app.addImage(undefined, [generatedLayer(300_000, 'one')]);
  const index = app.addIndex('1', [one, app.addImage(undefined, [generatedLayer(300_000, 'two')])]);
  fake.repository('org/side').addImage('2', [generatedLayer(200_000, 'side')]);
  const file = join(folder, 'deployment.yaml');
  const own = `localhost:${gateway.httpsPort}/quay.io/org/side:2`;
  writeFileSync(
    file,
    `kind: Deployment\nspec:\n  containers:\n    - image: quay.io/org/app:1\n    - image: ${own}\n    - image: quay.io/org/\${NAME}\n`,
  );
  const ran = await gateway.cli(['warm', '--file', file, 'quay.io/org/gone:1', '--platform', 'linux/amd64', '--json']);
  expect(ran.code).toBe(1);
  expect(ran.stderr).toContain(`${file}:6`);
  const rows = JSON.parse(ran.stdout) as WarmOutcome[];
  expect(rows.map(({ image, ok }) => [image, ok])).toEqual([
    ['quay.io/org/gone:1', false],
    ['quay.io/org/app:1', true],
    ['quay.io/org/side:2', true],
    ['quay.io/org/${NAME}', false],
  ]);
  expect(rows[1]).toMatchObject({ digest: index.digest, platforms: ['linux/amd64'] });
  expect(blobGets()).toBe(4);
  const told = await gateway.ok('warm', 'quay.io/org/app:1', '--platform', 'linux/amd64');
  expect(told).toContain('0 B to fetch');
  expect(told).toContain('all of it was here');
  expect(blobGets()).toBe(4);
});

test('killed half-way, it is gone on with where it was; a pin outlives the kill', async () => {
  await start();
  const layers = ['a', 'b', 'c', 'd'].map((seed) => generatedLayer(2 * MIB, seed));
  const image = fake.repository('org/app').addImage('1', layers);
  fault = { bytesPerSecond: MIB };
  const running = gateway.begin('warm', 'quay.io/org/app:1', '--pin');
  await eventually('a layer is coming', () => fake.log.bytes({ kind: 'blob' }) > MIB);
  await gateway.kill();
  await running.exited;
  const sent = fake.log.bytes({ kind: 'blob' });
  fault = undefined;
  await gateway.start();
  const [row] = await json<WarmOutcome[]>('warm', 'quay.io/org/app:1', '--pin');
  expect(row).toMatchObject({ ok: true, digest: image.digest });
  // What came before the kill may lack the last moments before it, and no more is fetched than there is.
  expect(fake.log.bytes({ kind: 'blob' })).toBeLessThan(sent + 8 * MIB + 200_000);
  const [listed] = await json<WarmListed[]>('warm', 'ls');
  expect(listed).toMatchObject({ image: 'quay.io/org/app:1', pin: true, held: { digest: image.digest, missing: 0 } });
});

test('under pressure the pinned image stays; stats, status, prune and rm say so', async () => {
  await start({ maxSize: '16MiB', minFree: 0 });
  fake.repository('org/app').addImage('1', [generatedLayer(6 * MIB, 'pinned')]);
  await gateway.ok('warm', 'quay.io/org/app:1', '--pin', '--schedule', '0 3 * * *');
  for (let count = 0; count < 8; count++) {
    fake.repository(`org/other${count}`).addImage('1', [generatedLayer(4 * MIB, `other ${count}`)]);
    await gateway.ok('warm', `quay.io/org/other${count}:1`);
  }
  const stats = await json<CacheStats>('cache', 'stats');
  expect(stats.evictions).toBeGreaterThan(3);
  expect(stats.pinnedBytes).toBeGreaterThan(6 * MIB);
  expect(await gateway.ok('status')).toContain('pinned');
  expect((await json<StatusReport>('status')).warmFailing).toEqual([]);
  const before = blobGets();
  await gateway.ok('warm', 'quay.io/org/app:1');
  expect(blobGets()).toBe(before);
  fake.repository('org/large').addImage('1', [generatedLayer(9 * MIB, 'large')]);
  const refused = await gateway.cli(['warm', 'quay.io/org/large:1', '--pin']);
  expect(refused).toMatchObject({ code: 1 });
  expect(refused.stderr).toContain('cache.maxSize');
  expect(await gateway.ok('cache', 'prune', '--yes')).toContain('gateway warm rm');
  expect(await gateway.ok('warm', 'rm', 'quay.io/org/app:1')).toContain('its pin and its schedule');
  expect(await json('warm', 'ls')).toEqual([]);
  expect((await json<CacheStats>('cache', 'stats')).pinnedBytes).toBe(0);
});

describeWith(['skopeo'], 'with a real client', () => {
  test('what was warmed on a directory at rest is pulled with every registry gone', async () => {
    await start();
    const image = fake.repository('org/app').addImage('1', [generatedLayer(2 * MIB, 'a'), generatedLayer(20, 'b')]);
    await gateway.stop();
    const ran = await gateway.cli(['warm', 'quay.io/org/app:1', '--pin']);
    expect(ran).toMatchObject({ code: 0 });
    await fake.close();
    await gateway.start();
    const pulled = await skopeoPull({
      image: `localhost:${gateway.httpsPort}/quay.io/org/app:1`,
      ca: readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8'),
    });
    expect(pulled.ran.stderr).toBe('');
    expect(pulled.digests).toContain(image.digest);
  });
});
