import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { TagHistory } from '../../src/admin/contract.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { caOf, type Received, send } from '../support/http-client.ts';
import { POSTGRES, PostgresServer } from '../support/postgres.ts';
import { describeWith } from '../support/programs.ts';

/** ms. */
const COOLDOWN = 15_000;

describeWith([...POSTGRES], 'what may pass, of two gateways with one database', () => {
  let server: PostgresServer;
  let database: string;
  let fake: FakeRegistry;
  let folder: string;
  let one: TestGateway;
  let two: TestGateway;
  showLogOfFailures(() => two);

  beforeAll(async () => {
    server = await PostgresServer.start();
    database = await server.createDatabase();
    fake = await FakeRegistry.start();
    folder = mkdtempSync(join(tmpdir(), 'fleet-cooldown-'));
    const secretFile = join(folder, 'keys');
    writeFileSync(secretFile, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600 });
    const config = {
      listen: { workers: 1 },
      cache: { tagTtl: '1s' },
      policy: { cooldown: `${COOLDOWN}ms`, images: ['quay.io/*', '!quay.io/*:latest'] },
      ...{ database, secretFile },
    };
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

  const get = (gateway: TestGateway, path: string): Promise<Received> =>
    send({ port: gateway.httpsPort, path: `/v2/quay.io/${path}`, ca: caOf(gateway), keep: true, agent: false });
  const history = async (gateway: TestGateway, image: string): Promise<TagHistory> =>
    JSON.parse(await gateway.ok('tag', 'history', `quay.io/${image}`, '--json')) as TagHistory;
  const firstSeen = ({ text }: Received): string =>
    (JSON.parse(text) as { errors: [{ detail: { firstSeen: string } }] }).errors[0].detail.firstSeen;

  it('an image is as old as it is for whichever of them saw it first', async () => {
    const repository = fake.repository('org/app');
    const image = repository.addImage('1', ['layer']);
    repository.tags.set('latest', image.digest);
    const young = await get(one, 'org/app/manifests/1');
    expect([young.status, young.text]).toEqual([403, expect.stringContaining('too young')]);
    const first = firstSeen(young);
    // Another gateway counts from the same moment, whether it is asked by a tag or by a digest.
    await eventually('the other knows', async () => (await history(two, 'org/app:1')).spans.length === 1);
    for (const path of ['org/app/manifests/1', `org/app/manifests/${image.digest}`]) {
      const refused = await get(two, path);
      if (Date.now() >= Date.parse(first) + COOLDOWN) break;
      expect([refused.status, firstSeen(refused)]).toEqual([403, first]);
    }
    await eventually(
      'it is old enough for the second',
      async () => (await get(two, 'org/app/manifests/1')).status === 200,
    );
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(first) + COOLDOWN);
    // For the first at once, with what it names; what no tag may give is refused by both.
    for (const path of [
      'org/app/manifests/1',
      ...[image.config, ...image.layers].map(({ digest }) => `org/app/blobs/${digest}`),
    ]) {
      expect((await get(one, path)).status).toBe(200);
    }
    for (const gateway of [one, two]) expect((await get(gateway, 'org/app/manifests/latest')).status).toBe(403);
    const [seenByOne, seenByTwo] = [await history(one, 'org/app:1'), await history(two, 'org/app:1')];
    expect(seenByTwo.spans.map(({ digest, firstSeen: at }) => [digest, at])).toEqual([[image.digest, first]]);
    expect(seenByOne.spans.map(({ digest, firstSeen: at }) => [digest, at])).toEqual([[image.digest, first]]);
  });

  it('while the database is away what is known passes, the rest is refused in words, and what is seen is not lost', async () => {
    const [layer] = fake.repository('org/app').addImage('1', ['layer']).layers;
    expect((await get(two, `org/app/blobs/${layer?.digest}`)).status).toBe(200);
    await server.halt();
    for (const gateway of [one, two]) {
      expect((await get(gateway, 'org/app/manifests/1')).status).toBe(200);
      expect((await get(gateway, `org/app/blobs/${layer?.digest}`)).status).toBe(200);
      expect((await get(gateway, 'org/app/manifests/latest')).status).toBe(403);
    }
    const image = fake.repository('org/app').addImage('2', ['another']);
    const before = Date.now();
    const refused = await get(one, 'org/app/manifests/2');
    expect([refused.status, refused.text]).toEqual([503, expect.stringContaining('cannot be read')]);
    const after = Date.now();
    await server.begin();
    await eventually('it is known to the other', async () => (await history(two, 'org/app:2')).spans.length === 1);
    const [span] = (await history(two, 'org/app:2')).spans;
    expect(span?.digest).toBe(image.digest);
    expect(Date.parse(span?.firstSeen ?? '')).toBeGreaterThanOrEqual(before);
    expect(Date.parse(span?.firstSeen ?? '')).toBeLessThanOrEqual(after);
  });

  it('a database that answers nobody keeps no client for longer than it takes to find that out, however many ask', async () => {
    const images = Array.from({ length: 40 }, (_, nth) =>
      fake.repository('org/many').addImage(`${nth}`, [`of ${nth}`]),
    );
    const held = server.query(
      `BEGIN; LOCK TABLE history_repositories IN ACCESS EXCLUSIVE MODE; SELECT 'locked', pg_sleep(50); ROLLBACK`,
      database,
    );
    await eventually(
      'it is locked',
      async () =>
        (
          await server.query(
            `SELECT 1 FROM pg_locks WHERE relation = 'history_repositories'::regclass AND mode = 'AccessExclusiveLock' AND granted`,
            database,
          )
        ).length > 0,
    );
    const answers = await Promise.all(images.map((_, nth) => get(one, `org/many/manifests/${nth}`)));
    // What is known to be old enough asks nothing of it.
    expect((await get(one, 'org/app/manifests/1')).status).toBe(200);
    // One after the other they would wait for minutes, and be answered once it is free again.
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([503]));
    await held;
    await eventually('they are known', async () => (await history(two, 'org/many')).spans.length === images.length);
  });
});
