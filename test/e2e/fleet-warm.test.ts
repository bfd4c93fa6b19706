import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { WarmListed } from '../../src/warm/service.ts';
import { generatedLayer } from '../support/content.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';

describeWith([...POSTGRES], 'images at hand, of two gateways with one database', () => {
  let server: PostgresServer;
  let fake: FakeRegistry;
  let folder: string;
  let one: TestGateway;
  let two: TestGateway;
  showLogOfFailures(() => one);

  beforeAll(async () => {
    server = await PostgresServer.start();
    fake = await FakeRegistry.start();
    folder = mkdtempSync(join(tmpdir(), 'fleet-warm-'));
    const secretFile = join(folder, 'keys');
    writeFileSync(secretFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
    const config = { listen: { workers: 1 }, database: await server.createDatabase(), secretFile };
    one = await startGateway({ config });
    await one.ok('registry', 'set', 'quay.io', '--endpoint', fake.url);
    two = await startGateway({ config });
  });
  afterAll(async () => {
    await one?.close();
    await two?.close();
    await fake?.close();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const listed = async (gateway: TestGateway) => JSON.parse(await gateway.ok('warm', 'ls', '--json')) as WarmListed[];

  it('what is pinned on one comes to the disk of the other, and is let go by both', async () => {
    const image = fake.repository('org/app').addImage('1', [generatedLayer(300_000, 'a')]);
    await one.ok('warm', 'quay.io/org/app:1', '--pin');
    await eventually('the other holds it', async () => (await listed(two))[0]?.held?.digest === image.digest, 120_000);
    expect((await listed(one))[0]?.held).toMatchObject({ digest: image.digest, missing: 0 });
    await two.ok('warm', 'rm', 'quay.io/org/app:1');
    expect(await listed(one)).toEqual([]);
    const pinned = async () =>
      (JSON.parse(await one.ok('cache', 'stats', '--json')) as { pinnedBytes: number }).pinnedBytes;
    await eventually('the first lets go', async () => (await pinned()) === 0, 60_000);
  });

  it('what is only on a schedule is run by one of them', async () => {
    fake.repository('org/side').addImage('1', [generatedLayer(200_000, 'b')]);
    await one.ok('warm', 'quay.io/org/side:1', '--schedule', '* * * * *');
    const runs = (gateway: TestGateway) =>
      gateway.logLines().filter(({ msg }) => msg === 'an image was fetched by its schedule').length;
    const before = runs(one) + runs(two);
    await eventually('it was run by its schedule', () => runs(one) + runs(two) > before, 200_000);
    const [row] = await listed(two);
    expect(row).toMatchObject({ image: 'quay.io/org/side:1', lastRun: { error: null } });
    const started = Date.parse(row?.lastRun?.startedAt ?? '');
    // Runs of one minute: both have heard the minute strike, and one has run.
    expect(runs(one) + runs(two) - before).toBeLessThanOrEqual(1 + Math.ceil((Date.now() - started) / 60_000));
  });
});
