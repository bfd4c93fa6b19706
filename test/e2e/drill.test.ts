import { rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import Sqlite from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DrillRow } from '../../src/admin/drill/drill.ts';
import type { CacheStats } from '../../src/cache/admin.ts';
import { Layout } from '../../src/cache/files.ts';
import type { Digest } from '../../src/oci/names.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { prepareGateway, showLogOfFailures, type TestGateway } from '../support/gateway.ts';
import { type GatewayClient, openClient, type Received } from '../support/http-client.ts';

const IMAGES = Number(process.env.GATEWAY_TEST_IMAGES ?? 150);
/** Pulls at a time. */
const AT_ONCE = 12;
const DAY = 86_400_000;
const REGISTRIES = ['docker.io', 'quay.io', 'hidden.example'] as const;
const ACCEPT = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
  '*/*',
].join(', ');

interface Image {
  readonly registry: (typeof REGISTRIES)[number];
  readonly repository: string;
  readonly tag: string;
  /** Of linux/amd64. */
  readonly manifest: Digest;
  readonly blobs: readonly { readonly digest: Digest; readonly size: number }[];
}

/** What a client got of an image. */
interface Pulled {
  /** Null where all of it came, with the right digests. */
  readonly failed: string | null;
  /** Of the blobs that its manifest names. */
  readonly missing: readonly string[];
}

const nameOf = ({ registry, repository, tag }: Image) => `${registry}/${repository}:${tag}`;

describe(`of ${IMAGES} images, with every registry unplugged`, () => {
  const registries = new Map<string, FakeRegistry>();
  let gateway: TestGateway;
  let client: GatewayClient;
  let token = '';
  const images: Image[] = [];
  showLogOfFailures(() => gateway);

  const get = (path: string, { method = 'GET', login = true, keep = false } = {}): Promise<Received> => {
    const headers = {
      accept: ACCEPT,
      ...(login ? { authorization: `Basic ${Buffer.from(`ci:${token}`).toString('base64')}` } : {}),
    };
    return client.get(path, { method, headers, keep });
  };

  /** As containerd does: the tag by HEAD, the manifest by its digest, of an index the first child, then config and layers whole. */
  async function pull(image: Image, { blobs = true, login = true } = {}): Promise<Pulled> {
    const base = `/v2/${image.registry}/${image.repository}`;
    const head = await get(`${base}/manifests/${image.tag}`, { method: 'HEAD', login });
    if (head.status !== 200) return { failed: `HEAD of the tag: ${head.status}`, missing: [] };
    let digest = String(head.headers['docker-content-digest']);
    for (;;) {
      const manifest = await get(`${base}/manifests/${digest}`, { keep: true, login });
      if (manifest.status !== 200) return { failed: `manifest ${digest}: ${manifest.status}`, missing: [] };
      if (manifest.digest !== digest) return { failed: `manifest ${digest}: wrong bytes`, missing: [] };
      const {
        manifests,
        config,
        layers = [],
      } = JSON.parse(manifest.text) as {
        manifests?: { digest: string }[];
        config?: { digest: string };
        layers?: { digest: string }[];
      };
      if (manifests?.[0] !== undefined) {
        digest = manifests[0].digest;
        continue;
      }
      const missing: string[] = [];
      for (const blob of blobs && config !== undefined ? [config, ...layers] : []) {
        const { status, whole, digest: came } = await get(`${base}/blobs/${blob.digest}`, { login });
        if (status !== 200 || !whole || came !== blob.digest) missing.push(blob.digest);
      }
      return { failed: missing.length === 0 ? null : `${missing.length} blobs`, missing };
    }
  }

  async function forEach<T>(items: readonly T[], task: (item: T, at: number) => Promise<void>): Promise<void> {
    let next = 0;
    const worker = async () => {
      for (let at = next++; at < items.length; at = next++) await task(items[at] as T, at);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  const drill = async (): Promise<DrillRow[]> => {
    const { code, stdout, stderr } = await gateway.cli(['drill', '--json'], { ms: 120_000 });
    expect(code, stderr).toBe(1);
    return JSON.parse(stdout) as DrillRow[];
  };

  beforeAll(async () => {
    const auth = { scheme: 'bearer', private: true, users: { operator: 'secret' } } as const;
    for (const registry of REGISTRIES)
      registries.set(registry, await FakeRegistry.start(registry === 'hidden.example' ? { auth } : {}));
    const bases = Array.from({ length: 24 }, (_, at) => generated(6_000 + 1_500 * at, `base ${at}`));
    let bytes = bases.reduce((sum, { size }) => sum + size, 0);
    for (let at = 0; at < IMAGES; at++) {
      const registry = REGISTRIES[at % 9 === 8 ? 2 : at % 2] as Image['registry'];
      const repository = `team-${at % 5}/app-${at % 17}`;
      const content = (registries.get(registry) as FakeRegistry).repository(repository);
      const own = generated(4_000 + 37 * (at % 400), `own ${at}`);
      const layers = [bases[at % 24], bases[(at * 7) % 24], own].filter((layer) => layer !== undefined);
      const tag = `v${at}`;
      const isIndex = at % 4 === 1;
      const image = content.addImage(isIndex ? undefined : tag, layers, { label: `image ${at}`, docker: at % 6 === 0 });
      if (isIndex) content.addIndex(tag, [image, content.addImage(undefined, [`other ${at}`])]);
      const blobs = [image.config, ...image.layers].map(({ digest, size }) => ({ digest, size }));
      images.push({ registry, repository, tag, manifest: image.digest, blobs });
      bytes += own.size + image.config.size;
    }
    // A tenth of it has to go again.
    const maxSize = Math.round(0.97 * bytes);
    gateway = await prepareGateway({
      config: { listen: { workers: 1 }, access: { anonymous: true }, cache: { maxSize: `${maxSize}`, minFree: '0' } },
    });
    await gateway.start();
    for (const [registry, { url }] of registries) {
      const login = registry === 'hidden.example' ? ['--username', 'operator', '--password-stdin'] : [];
      const ran = await gateway.cli(['registry', 'set', registry, '--endpoint', url, ...login], { input: 'secret' });
      expect(ran.code, ran.stderr).toBe(0);
    }
    token = (await gateway.ok('user', 'add', 'ci')).trim();
    client = openClient(gateway);
  });

  afterAll(async () => {
    client?.close();
    await gateway?.close();
    await Promise.all([...registries.values()].map((fake) => fake.close()));
  });

  it('exactly those fail that the drill has named, for want of the very bytes', { timeout: 900_000 }, async () => {
    const warming = performance.now();
    // Of some only the manifest was ever wanted.
    await forEach(images, async (image, at) => {
      const { failed } = await pull(image, { blobs: at % 23 !== 5 });
      expect(failed, nameOf(image)).toBeNull();
    });
    const stats = async () => JSON.parse(await gateway.ok('cache', 'stats', '--json')) as CacheStats;
    await eventually('the fills to end', async () => (await stats()).fills === 0);
    const warmed = (performance.now() - warming) / 1000;
    const { evictions } = await stats();
    expect(evictions).toBeGreaterThan(0);
    await gateway.stop();
    damage();

    const asked = [...registries.values()].map(({ log }) => log.count());
    const atRest = await drill();
    await gateway.start();
    const before = await stats();
    const began = performance.now();
    const rows = await drill();
    const took = (performance.now() - began) / 1000;
    // Nobody was asked, and nothing is counted of it.
    expect([...registries.values()].map(({ log }) => log.count())).toEqual(asked);
    const { hits, misses, bytesServed, bytesFetched } = await stats();
    expect({ hits, misses, bytesServed, bytesFetched }).toMatchObject({
      hits: before.hits,
      misses: before.misses,
      bytesServed: before.bytesServed,
      bytesFetched: before.bytesFetched,
    });
    const timeless = (all: readonly DrillRow[]) =>
      JSON.parse(
        JSON.stringify(all, (key, value) => (key === 'until' ? undefined : value)).replace(/9 d [^"]*ago/g, '9 d ago'),
      ) as unknown;
    expect(timeless(rows)).toEqual(timeless(atRest));

    await Promise.all([...registries.values()].map((fake) => fake.close()));
    const pulled = new Map<string, Pulled>();
    await forEach(images, async (image) => void pulled.set(nameOf(image), await pull(image)));

    const named = new Map(rows.map((row) => [row.image, row]));
    expect(rows.length).toBe(named.size);
    expect([...named.keys()].sort()).toEqual(images.map(nameOf).sort());
    const missing = rows.filter(({ pullable }) => !pullable).map(({ image }) => image);
    const failed = [...pulled].filter(([, one]) => one.failed !== null).map(([name]) => name);
    expect(missing.sort()).toEqual(failed.sort());
    let blobs = 0;
    let missingBytes = 0;
    for (const image of images) {
      const row = named.get(nameOf(image)) as DrillRow;
      const { missing: lacking } = pulled.get(nameOf(image)) as Pulled;
      const told = row.missing.filter(({ what }) => what === 'config' || what === 'layer');
      expect(told.map(({ digest }) => digest).sort(), row.image).toEqual([...lacking].sort());
      for (const { digest, size, missingBytes: bytes } of told) {
        const right = image.blobs.find((blob) => blob.digest === digest)?.size;
        expect([size, bytes], `${row.image} ${digest}`).toEqual([right, right]);
        missingBytes += right ?? 0;
      }
      blobs += told.length;
      const isHidden = image.registry === 'hidden.example';
      if (row.bytes > 0 || row.needsLogin) expect(row.needsLogin, row.image).toBe(isHidden);
    }
    // What credentials opened strangers do not get.
    const hidden = images.filter((image) => named.get(nameOf(image))?.needsLogin === true);
    expect(hidden.length).toBeGreaterThan(0);
    for (const image of hidden.slice(0, 3)) expect((await pull(image, { login: false })).failed).toContain('403');
    const reasons = Map.groupBy(
      rows.flatMap((row) => row.missing),
      ({ what, reason }) => `${what}: ${reason}`,
    );
    console.log(
      `${images.length} images pulled in ${warmed.toFixed(1)} s, ${evictions} evictions; drilled in ${took.toFixed(1)} s: ` +
        `${missing.length} missing, ${failed.length} failed; ${blobs} blobs with ${missingBytes} bytes\n` +
        [...reasons].map(([reason, all]) => `  ${all.length} × ${reason}`).join('\n'),
    );
    expect(missing.length).toBeGreaterThan(IMAGES / 20);
    expect(missing.length).toBeLessThan(IMAGES * 0.8);
  });

  /** Harms a data directory at rest: files gone or cut short, tags too old, manifests dropped. */
  function damage(): void {
    const layout = new Layout(gateway.dataDir);
    const index = new Sqlite(join(gateway.dataDir, 'cache.db'));
    const bytesOf = (digest: Digest) => Buffer.from(digest.slice('sha256:'.length), 'hex');
    const digestsLikeThat = index.prepare('SELECT digest FROM manifests WHERE hex(digest) LIKE ?').pluck();
    for (const [at, { registry, repository, tag, manifest, blobs }] of images.entries()) {
      const [config, , , own] = blobs.map(({ digest }) => digest);
      if (at % 19 === 3 && own !== undefined) rmSync(layout.blob(own), { force: true });
      if (at % 29 === 7 && config !== undefined) cut(layout.blob(config));
      if (at % 31 === 11) {
        const row = digestsLikeThat.get(`%${bytesOf(manifest).toString('hex').toUpperCase()}`) as Buffer | undefined;
        if (row !== undefined) index.prepare('DELETE FROM manifests WHERE digest = ?').run(row);
      }
      if (at % 13 !== 4) continue;
      index
        .prepare(
          `UPDATE tags SET checked_at = checked_at - ? WHERE tag = ? AND repository =
            (SELECT id FROM repositories WHERE registry = ? AND name = ?)`,
        )
        .run((at % 2 === 0 ? 9 : 6) * DAY, tag, registry, repository);
    }
    index.close();
  }

  function cut(path: string): void {
    try {
      truncateSync(path, 10);
    } catch {
      // It was evicted.
    }
  }
});
