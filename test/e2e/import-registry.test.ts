import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { LayersImported } from '../../src/admin/contract.ts';
import { type DockerRegistry, startDockerRegistry } from '../support/docker-registry.ts';
import { showLogOfFailures, startGateway, type TestGateway } from '../support/gateway.ts';
import { buildImage } from '../support/oci-image.ts';
import { runOk } from '../support/processes.ts';
import { describeWith, programPath } from '../support/programs.ts';
import { digestsOf, skopeoPull } from '../support/skopeo.ts';

/** As images name the registry: an address with a port can be no part of a name below the gateway's own. */
const host = 'upstream.example';

const app = buildImage('app', [3_000_000, 200_000, 20]);
const tool = buildImage('tool', [100_000]);
const damaged = buildImage('damaged', [50_000]);
const changed = buildImage('changed', [10_000]);

interface Imported {
  readonly added: string[];
  readonly layers: LayersImported[];
  readonly leftOut: { what: string }[];
}

/** A registry, Debian's `docker-registry` as its pull-through cache, and a gateway that moves in: what was pulled needs no upstream any more. */
describeWith(['docker-registry', 'skopeo'], 'a pull-through cache is moved in', () => {
  let upstream: DockerRegistry;
  let cache: DockerRegistry;
  let gateway: TestGateway;
  showLogOfFailures(() => gateway);

  const pull = (reference: string) =>
    skopeoPull({
      image: `localhost:${gateway.httpsPort}/${host}/${reference}`,
      ca: readFileSync(join(gateway.dataDir, 'ca.crt'), 'utf8'),
    });
  const throughTheCache = async (reference: string) => {
    const into = join(cache.root, '..', 'pulled');
    const args = [
      '--insecure-policy',
      'copy',
      '--src-tls-verify=false',
      `docker://127.0.0.1:${cache.port}/${reference}`,
      `dir:${into}`,
    ];
    await runOk({ command: programPath('skopeo'), args });
    rmSync(into, { recursive: true });
  };
  const blobOf = (digest: string) => {
    const hex = digest.slice('sha256:'.length);
    return join(cache.root, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data');
  };
  const importing = async () => {
    const { code, stdout, stderr } = await gateway.cli([
      'import',
      'registry',
      cache.configFile,
      '--registry',
      host,
      '--json',
    ]);
    return { code, stderr, result: JSON.parse(stdout) as Imported };
  };

  beforeAll(async () => {
    upstream = await startDockerRegistry();
    await upstream.push(app, 'org/app', '1');
    await upstream.push(tool, 'org/deep/tool', 'latest');
    await upstream.push(damaged, 'org/damaged', '1');
    cache = await startDockerRegistry({ proxy: { remoteurl: upstream.endpoint } });
    for (const reference of ['org/app:1', 'org/deep/tool:latest', 'org/damaged:1']) await throughTheCache(reference);
    const layer = blobOf(damaged.layers[0]?.digest ?? '');
    writeFileSync(layer, readFileSync(layer).fill(0, 100, 200));
    await upstream.push(changed, 'org/app', 'moving');
    await throughTheCache('org/app:moving');
    await upstream.push(tool, 'org/app', 'moving');
    await upstream.stop();
    gateway = await startGateway();
  });
  afterAll(async () => {
    await gateway?.close();
    await cache?.close();
    await upstream?.close();
  });

  it('a dry run shows what would change, and changes nothing', async () => {
    const { code, stdout } = await gateway.cli([
      'import',
      'registry',
      cache.configFile,
      '--registry',
      host,
      '--dry-run',
    ]);
    expect(code).toBe(0);
    expect(stdout).toContain(`+ the registry ${host} fetched from ${upstream.endpoint}`);
    expect(stdout).toContain(`+ the layers in ${cache.root}, as those of ${host}`);
    expect(await gateway.ok('registry', 'ls')).not.toContain(host);
  });

  it('takes the row, and every layer whose bytes are right, while the gateway runs', async () => {
    const { code, result } = await importing();
    // Something is damaged, and a person should know.
    expect(code).toBe(1);
    expect(result.added).toHaveLength(1);
    // Three images, and the one that `moving` was: layers and a configuration each.
    expect(result.layers).toMatchObject([
      { repositories: 3, manifests: 4, tags: 4, blobs: 9, damaged: 1, held: 0, left: 0 },
    ]);
    expect(result.leftOut.map(({ what }) => what)).toEqual([expect.stringContaining(damaged.layers[0]?.digest ?? '')]);
  });

  it.each([
    ['a tag', () => 'org/app:1', app],
    ['a tag of a deeper repository', () => 'org/deep/tool:latest', tool],
    ['a digest', () => `org/app@${app.manifest.digest}`, app],
  ])('skopeo pulls by %s without a byte of the upstream', async (_, reference, image) => {
    const { ran, digests } = await pull(reference());
    expect(ran.code, ran.stderr).toBe(0);
    expect(digests).toEqual(digestsOf(image));
    expect(await gateway.ok('cache', 'stats', '--json')).toContain('"bytesFetched": 0');
  });

  it('what was damaged is not served', async () => {
    expect((await pull('org/damaged:1')).ran.code).not.toBe(0);
  });

  it('once more takes nothing twice', async () => {
    const { result } = await importing();
    expect(result.added).toEqual([]);
    expect(result.layers).toMatchObject([{ blobs: 0, bytes: 0, held: 9, damaged: 1 }]);
  });

  it('with --link by hard links, into a gateway that does not run', async () => {
    await gateway.stop();
    const dataDir = join(cache.root, '..', 'linked');
    const other = await startGateway({ dataDir });
    await other.stop();
    const ran = await other.cli(['import', 'registry', cache.configFile, '--link', '--json']);
    const [done] = (JSON.parse(ran.stdout) as Imported).layers;
    expect(done).toMatchObject({ blobs: 9, linked: 9 });
    const hex = (app.layers[0]?.digest ?? '').slice('sha256:'.length);
    const ours = statSync(join(dataDir, 'blobs/sha256', hex.slice(0, 2), hex));
    expect(ours.ino).toBe(statSync(blobOf(app.layers[0]?.digest ?? '')).ino);
    await other.close();
    await gateway.start();
  });

  it('with a full cache stops, says what is left, and goes on when there is room', async () => {
    const small = await startGateway({ config: { cache: { maxSize: '2MiB' } } });
    try {
      const ran = await small.cli(['import', 'registry', cache.configFile]);
      expect(ran.code).toBe(1);
      expect(ran.stdout).toMatch(/! no more room in the cache: \d repositories were not taken over, or not whole/);
      const before = JSON.parse(await small.ok('cache', 'stats', '--json')) as { bytes: number };
      expect(before.bytes).toBeLessThanOrEqual(2 * 1024 * 1024);
      small.configure({ cache: { maxSize: '1GiB' } });
      await small.stop();
      await small.start();
      const { stdout } = await small.cli(['import', 'registry', cache.configFile, '--json']);
      expect((JSON.parse(stdout) as Imported).layers).toMatchObject([{ left: 0, damaged: 1 }]);
    } finally {
      await small.close();
    }
  });

  it('with the upstream back, a tag that has moved since is the new one at once', async () => {
    await upstream.start();
    await gateway.stop();
    await gateway.start();
    const { ran, digests } = await pull('org/app:moving');
    expect(ran.code, ran.stderr).toBe(0);
    expect(digests).toEqual(digestsOf(tool));
    // And what was damaged comes from there.
    expect((await pull('org/damaged:1')).digests).toEqual(digestsOf(damaged));
  });
});
