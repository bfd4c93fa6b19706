import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CacheStats } from '../../src/cache/admin.ts';
import { eventually } from '../support/eventually.ts';
import { type FakeBed, startFakeBed } from '../support/fake-bed.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { type GatewayClient, openClient } from '../support/http-client.ts';
import { type Namespace, openNamespace } from '../support/namespace.ts';
import { runOk, runProgram } from '../support/processes.ts';
import { describeWith } from '../support/programs.ts';

const MIB = 1024 * 1024;
const statsOf = async (gateway: TestGateway): Promise<CacheStats> =>
  JSON.parse(await gateway.ok('cache', 'stats', '--json')) as CacheStats;

describe('a cache of 200 MiB under a stream of images of 2 GiB', () => {
  const LIMIT = 200 * MIB;
  const IMAGES = 32;
  let bed: FakeBed;
  showLogOfFailures(() => bed?.gateway);

  beforeAll(async () => {
    bed = await startFakeBed({ maxSize: '200MiB', minFree: '0' });
  });
  afterAll(() => bed?.close());

  /** Bytes of files, as the file system counts them. */
  const onDisk = (): number => {
    let sum = 0;
    for (const folder of ['blobs', 'partial']) {
      for (const entry of readdirSync(join(bed.gateway.dataDir, folder), { recursive: true, withFileTypes: true })) {
        // Files come and go meanwhile.
        const file = entry.isFile() && statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
        if (file) sum += file.blocks * 512;
      }
    }
    return sum;
  };

  it('stays within 200 MiB after each fill and at every look in between, and every pull succeeds', async () => {
    const images = Array.from({ length: IMAGES }, (_, number) =>
      bed.upstream.repository('library/stream').addImage(
        `v${number}`,
        [15, 20, 28.5].map((size, layer) => generated(size * MIB, `${number}/${layer}`)),
      ),
    );
    const total = images.flatMap(({ layers }) => layers).reduce((sum, { size }) => sum + size, 0);
    expect(total).toBeGreaterThan(1.98 * 1024 * MIB);
    let most = 0;
    let looks = 0;
    const look = (): void => {
      most = Math.max(most, onDisk());
      looks++;
    };
    const watching = setInterval(look, 50);
    const queue = images.map((image, number) => ({ image, tag: `v${number}` }));
    const pullAll = async (): Promise<void> => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const { image, tag } = next;
        const manifest = await bed.client.get(`/v2/docker.io/library/stream/manifests/${tag}`);
        expect(manifest).toMatchObject({ status: 200, digest: image.digest });
        const parts = [image.config, ...image.layers];
        await Promise.all(
          parts.map(async ({ digest, size }) => {
            const got = await bed.client.get(`/v2/docker.io/library/stream/blobs/${digest}`);
            expect(got).toMatchObject({ status: 200, whole: true, digest, bytes: size });
            look();
          }),
        );
        expect((await bed.stats()).bytes).toBeLessThanOrEqual(LIMIT);
      }
    };
    try {
      // Two at a time: what is in use does not fill the cache, and most blobs are kept.
      await Promise.all([pullAll(), pullAll()]);
    } finally {
      clearInterval(watching);
    }
    expect(looks).toBeGreaterThan(100);
    expect(most).toBeLessThanOrEqual(LIMIT);
    const { bytes, evictions } = await bed.stats();
    expect(bytes).toBeGreaterThan(LIMIT / 2);
    expect(evictions).toBeGreaterThan(40);
    // The newest is still here.
    bed.upstream.faults = () => ({ status: 500 });
    const last = images.at(-1);
    const layer = last?.layers[0];
    expect(await bed.client.get(`/v2/docker.io/library/stream/blobs/${layer?.digest}`)).toMatchObject({ whole: true });
  });
});

describeWith(['linux', 'root', 'unshare', 'nsenter', 'mount'], 'a disk of 96 MiB that fills up', () => {
  let dataDir: string;
  let space: Namespace;
  let upstream: FakeRegistry;
  let gateway: TestGateway;
  let client: GatewayClient;
  showLogOfFailures(() => gateway);

  beforeAll(async () => {
    dataDir = mkdtempSync(join(tmpdir(), 'gateway-disk-'));
    space = await openNamespace({ hosts: {}, network: false });
    await runOk({
      command: 'mount',
      args: ['-t', 'tmpfs', '-o', 'size=96m,mode=0700', 'none', dataDir],
      within: space,
    });
    upstream = await FakeRegistry.start();
    gateway = await startGateway({
      dataDir,
      within: space,
      config: { listen: { workers: 1 }, cache: { minFree: '0' } },
    });
    await gateway.ok('registry', 'set', 'docker.io', '--endpoint', upstream.url);
    const { stdout } = await runOk({ command: 'cat', args: [join(dataDir, 'ca.crt')], within: space });
    client = openClient(gateway, stdout);
  });
  afterAll(async () => {
    client?.close();
    await gateway?.close();
    await upstream?.close();
    await space?.close();
    rmSync(dataDir, { recursive: true, force: true });
  });

  const add = (size: number, seed: string) => upstream.repository('library/app').addBlob(generated(size, seed));
  const get = (digest: string) => client.get(`/v2/docker.io/library/app/blobs/${digest}`);

  it('by itself: it makes room, and every pull succeeds', async () => {
    for (let number = 0; number < 12; number++) {
      const { digest } = add(20 * MIB, `own ${number}`);
      expect(await get(digest)).toMatchObject({ status: 200, whole: true, digest });
    }
    const { blobs, evictions } = await statsOf(gateway);
    expect(blobs).toBeGreaterThan(0);
    expect(evictions).toBeGreaterThan(5);
  });

  it('by others, in the middle of fills: nobody misses a byte; it is said once, counted, and over when there is room', async () => {
    const junk = join(dataDir, 'junk');
    await gateway.ok('cache', 'prune', '--yes');
    upstream.faults = () => ({ bytesPerSecond: 8 * MIB });
    const slow = Array.from({ length: 3 }, (_, number) => add(16 * MIB, `others ${number}`));
    const pulls = slow.map(({ digest }) => get(digest));
    await eventually('the fills to be under way', () => upstream.log.bytes({ kind: 'blob' }) > 0);
    await eventually('a part to be there', async () => (await statsOf(gateway)).fills === 3);
    // Ends with "no space left", as it should.
    await runProgram({ command: 'dd', args: ['if=/dev/zero', `of=${junk}`, 'bs=64k'], within: space });
    for (const [number, received] of (await Promise.all(pulls)).entries()) {
      expect(received).toMatchObject({ status: 200, whole: true, digest: slow[number]?.digest });
    }
    upstream.faults = () => undefined;
    const more = add(MIB, 'while it is full');
    expect(await get(more.digest)).toMatchObject({ status: 200, whole: true, digest: more.digest });
    const metrics = await (await fetch(`http://127.0.0.1:${gateway.metricsPort}/metrics`)).text();
    expect(metrics).toMatch(/gateway_cache_write_errors_total\{code="ENOSPC"\} [1-9]/);
    const said = gateway.logLines().filter(({ msg }) => String(msg).startsWith('the cache cannot write'));
    expect(said).toHaveLength(1);

    await runOk({ command: 'rm', args: [junk], within: space });
    const { blobs } = await statsOf(gateway);
    let number = 0;
    await eventually('the cache to keep again', async () => {
      const { digest } = add(1000, `room again ${number++}`);
      expect(await get(digest)).toMatchObject({ whole: true, digest });
      return (await statsOf(gateway)).blobs > blobs;
    });
  });
});
