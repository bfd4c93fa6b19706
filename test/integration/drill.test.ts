import { existsSync, rmSync, statSync, truncateSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { Drill, type DrillRow, type DrillSelection } from '../../src/admin/drill/drill.ts';
import { Layout } from '../../src/cache/files.ts';
import { parseImageName } from '../../src/images/image-name.ts';
import { ownPlatform, parsePlatform, platformText } from '../../src/images/platform.ts';
import type { Digest } from '../../src/oci/names.ts';
import { createUnpluggedCore } from '../../src/proxy/unplugged.ts';
import { sha256 } from '../support/content.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { type AskOptions, type BedOptions, digestOf, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const DAY = 86_400_000;
const STALE_FOR = 7 * DAY;
const APP = 'library/app';

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(options: Partial<BedOptions> & { row?: Partial<BedOptions['registries'][string]> } = {}) {
  const fake = await FakeRegistry.start();
  closers.push(() => fake.close());
  const { row, ...rest } = options;
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake, ...row } }, ...rest });
  closers.push(() => bed.stop());
  const drill = async (text: string, selection: Partial<DrillSelection> = {}): Promise<readonly DrillRow[]> => {
    const { cache } = bed.rig;
    const kept = cache.untouched(new AbortController().signal);
    const table = () => ({ domain: 'localhost', registries: bed.rows, aliases: new Map(), hosts: new Map() });
    const config = { tagTtl: 60_000, staleFor: STALE_FOR, maxSize: rest.keepNothing === true ? 0 : 1 };
    const parts = {
      blobs: () => (rest.keepNothing === true ? null : cache),
      facts: cache.facts,
      manifests: cache.manifests,
      lists: cache.lists,
      content: cache.shared,
      table,
      config,
      now: () => bed.clock,
    };
    const core = createUnpluggedCore(parts, kept, null);
    try {
      const { signal } = new AbortController();
      const drilled = new Drill({ core, kept, cooldown: null, table, config, now: () => bed.clock, signal });
      return await drilled.image(parseImageName(text), { platforms: null, referrers: false, ...selection });
    } finally {
      core.close();
    }
  };
  return { fake, bed, drill, repository: fake.repository(APP), layout: new Layout(bed.rig.dataDir) };
}

interface Pulled {
  readonly config?: { readonly digest: string };
  readonly layers?: readonly { readonly digest: string; readonly urls?: readonly string[] }[];
  readonly manifests?: readonly { readonly digest: string }[];
}

/** Pulls all of an image as containerd does, of an index the first child; waits until the cache has put away what came. */
async function pull(bed: RegistryBed, reference: string, options: AskOptions = {}, repository = APP): Promise<void> {
  await bed.manifest('docker.io', repository, reference, { ...options, method: 'HEAD' });
  const { body } = await bed.manifest('docker.io', repository, reference, options);
  const { config, layers = [], manifests = [] } = JSON.parse(body.toString()) as Pulled;
  for (const { digest } of manifests.slice(0, 1)) await pull(bed, digest, options, repository);
  const blobs = [...(config === undefined ? [] : [config]), ...layers.filter(({ urls }) => urls === undefined)];
  for (const { digest } of blobs) {
    const { truncated } = await bed.blob('docker.io', repository, digest, options);
    if (truncated) throw new Error(`${digest} broke off`);
    const { cache } = bed.rig;
    if (cache.accepts({ registry: 'docker.io', digest: digestOf(digest) }))
      await eventually(`${digest} to be kept`, () => bed.rig.index.blob(digestOf(digest)) !== null);
  }
}

describe('a drill', () => {
  test('names what is missing, and what was pulled is not', async () => {
    const { bed, drill, repository, layout } = await start();
    const image = repository.addImage('1', [Buffer.alloc(5000, 'base'), Buffer.alloc(7000, 'app')]);
    expect(await drill('app:1')).toEqual([
      {
        ...{ image: 'docker.io/library/app:1', platform: null, pullable: false, until: null },
        ...{ needsLogin: false, bytes: 0, notes: [] },
        missing: [{ what: 'tag', digest: null, size: null, missingBytes: null, reason: 'nothing is kept of this tag' }],
      },
    ]);
    await pull(bed, '1');
    const [row] = await drill('app:1');
    expect(row).toMatchObject({ pullable: true, missing: [], needsLogin: false, bytes: image.config.size + 12_000 });
    const left = Date.parse(row?.until ?? '') - Date.now();
    expect(left).toBeGreaterThan(STALE_FOR - 60_000);
    expect(left).toBeLessThanOrEqual(STALE_FOR);
    expect(await drill(`app@${image.digest}`)).toMatchObject([{ pullable: true, until: null }]);

    const [first, second] = image.layers.map(({ digest }) => digest);
    rmSync(layout.blob(first as Digest));
    truncateSync(layout.blob(second as Digest), 100);
    expect((await drill('app:1'))[0]).toMatchObject({
      pullable: false,
      until: null,
      missing: [
        { what: 'layer', digest: first, size: 5000, missingBytes: 5000, reason: 'it is not kept' },
        { what: 'layer', digest: second, size: 7000, missingBytes: 7000, reason: 'it is not kept' },
      ],
    });
  });

  test('leaves no trace', async () => {
    const { bed, drill, repository, layout } = await start();
    const image = repository.addImage('1', [Buffer.alloc(5000, 'base')]);
    await pull(bed, '1');
    bed.clock += 2 * DAY;
    const [layer] = image.layers.map(({ digest }) => digest as Digest);
    const state = async () => ({
      uses: [layer, image.config.digest as Digest].map((digest) => bed.rig.index.lastUse(digest as Digest)),
      counters: bed.rig.index.counters(),
      metrics: (await bed.rig.metrics.text()).replace(/^.*_seconds.*$/gm, ''),
      tag: bed.rig.index.tag({ registry: 'docker.io', repository: APP }, '1', 'oci/3'),
      damaged: await bed.counter('cache_damaged_total'),
    });
    // What was used is written first.
    await eventually('the uses to be written', async () => (await state()).counters.misses === 2);
    const totals = bed.rig.index.totals();
    const before = await state();
    truncateSync(layout.blob(layer as Digest), 10);
    expect(await drill('app:1')).toMatchObject([{ pullable: false }]);
    expect(await drill('app:none')).toMatchObject([{ pullable: false }]);
    await sleep(1_200);
    expect(await state()).toEqual(before);
    expect(bed.rig.index.totals()).toEqual(totals);
    // The registry is asked as if nobody had looked, and the tag's new content is found.
    const moved = repository.addImage('1', ['moved']);
    repository.addImage('none', ['there now']);
    const { headers } = await bed.manifest('docker.io', APP, '1');
    expect(headers['docker-content-digest']).toBe(moved.digest);
    expect((await bed.manifest('docker.io', APP, 'none')).status).toBe(200);
  });

  test('knows how old a tag may be, and until when', async () => {
    const { bed, drill, repository } = await start();
    repository.addImage('1', ['layer']);
    await pull(bed, '1');
    bed.clock += 6 * DAY;
    const [row] = await drill('app:1');
    expect(row?.pullable).toBe(true);
    expect(Math.abs(Date.parse(row?.until ?? '') - Date.now() - DAY)).toBeLessThan(60_000);
    bed.clock += 3 * DAY;
    expect((await drill('app:1'))[0]).toMatchObject({
      missing: [{ what: 'tag', reason: 'the tag was last confirmed 9 d ago, and cache.staleFor is 7 d' }],
    });
  });

  test('of an image for several platforms, those that were pulled are meant, or those that are named', async () => {
    const { bed, drill, repository } = await start();
    const amd64 = repository.addImage(undefined, ['amd64']);
    const arm64 = repository.addImage(undefined, ['arm64']);
    repository.addIndex('1', [amd64, arm64]);
    await bed.manifest('docker.io', APP, '1');
    // None was pulled: this machine's.
    const own = platformText(ownPlatform());
    expect((await drill('app:1')).map(({ platform, pullable }) => [platform, pullable])).toEqual([[own, false]]);
    await pull(bed, '1');
    expect(await drill('app:1')).toMatchObject([{ platform: 'linux/amd64', pullable: true }]);
    const platforms = ['linux/amd64', 'linux/arm64', 'windows/amd64'].map(parsePlatform);
    expect(await drill('app:1', { platforms })).toMatchObject([
      { platform: 'linux/amd64', pullable: true },
      {
        ...{ platform: 'linux/arm64', pullable: false },
        missing: [{ what: 'manifest', digest: arm64.digest, reason: 'it is not kept; what it names cannot be known' }],
      },
      {
        platform: 'windows/amd64',
        pullable: false,
        missing: [{ reason: expect.stringContaining('is not for windows') }],
      },
    ]);
    // Once pulled it is meant, also when its manifest has gone.
    bed.rig.index.removeManifests([amd64.digest]);
    expect(await drill('app:1')).toMatchObject([{ platform: 'linux/amd64', missing: [{ digest: amd64.digest }] }]);
  });

  test('content that its registry closed, and what another repository gave, is told from what is open', async () => {
    const credentials = { username: 'gateway', password: 'secret' };
    const { bed, drill, repository, fake } = await start({ row: { credentials } });
    const image = repository.addImage('1', ['private layer']);
    await pull(bed, '1', { authenticated: true });
    expect(await drill('app:1')).toMatchObject([{ pullable: true, needsLogin: true }]);
    bed.put('docker.io', { fake });
    // What only credentials opened counts no more once there are none: not even the tag is given.
    expect(await drill('app:1')).toMatchObject([
      { pullable: false, missing: [{ what: 'manifest', digest: image.digest }] },
    ]);
    expect(await refusalOf(fake.close().then(() => bed.manifest('docker.io', APP, '1')))).toBe('upstreamFailed');
  });

  test('a blob that another repository gave is here, and not for this one before its registry has said so', async () => {
    const { bed, drill, repository, fake } = await start();
    const layer = Buffer.alloc(3000, 'shared');
    const other = fake.repository('library/other').addImage('1', [layer]);
    await pull(bed, '1', {}, 'library/other');
    const image = repository.addImage('1', [layer]);
    await bed.manifest('docker.io', APP, '1');
    // Its manifest names the layer, and the layer is open: only the config is missing.
    expect(other.layers[0]?.digest).toBe(image.layers[0]?.digest);
    const [row] = await drill('app:1');
    expect(row?.missing.map(({ what, digest }) => [what, digest])).toEqual(
      image.config.digest === other.config.digest ? [] : [['config', image.config.digest]],
    );
  });

  test('registries that are not in the table, and layers from elsewhere', async () => {
    const { bed, drill, repository } = await start();
    expect(await drill('quay.io/a/b:1')).toMatchObject([
      { missing: [{ what: 'tag', reason: "the registry quay.io is not in this gateway's table" }] },
    ]);
    const config = repository.addBlob('{}');
    const here = repository.addBlob('here');
    const layers = [
      { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: here.digest, size: here.size },
      { mediaType: 'foreign', digest: `sha256:${'0'.repeat(64)}`, size: 2048, urls: ['https://elsewhere.example/l'] },
    ];
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const named = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: config.digest, size: config.size };
    repository.addManifest({ schemaVersion: 2, mediaType, config: named, layers }, mediaType, '1');
    await pull(bed, '1');
    expect(await drill('app:1')).toMatchObject([
      {
        pullable: true,
        notes: ['1 of its layers (2 KiB) clients fetch from elsewhere, by the URLs in its manifest'],
      },
    ]);
  });

  test('what only unusual clients were given is said to be that', async () => {
    const { bed, drill, repository } = await start();
    const schema1 = 'application/vnd.docker.distribution.manifest.v1+json';
    const body = { schemaVersion: 1, name: APP, tag: '1', fsLayers: [], history: [] };
    repository.addManifest(body, schema1, '1');
    await bed.manifest('docker.io', APP, '1', { accept: schema1 });
    expect(await drill('app:1')).toMatchObject([
      {
        missing: [
          {
            what: 'tag',
            reason: 'only clients that accept other types have asked for this tag, and were given something else',
          },
        ],
      },
    ]);
  });

  test('referrers are asked for where that is wanted', async () => {
    const { bed, drill, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    await pull(bed, '1');
    const wanted = { referrers: true };
    expect(await drill('app:1', wanted)).toMatchObject([
      { pullable: false, missing: [{ what: 'referrers', digest: image.digest }] },
    ]);
    const signature = repository.addImage(undefined, ['signature'], { subject: image, artifactType: 'a/signature' });
    await bed.ask('docker.io', APP, { kind: 'referrers', digest: image.digest });
    expect(await drill('app:1', wanted)).toMatchObject([{ missing: [{ what: 'manifest', digest: signature.digest }] }]);
    await pull(bed, signature.digest);
    // What refers to the signature itself was never asked for.
    expect(await drill('app:1', wanted)).toMatchObject([{ pullable: true }]);
  });

  test('where nothing is kept no blob is given', async () => {
    const { bed, drill, repository } = await start({ keepNothing: true });
    repository.addImage('1', ['layer']);
    await bed.manifest('docker.io', APP, '1');
    expect((await drill('app:1'))[0]?.pullable).toBe(false);
  });
});

describe('with the plug pulled', () => {
  const seed = Number(process.env.GATEWAY_TEST_SEED ?? Date.now() % 1_000_000);

  test(`exactly those images fail that were named (seed ${seed})`, { timeout: 120_000 }, async () => {
    const random = randomOf(seed);
    const { bed, drill, fake, layout } = await start();
    const layers = Array.from({ length: 30 }, (_, at) => Buffer.alloc(500 + at, `layer ${at} `));
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
    const images: { repository: string; tag: string; digests: string[] }[] = [];
    for (let at = 0; at < 40; at++) {
      const name = `team/app-${at % 7}`;
      const repository = fake.repository(name);
      const chosen = [pick(layers), pick(layers), Buffer.from(`own ${at}`)];
      const image = repository.addImage(`t${at}`, chosen, { docker: random() < 0.3 });
      const digests = [image.digest, image.config.digest, ...image.layers.map(({ digest }) => digest)];
      if (random() < 0.3) repository.addIndex(`t${at}`, [image, repository.addImage(undefined, [`other ${at}`])]);
      images.push({ repository: name, tag: `t${at}`, digests });
      // Some were asked for and not pulled.
      if (random() < 0.9) await pull(bed, `t${at}`, {}, name);
      else await bed.manifest('docker.io', name, `t${at}`);
      bed.clock += random() * 6 * 3_600_000;
    }
    for (const { repository, tag, digests } of images) {
      const harm = random();
      const digest = digestOf(pick(digests.slice(1)));
      const path = layout.blob(digest);
      if (harm < 0.1 && existsSync(path)) rmSync(path);
      else if (harm < 0.2 && existsSync(path)) truncateSync(path, statSync(path).size >> 1);
      else if (harm < 0.25) bed.rig.index.removeManifests([digestOf(digests[0] ?? '')]);
      else if (harm < 0.3) await bed.manifest('docker.io', repository, tag);
      else if (harm < 0.33) bed.rig.index.denyRepository({ registry: 'docker.io', repository });
    }
    bed.rig.cache.facts.deny({ registry: 'docker.io', repository: 'team/app-3' });
    bed.restartCore();
    const named = new Map<string, readonly DrillRow[]>();
    for (const { repository, tag } of images) {
      const rows = await drill(`docker.io/${repository}:${tag}`, { platforms: [parsePlatform('linux/amd64')] });
      named.set(`${repository}:${tag}`, rows);
    }
    await fake.close();
    const failed: string[] = [];
    for (const { repository, tag } of images) {
      const refusal = await refusalOf(pullWhole(bed, repository, tag));
      if (refusal !== 'served') failed.push(`${repository}:${tag}`);
    }
    const missing = [...named].filter(([, rows]) => rows.some(({ pullable }) => !pullable)).map(([name]) => name);
    expect(missing).toEqual(failed);
    expect(failed.length).toBeGreaterThan(5);
    expect(failed.length).toBeLessThan(36);
  });
});

/** As a client does: the tag by HEAD, then what it names by digest, and each blob whole. */
async function pullWhole(bed: RegistryBed, repository: string, reference: string): Promise<void> {
  const head = await bed.manifest('docker.io', repository, reference, { method: 'HEAD' });
  const { body } = await bed.manifest('docker.io', repository, head.headers['docker-content-digest'] ?? '');
  const { config, layers = [], manifests = [] } = JSON.parse(body.toString()) as Pulled;
  const [child] = manifests;
  if (child !== undefined) await pullWhole(bed, repository, child.digest);
  for (const { digest } of config === undefined ? [] : [config, ...layers]) {
    const { truncated, body: bytes } = await bed.blob('docker.io', repository, digest);
    if (truncated || sha256(bytes) !== digest) throw new Error(`${digest} is not whole`);
  }
}

/** The same numbers for the same seed (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
