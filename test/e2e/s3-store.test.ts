import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StoreKeeper } from '../../src/cache/store-keeper.ts';
import { S3Tier } from '../../src/s3/tier.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { blobTierConformance } from '../conformance/blob-tier.ts';
import { sourceOf } from '../support/byte-source.ts';
import { contentOf } from '../support/cache-rig.ts';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { eventually } from '../support/eventually.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { type GatewayClient, openClient } from '../support/http-client.ts';
import { LockTable, MemoryLocks } from '../support/locks.ts';
import { MemoryObjectIndex } from '../support/memory-object-index.ts';
import { buildImage } from '../support/oci-image.ts';
import { describeWith } from '../support/programs.ts';
import { S3Server } from '../support/s3-server.ts';

const { signal } = new AbortController();
const MIB = 1024 * 1024;

describeWith(['versitygw'], 'an S3 server', () => {
  let server: S3Server;
  beforeAll(async () => {
    server = await S3Server.start();
    Object.assign(process.env, server.env);
  });
  afterAll(() => server?.stop());

  let made = 0;
  blobTierConformance('S3Tier', async () => new S3Tier(server.config(`suite-${made++}/`)));

  it('is kept within its bound: what was used longest ago goes, in two steps, whoever else cleans it', async () => {
    const prefix = 'kept/';
    const tier = new S3Tier(server.config(prefix));
    const objects = new MemoryObjectIndex();
    const repository = { registry: 'registry.example', repository: 'team/app' };
    const contents = Array.from({ length: 5 }, () => contentOf(randomBytes(MIB)));
    for (const { digest, bytes } of contents) {
      await tier.store(digest, sourceOf(bytes), signal);
      await objects.put({ digest, kind: 'blob', size: MIB }, [{ repository, shown: 'anyone' }]);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const [oldest, old, third, ...newest] = contents.map(({ digest }) => digest);
    if (oldest === undefined || old === undefined || third === undefined) throw new Error('fewer than made');
    // Rules of the bucket have removed one that is in use, and somebody has put what nobody knows.
    await tier.remove([third], signal);
    const stray = contentOf(randomBytes(10));
    await tier.store(stray.digest, sourceOf(stray.bytes), signal);
    const keeper = (maxSize: number | null, grace: number) =>
      new StoreKeeper({
        ...{ tier, objects, locks: new MemoryLocks(new LockTable()), maxSize: () => maxSize, log: silentLog() },
        times: { grace, leftAfter: -60_000, walkPause: 0 },
      });
    const under = { name: 'evict store', fence: 1 };
    const visible = () => server.objects(prefix).toSorted();
    const hex = (...digests: readonly string[]) => digests.map((digest) => digest.slice('sha256:'.length)).toSorted();

    await keeper(3 * MIB, 60_000).keepWithin(under, signal);
    expect([await objects.find(oldest), await objects.find(old)]).toEqual([null, null]);
    expect(visible()).toEqual(hex(oldest, old, ...newest, stray.digest));
    await keeper(3 * MIB, 0).keepWithin(under, signal);
    expect(visible()).toEqual(hex(...newest, stray.digest));
    await keeper(null, 0).walk(signal);
    expect(visible()).toEqual(hex(...newest));
    expect([await objects.find(third), await objects.bytes()]).toEqual([null, 2 * MIB]);
    tier.close();
  });
});

describeWith(['versitygw', 'docker-registry'], 'a gateway with a bucket behind its disk', () => {
  const PREFIX = 'gw';
  const image = buildImage('shared', [20 * MIB, 300_000]);
  const [large, small] = image.layers;
  let server: S3Server;
  let upstream: DockerRegistry;
  let gateway: TestGateway;
  let client: GatewayClient;
  showLogOfFailures(() => gateway);

  const path = (what: string) => `/v2/registry.example/team/app/${what}`;
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    return [...text.matchAll(new RegExp(`^gateway_${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))].reduce(
      (sum, [, value]) => sum + Number(value),
      0,
    );
  };
  const uploaded = () =>
    eventually('all of it is in the bucket', async () => (await metric('shared_store_uploads_waiting')) === 0, 60_000);
  const emptyDisk = () => gateway.ok('cache', 'prune', '--yes');
  const asked = () =>
    upstream.requests().filter((line) => line.includes('/blobs/') || line.includes('GET /v2/team/app/manifests/sha256'))
      .length;

  /** By its tag, as clients do; every byte is compared. */
  async function pull(): Promise<void> {
    const accept = { accept: image.manifest.mediaType };
    const manifest = await client.get(path('manifests/1'), { headers: accept });
    expect([manifest.status, manifest.body.equals(image.manifest.bytes)]).toEqual([200, true]);
    for (const { digest } of [image.config, ...image.layers]) {
      const blob = await client.get(path(`blobs/${digest}`));
      expect([blob.status, blob.digest]).toEqual([200, digest]);
    }
  }

  beforeAll(async () => {
    server = await S3Server.start();
    upstream = await startDockerRegistry();
    await upstream.push(image, 'team/app', '1');
    gateway = await startGateway({ config: { cache: { s3: server.config(PREFIX), tagTtl: '1ms' } }, env: server.env });
    await gateway.ok('registry', 'set', 'registry.example', '--endpoint', upstream.endpoint);
    client = openClient(gateway);
  });
  afterAll(async () => {
    client?.close();
    await gateway?.close();
    await upstream?.close();
    await server?.stop();
  });

  it('brings there what it fetches, and fills an empty disk from there: the registry gives nothing twice', async () => {
    await pull();
    await uploaded();
    const digests = [image.manifest, image.config, ...image.layers].map(({ digest }) => digest.slice('sha256:'.length));
    expect(server.objects(PREFIX).toSorted()).toEqual(digests.toSorted());
    const before = asked();
    await emptyDisk();
    await pull();
    expect(asked()).toBe(before);
    expect(await metric('shared_store_read_bytes_total')).toBeGreaterThan(20 * MIB);
  });

  it('reads by range what is wanted by range', async () => {
    await emptyDisk();
    const before = await metric('shared_store_read_bytes_total');
    const from = 10 * MIB;
    const part = await client.get(path(`blobs/${large?.digest}`), {
      headers: { range: `bytes=${from}-${from + 999}` },
    });
    expect([part.status, part.body.equals(large?.bytes.subarray(from, from + 1000) ?? Buffer.alloc(0))]).toEqual([
      206,
      true,
    ]);
    expect((await metric('shared_store_read_bytes_total')) - before).toBeLessThan(MIB);
  });

  it('distrusts wrong bytes: the client gets no whole body of them, they are removed there, and come anew from the registry', async () => {
    await emptyDisk();
    const file = server.file(PREFIX, small?.digest ?? '');
    const bytes = readFileSync(file);
    bytes[1_000] = (bytes[1_000] ?? 0) ^ 1;
    writeFileSync(file, bytes);
    const wrong = await client.get(path(`blobs/${small?.digest}`));
    expect([wrong.whole, wrong.bytes < bytes.length]).toEqual([false, true]);
    expect((await client.get(path(`blobs/${small?.digest}`))).digest).toBe(small?.digest);
    await uploaded();
    await eventually('the right bytes are there', () => readFileSync(file).equals(small?.bytes ?? Buffer.alloc(0)));
  });

  it('redirects to a signed URL where that is wanted: the URL gives the bytes and ranges without credentials', async () => {
    gateway.configure({ cache: { s3: { ...server.config(PREFIX), redirect: true }, tagTtl: '1ms' } });
    await gateway.ok('reload');
    const sent = await client.get(path(`blobs/${large?.digest}`));
    expect([sent.status, sent.bytes, sent.headers['docker-content-digest']]).toEqual([307, 0, large?.digest]);
    const found = await fetch(String(sent.headers.location), { headers: { range: 'bytes=5-9' } });
    expect([found.status, Buffer.from(await found.arrayBuffer())]).toEqual([206, large?.bytes.subarray(5, 10)]);
    const head = await client.get(path(`blobs/${large?.digest}`), { method: 'HEAD' });
    expect([head.status, head.headers['content-length']]).toEqual([200, String(large?.bytes.length)]);
    gateway.configure({ cache: { s3: server.config(PREFIX), tagTtl: '1ms' } });
    await gateway.ok('reload');
    expect((await client.get(path(`blobs/${large?.digest}`))).status).toBe(200);
  });

  describe.each(['breaks', 'swallows'] as const)('where the way to the bucket %s', (how) => {
    it('pulls go on from the registry, without waiting for each blob, and what came goes up afterwards', async () => {
      await emptyDisk();
      server.relay.cut(how);
      const begun = performance.now();
      await pull();
      // One question waits for its answer; the others are not asked.
      expect(performance.now() - begun).toBeLessThan(20_000);
      server.relay.mend();
      await uploaded();
      await emptyDisk();
      await eventually(
        'the bucket is used again',
        async () => {
          await emptyDisk();
          const before = await metric('shared_store_read_bytes_total');
          await pull();
          return (await metric('shared_store_read_bytes_total')) > before;
        },
        60_000,
      );
    });
  });

  it('goes on after a restart with what had not gone up', async () => {
    await emptyDisk();
    server.relay.cut('breaks');
    const other = buildImage('later', [9 * MIB]);
    await upstream.push(other, 'team/later', '1');
    const digest = other.layers[0]?.digest ?? '';
    expect((await client.get(`/v2/registry.example/team/later/blobs/${digest}`)).digest).toBe(digest);
    await gateway.stop();
    server.relay.mend();
    await gateway.start();
    await uploaded();
    expect(server.objects(PREFIX)).toContain(digest.slice('sha256:'.length));
    expect(await new S3Tier(server.config(PREFIX)).clearLeftovers(Date.now() + 3_600_000, signal)).toBe(0);
  });
});
