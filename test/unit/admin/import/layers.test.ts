import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DistributionStorage } from '../../../../src/admin/import/distribution-storage.ts';
import { importLayers } from '../../../../src/admin/import/layers.ts';
import { newRegistry } from '../../../../src/aliases/names.ts';
import { fromRows } from '../../../../src/aliases/snapshot.ts';
import { type Cache, createCache } from '../../../../src/cache/cache.ts';
import { DEFAULT_CREDENTIAL } from '../../../../src/oci/credentials.ts';
import { acceptClass, OCI_MANIFEST } from '../../../../src/oci/media-types.ts';
import type { Digest } from '../../../../src/oci/names.ts';
import { openCacheIndex } from '../../../../src/sqlite/open-cache-index.ts';
import { silentLog } from '../../../../src/telemetry/log.ts';
import { Metrics } from '../../../../src/telemetry/metrics.ts';

const NOW = Date.now();
const MIB = 1024 * 1024;

let dir: string;
let root: string;
let cache: Cache;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'import-layers-'));
  root = join(dir, 'storage');
  mkdirSync(join(root, 'docker/registry/v2/repositories'), { recursive: true });
  mkdirSync(join(root, 'docker/registry/v2/blobs'), { recursive: true });
  cache = openCache();
});
afterEach(async () => {
  await cache.close();
  rmSync(dir, { recursive: true, force: true });
});

function openCache(maxSize = 100 * MIB): Cache {
  const index = openCacheIndex(dir, silentLog());
  return createCache({
    dataDir: dir,
    config: { maxSize, minFree: 0 },
    index,
    log: silentLog(),
    metrics: new Metrics(),
    maintain: false,
  });
}

const digestOf = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;

function put(path: string, bytes: Uint8Array | string): void {
  const whole = join(root, 'docker/registry/v2', path);
  mkdirSync(dirname(whole), { recursive: true });
  writeFileSync(whole, bytes);
}

const hexOf = (digest: Digest) => digest.slice('sha256:'.length);

function putBlob(bytes: Uint8Array, as = digestOf(bytes)): Digest {
  put(`blobs/sha256/${hexOf(as).slice(0, 2)}/${hexOf(as)}/data`, bytes);
  return as;
}

/** An image of one layer, as a pull-through cache keeps it: what it names, with a link for each. */
function putImage(
  repository: string,
  tag: string,
  options: { layer?: Buffer; linked?: boolean; mediaType?: string | undefined; at?: number } = {},
) {
  const { layer = Buffer.from(`layer of ${repository}`), linked = true, at = NOW } = options;
  const config = Buffer.from(JSON.stringify({ repository, tag }));
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'mediaType' in options ? options.mediaType : OCI_MANIFEST,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
      layers: [
        { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest: digestOf(layer), size: layer.length },
      ],
    }),
  );
  const [manifestDigest, layerDigest] = [putBlob(manifest), putBlob(layer)];
  putBlob(config);
  const base = `repositories/${repository}`;
  put(`${base}/_manifests/revisions/sha256/${hexOf(manifestDigest)}/link`, manifestDigest);
  const link = `${base}/_manifests/tags/${tag}/current/link`;
  put(link, manifestDigest);
  utimesSync(join(root, 'docker/registry/v2', link), at / 1000, at / 1000);
  for (const digest of linked ? [layerDigest, digestOf(config)] : [])
    put(`${base}/_layers/sha256/${hexOf(digest)}/link`, digest);
  return { manifest: manifestDigest, layer: layerDigest };
}

const table = () =>
  fromRows({ domain: 'localhost' } as Parameters<typeof fromRows>[0], {
    registries: [newRegistry('quay.io'), newRegistry('docker.io'), newRegistry('*.pkg.dev')],
    aliases: [],
  });

async function importing(registry: string | null = 'quay.io', closed = false) {
  return importLayers({
    storage: await DistributionStorage.open(root),
    registry,
    shown: () => (closed ? DEFAULT_CREDENTIAL : 'anyone'),
    link: false,
    table,
    intake: cache.admin.intake,
    tagTtl: 60_000,
    now: NOW,
    progress: () => {},
    signal: new AbortController().signal,
  });
}

const at = (repository: string, registry = 'quay.io') => ({ registry, repository });
const tagOf = (repository: string, tag: string, registry = 'quay.io') => {
  for (const variant of acceptClass(undefined).variants) {
    const row = cache.manifests.getTag(at(repository, registry), tag, variant);
    if (row !== null) return row;
  }
  return null;
};

describe('whose the layers are', () => {
  test('they count as given to anyone, by that repository of that registry and no other', async () => {
    const { manifest, layer } = putImage('org/app', '1');
    expect(await importing()).toMatchObject({ repositories: 1, manifests: 1, tags: 1, blobs: 2, damaged: 0 });
    expect(cache.facts.of(at('org/app'), manifest)).toEqual({ said: null, gave: 'anyone', mediaType: OCI_MANIFEST });
    expect(cache.facts.of(at('org/app'), layer)).toEqual({ said: 'anyone', gave: 'anyone', mediaType: null });
    expect(cache.facts.of(at('org/other'), layer)).toBeNull();
    expect(cache.facts.of(at('org/app', 'docker.io'), layer)).toBeNull();
  });

  test('what credentials opened is closed', async () => {
    const { layer } = putImage('org/app', '1');
    await importing('quay.io', true);
    expect(cache.facts.of(at('org/app'), layer)).toMatchObject({ gave: DEFAULT_CREDENTIAL });
    expect(cache.facts.giversOf(layer)).toEqual({
      open: false,
      closedTo: [{ registry: 'quay.io', credential: DEFAULT_CREDENTIAL }],
    });
  });

  test('a layer that the repository has no link to was not given through it', async () => {
    const { layer } = putImage('org/app', '1', { linked: false });
    await importing();
    expect(cache.facts.of(at('org/app'), layer)).toEqual({ said: 'anyone', gave: null, mediaType: null });
    expect(cache.kept(layer)).toBeNull();
  });

  test('names that begin with a registry are of that one, where it is in the table; Docker Hub’s get their library/', async () => {
    putImage('docker.io/alpine', '1');
    const { manifest } = putImage('europe.pkg.dev/org/app', '1');
    putImage('unknown.example/app', '1');
    putImage('plain', '1');
    const done = await importing(null);
    expect(done).toMatchObject({ repositories: 2, unknownRegistries: ['unknown.example'], notUnderstood: ['plain'] });
    expect(tagOf('library/alpine', '1', 'docker.io')).not.toBeNull();
    expect(cache.facts.of(at('org/app', 'europe.pkg.dev'), manifest)).not.toBeNull();
  });

  test('what its registry has refused since is not taken', async () => {
    const { manifest } = putImage('org/app', '1');
    await importing();
    cache.facts.deny(at('org/app'));
    expect(await importing()).toMatchObject({ repositories: 0, denied: ['quay.io/org/app'] });
    expect(cache.facts.of(at('org/app'), manifest)).toBeNull();
  });
});

describe('tags', () => {
  test('are never fresh, and count from when the old cache last asked', async () => {
    putImage('org/new', '1', { at: NOW });
    putImage('org/old', '1', { at: NOW - 3_600_000 });
    await importing();
    expect(tagOf('org/new', '1')?.checkedAt).toBe(NOW - 60_001);
    expect(tagOf('org/old', '1')?.checkedAt).toBe(NOW - 3_600_000);
  });

  test('do not replace what their registry said later', async () => {
    putImage('org/app', '1', { at: NOW - 3_600_000 });
    await importing();
    const later = { digest: digestOf(Buffer.from('other')), checkedAt: NOW };
    for (const variant of acceptClass(undefined).variants) cache.manifests.putTag(at('org/app'), '1', variant, later);
    await importing();
    expect(tagOf('org/app', '1')).toEqual(later);
  });
});

describe('what is damaged, or not what it seems', () => {
  test('a layer with other bytes, and one that is gone, are skipped and counted', async () => {
    const one = putImage('org/one', '1');
    const two = putImage('org/two', '1');
    putBlob(Buffer.from('other bytes'), one.layer);
    rmSync(join(root, 'docker/registry/v2/blobs/sha256', hexOf(two.layer).slice(0, 2)), { recursive: true });
    const done = await importing();
    expect(done.damaged).toBeGreaterThanOrEqual(2);
    expect([cache.kept(one.layer), cache.kept(two.layer)]).toEqual([null, null]);
    expect(cache.facts.of(at('org/one'), one.layer)).toMatchObject({ gave: null });
  });

  test('a manifest with other bytes is not kept, nor its tag', async () => {
    const { manifest } = putImage('org/app', '1');
    putBlob(
      Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: {}, layers: [] })),
      manifest,
    );
    expect(await importing()).toMatchObject({ manifests: 0, tags: 0, damaged: 1 });
    expect(cache.manifests.getManifest(manifest)).toBeNull();
    expect(tagOf('org/app', '1')).toBeNull();
  });

  test('a layer that is a symbolic link leads nowhere', async () => {
    const layer = Buffer.from('of another file of this machine');
    const { layer: digest } = putImage('org/app', '1', { layer });
    const path = join(root, 'docker/registry/v2/blobs/sha256', hexOf(digest).slice(0, 2), hexOf(digest), 'data');
    writeFileSync(join(dir, 'secret'), layer);
    rmSync(path);
    symlinkSync(join(dir, 'secret'), path);
    expect(await importing()).toMatchObject({ damaged: 1 });
    expect(cache.kept(digest)).toBeNull();
  });

  test('a manifest without a type of its own has that of its fields; what is no manifest is listed', async () => {
    const { manifest } = putImage('org/app', '1', { mediaType: undefined });
    putImage('org/odd', '1', { mediaType: 'application/vnd.example+json' });
    const done = await importing();
    expect(done.notUnderstood).toEqual([expect.stringMatching(/^quay\.io\/org\/odd@sha256:/)]);
    expect(cache.facts.of(at('org/app'), manifest)).toMatchObject({ mediaType: OCI_MANIFEST });
  });

  test('a folder that is no storage is refused in words', async () => {
    await expect(DistributionStorage.open(join(dir, 'none'))).rejects.toMatchObject({ code: 'STORAGE_UNREADABLE' });
  });
});

test('a cache without room takes what was asked for last, drops nothing for it, and goes on when there is room', async () => {
  await cache.close();
  cache = openCache(3 * MIB);
  putImage('org/old', '1', { layer: Buffer.alloc(2 * MIB, 1), at: NOW - 3_600_000 });
  const { layer } = putImage('org/new', '1', { layer: Buffer.alloc(2 * MIB, 2), at: NOW - 1_000 });
  expect(await importing()).toMatchObject({ repositories: 1, left: 1 });
  expect(cache.kept(layer)).not.toBeNull();
  expect(cache.admin.stats()).toMatchObject({ evictions: 0 });
  await cache.close();
  cache = openCache();
  expect(await importing()).toMatchObject({ repositories: 2, left: 0, held: 3 });
});
