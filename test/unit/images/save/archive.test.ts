import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unpackTar } from 'modern-tar';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseImageName } from '../../../../src/images/image-name.ts';
import type { ImageSource } from '../../../../src/images/image-source.ts';
import { parsePlatform } from '../../../../src/images/platform.ts';
import { ArchiveFile, checkFree, type Leftover } from '../../../../src/images/save/archive-file.ts';
import { type ArchivePlan, planArchive } from '../../../../src/images/save/archive-plan.ts';
import { BEGINNING, writeArchive } from '../../../../src/images/save/archive-writer.ts';
import { layOut } from '../../../../src/images/save/members.ts';
import type { ArchiveFormat } from '../../../../src/images/save/selected-image.ts';
import { MemoryImages } from '../../../support/memory-images.ts';
import { buildImage, topOf, withAttestation, withPlatforms } from '../../../support/oci-image.ts';

const SIGNAL = new AbortController().signal;

const base = buildImage('base', [150_000]);
const one = buildImage('one', [3_000], { base });
const two = withAttestation(buildImage('two', [5_000, 400], { base }));
const many = withPlatforms({
  amd64: buildImage('many', [700], { base }),
  arm64: buildImage('arm', [900], { architecture: 'arm64' }),
  s390x: buildImage('s390', [800], { architecture: 's390x' }),
});

let folder: string;
let source: MemoryImages;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'save-'));
  source = new MemoryImages();
  source.add('docker.io/library/one:1', one);
  source.add('quay.io/team/two:2', two);
  source.add('ghcr.io/team/many:3', many);
});
afterEach(() => {
  rmSync(folder, { recursive: true });
  expect(source.open).toBe(0);
});

const ALL = ['one:1', 'quay.io/team/two:2', 'ghcr.io/team/many:3'];

interface Options {
  readonly format?: ArchiveFormat;
  readonly platforms?: readonly string[];
  readonly from?: ImageSource;
}

function plan(
  names: readonly string[],
  { format = 'docker-archive', platforms, from = source }: Options = {},
): Promise<ArchivePlan> {
  const request = {
    format,
    platforms: platforms?.map(parsePlatform) ?? [parsePlatform('linux/amd64')],
    referrers: false,
  };
  const all = platforms === undefined && format === 'oci' ? { platforms: null } : {};
  return planArchive(from, { ...request, ...all, images: names.map(parseImageName) }, SIGNAL);
}

/** As a pipe gets it. */
async function streamed(names: readonly string[], options: Options = {}): Promise<Buffer> {
  const parts: Buffer[] = [];
  const layout = await layOut((await plan(names, options)).members);
  const target = { rewinds: false, write: async (bytes: Uint8Array) => void parts.push(Buffer.from(bytes)) };
  await writeArchive({ layout, source: options.from ?? source, target, from: BEGINNING, signal: SIGNAL });
  const whole = Buffer.concat(parts);
  expect(whole.length).toBe(layout.length);
  return whole;
}

async function save(
  file: string,
  names: readonly string[],
  options: Options & { replace?: boolean } = {},
): Promise<Leftover> {
  const layout = await layOut((await plan(names, options)).members);
  const archive = await ArchiveFile.open(file, layout, SIGNAL);
  try {
    await writeArchive({ layout, source: options.from ?? source, target: archive, from: archive.from, signal: SIGNAL });
    await archive.keep({ replace: options.replace === true });
    return archive.leftover;
  } finally {
    await archive.leave();
  }
}

async function contents(archive: Buffer): Promise<Map<string, Buffer>> {
  const entries = await unpackTar(archive, { strict: true });
  return new Map(entries.map(({ header, data }) => [header.name, Buffer.from(data ?? [])]));
}

interface DockerEntry {
  readonly Config: string;
  readonly RepoTags: readonly string[] | null;
}

function dockerEntries(files: ReadonlyMap<string, Buffer>): DockerEntry[] {
  return JSON.parse(files.get('manifest.json')?.toString() ?? 'null') as DockerEntry[];
}

function indexEntries(files: ReadonlyMap<string, Buffer>): { readonly digest: string }[] {
  return (JSON.parse(files.get('index.json')?.toString() ?? 'null') as { manifests: { digest: string }[] }).manifests;
}

const path = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;

describe('a docker-archive', () => {
  test('has every layer once, the names whole, and all content under its digest', async () => {
    const files = await contents(await streamed(ALL));
    expect(dockerEntries(files)).toEqual([
      {
        Config: path(one.config.digest),
        RepoTags: ['docker.io/library/one:1'],
        Layers: one.layers.map(({ digest }) => path(digest)),
      },
      {
        Config: path(two.config.digest),
        RepoTags: ['quay.io/team/two:2'],
        Layers: two.layers.map(({ digest }) => path(digest)),
      },
      {
        Config: path(many.config.digest),
        RepoTags: ['ghcr.io/team/many:3'],
        Layers: many.layers.map(({ digest }) => path(digest)),
      },
    ]);
    expect(indexEntries(files).map(({ digest }) => digest)).toEqual(
      [one, two, many].map(({ manifest }) => manifest.digest),
    );
    const blobs = [one, two, many].flatMap(({ manifest, config, layers }) => [manifest, config, ...layers]);
    for (const { digest, bytes } of blobs) expect(files.get(path(digest))).toEqual(bytes);
    expect(files.size).toBe(3 + new Set(blobs.map(({ digest }) => digest)).size);
    expect(source.asked.filter(({ digest }) => digest === base.layers[0]?.digest)).toHaveLength(1);
  });

  test('is the same twice, byte for byte, and whatever way the bytes come', async () => {
    const first = await streamed(ALL);
    source.chunk = 777;
    expect((await streamed(ALL)).equals(first)).toBe(true);
  });

  test('names an image for the platform that was asked for, and has no other', async () => {
    const files = await contents(await streamed(['ghcr.io/team/many:3'], { platforms: ['linux/arm64'] }));
    const config = dockerEntries(files)[0]?.Config ?? '';
    expect(JSON.parse(files.get(config)?.toString() ?? '')).toMatchObject({ architecture: 'arm64' });
    expect(files.has(path(many.config.digest))).toBe(false);
  });

  test('has no name for what was named by digest alone, and one entry for what has two names', async () => {
    const byDigest = `one@${one.manifest.digest}`;
    const files = await contents(await streamed([byDigest]));
    expect(dockerEntries(files)[0]?.RepoTags).toBeNull();
    source.add('docker.io/library/one:latest', one);
    const both = dockerEntries(await contents(await streamed(['one:1', 'one', 'one:1'])));
    expect(both).toHaveLength(1);
    expect(both[0]?.RepoTags).toEqual(['docker.io/library/one:1', 'docker.io/library/one:latest']);
  });

  test('takes an image that does not say what it is for, and says nothing of it', async () => {
    const bytes = Buffer.from(JSON.stringify({ ...JSON.parse(one.config.bytes.toString()), os: '', architecture: '' }));
    const { sha256 } = await import('../../../support/content.ts');
    const config = { ...one.config, bytes, digest: sha256(bytes) };
    const manifest = JSON.parse(one.manifest.bytes.toString());
    const body = Buffer.from(
      JSON.stringify({ ...manifest, config: { ...manifest.config, digest: config.digest, size: bytes.length } }),
    );
    source.add('docker.io/library/anywhere:1', {
      ...one,
      config,
      manifest: { ...one.manifest, bytes: body, digest: sha256(body) },
    });
    const { images, notes } = await plan(['anywhere:1']);
    expect(notes).toEqual([]);
    expect(images[0]?.platform).toBeNull();
  });

  test('is refused for what docker load would not take', async () => {
    const text = (value: unknown) => Buffer.from(JSON.stringify(value));
    const { sha256 } = await import('../../../support/content.ts');
    const put = (name: string, mediaType: string, value: unknown) => {
      const bytes = text(value);
      source.add(name, { ...one, manifest: { bytes, mediaType, digest: sha256(bytes) } });
    };
    const manifest = JSON.parse(one.manifest.bytes.toString());
    put('docker.io/library/foreign:1', one.manifest.mediaType, {
      ...manifest,
      layers: manifest.layers.map((layer: object) => ({ ...layer, urls: ['https://elsewhere.example/layer'] })),
    });
    await expect(plan(['foreign:1'])).rejects.toMatchObject({
      code: 'IMAGE_UNSUITABLE',
      message: expect.stringContaining('elsewhere'),
    });
    expect((await plan(['foreign:1'], { format: 'oci' })).notes).toEqual([
      expect.stringContaining('2 layers that are to be had elsewhere'),
    ]);
    put('docker.io/library/fewer:1', one.manifest.mediaType, { ...manifest, layers: manifest.layers.slice(1) });
    await expect(plan(['fewer:1'])).rejects.toMatchObject({
      code: 'IMAGE_DAMAGED',
      message: expect.stringContaining('1 layers, and its configuration 2'),
    });
    const schema1 = 'application/vnd.docker.distribution.manifest.v1+json';
    put('docker.io/library/old:1', schema1, {
      schemaVersion: 1,
      fsLayers: manifest.layers.map(({ digest }: { digest: string }) => ({ blobSum: digest })),
    });
    for (const format of ['docker-archive', 'oci'] as const)
      await expect(plan(['old:1'], { format })).rejects.toMatchObject({
        code: 'IMAGE_UNSUITABLE',
        message: expect.stringContaining('schema 1'),
      });
    put('docker.io/library/huge:1', one.manifest.mediaType, {
      ...manifest,
      layers: manifest.layers.map((layer: object) => ({ ...layer, size: 2 ** 52 })),
    });
    await expect(plan(['huge:1'])).rejects.toMatchObject({ code: 'IMAGE_DAMAGED' });
    await expect(plan(['one:1'], { platforms: ['linux/arm64'] })).rejects.toMatchObject({
      code: 'IMAGE_UNSUITABLE',
      message: 'docker.io/library/one:1 is for linux/amd64 alone, and not for linux/arm64',
    });
  });
});

describe('an image layout', () => {
  test('has indexes whole, with what they name', async () => {
    const files = await contents(await streamed(ALL, { format: 'oci' }));
    expect(files.has('manifest.json')).toBe(false);
    expect(JSON.parse(files.get('oci-layout')?.toString() ?? '')).toEqual({ imageLayoutVersion: '1.0.0' });
    const names = ['docker.io/library/one:1', 'quay.io/team/two:2', 'ghcr.io/team/many:3'];
    expect(indexEntries(files)).toEqual(
      [one, two, many].map(topOf).map(({ digest, mediaType, bytes }, index) => ({
        mediaType,
        digest,
        size: bytes.length,
        annotations: { 'io.containerd.image.name': names[index], 'org.opencontainers.image.ref.name': names[index] },
      })),
    );
    for (const { digest, bytes } of [
      topOf(two),
      ...(two.index?.others ?? []),
      topOf(many),
      ...(many.index?.others ?? []),
    ])
      expect(files.get(path(digest))).toEqual(bytes);
  });

  test('of one platform has that image alone; of several the index as it is, without the others', async () => {
    const single = await contents(
      await streamed(['ghcr.io/team/many:3'], { format: 'oci', platforms: ['linux/amd64'] }),
    );
    expect(indexEntries(single)).toMatchObject([{ digest: many.manifest.digest, platform: { architecture: 'amd64' } }]);
    expect(single.size).toBe(2 + 4);
    const some = await contents(
      await streamed(['ghcr.io/team/many:3'], { format: 'oci', platforms: ['linux/amd64', 'linux/s390x'] }),
    );
    expect(indexEntries(some)).toMatchObject([{ digest: topOf(many).digest }]);
    const children = JSON.parse(topOf(many).bytes.toString()).manifests.map(({ digest }: { digest: string }) =>
      some.has(path(digest)),
    );
    expect(children).toEqual([true, false, true]);
  });
});

describe('a source that is not as it should be', () => {
  const layer = base.layers[0]?.digest ?? '';

  test('wrong bytes fail it, nothing has the name, and the next run makes it right', async () => {
    const file = join(folder, 'a.tar');
    const whole = await streamed(ALL);
    source.fault(layer, { kind: 'wrong' });
    await expect(save(file, ALL)).rejects.toMatchObject({
      code: 'IMAGE_DAMAGED',
      message: expect.stringContaining(layer),
    });
    expect(readdirSync(folder)).toEqual(['a.tar.partial']);
    expect(await save(file, ALL)).toBe('same');
    expect(readFileSync(file).equals(whole)).toBe(true);
  });

  test('sizes that lie are refused, told beforehand or not', async () => {
    source.fault(layer, { kind: 'longer' });
    await expect(streamed(ALL)).rejects.toMatchObject({
      code: 'IMAGE_DAMAGED',
      message: expect.stringContaining('more bytes'),
    });
  });

  test('what breaks off is gone on with from there', async () => {
    const whole = await streamed(ALL);
    source.asked.length = 0;
    source.fault(layer, { kind: 'breaks', after: 1000 }, { kind: 'breaks', after: 50_000 });
    expect((await streamed(ALL)).equals(whole)).toBe(true);
    expect(source.asked.filter(({ digest }) => digest === layer).map(({ from }) => from)).toEqual([0, 1000, 51_000]);
  });
});

describe('a save that was killed', () => {
  test('is gone on with from wherever it was, and reads nothing twice', async () => {
    const file = join(folder, 'a.tar');
    const whole = await streamed(ALL);
    const layout = await layOut((await plan(ALL)).members);
    const blobs = layout.pieces.filter((piece) => 'member' in piece);
    const bounds = layout.pieces.flatMap(({ at, length }) => [at - 1, at, at + 1, at + (length >> 1)]);
    const spread = Array.from({ length: 40 }, (_, index) => Math.floor((layout.length * index) / 40));
    const offsets = [...new Set([...bounds, ...spread, layout.length - 1, layout.length])].filter((at) => at >= 0);
    for (const offset of offsets) {
      writeFileSync(`${file}.partial`, whole.subarray(0, offset));
      source.read = 0;
      expect(await save(file, ALL)).toBe(offset === 0 ? 'none' : 'same');
      expect(readFileSync(file).equals(whole), `from ${offset}`).toBe(true);
      const missing = blobs.reduce(
        (sum, { at, length }) => sum + Math.min(length, Math.max(0, at + length - offset)),
        0,
      );
      const configs = [one, two, many].reduce((sum, { config }) => sum + config.bytes.length, 0);
      expect(source.read - configs, `read from ${offset}`).toBe(missing);
      rmSync(file);
    }
    expect(offsets.length).toBeGreaterThan(100);
  });

  test('what was spoilt meanwhile is read again, as a part of a blob or a whole one', async () => {
    const file = join(folder, 'a.tar');
    const whole = await streamed(ALL);
    const layout = await layOut((await plan(ALL)).members);
    const first = layout.pieces.find((piece) => 'member' in piece);
    if (first === undefined) throw new Error('no blob');
    for (const end of [first.at + 10_000, layout.length - 5000]) {
      const spoilt = Buffer.from(whole.subarray(0, end));
      spoilt[first.at + 100] = (spoilt[first.at + 100] ?? 0) ^ 0xff;
      writeFileSync(`${file}.partial`, spoilt);
      expect(await save(file, ALL)).toBe('same');
      expect(readFileSync(file).equals(whole)).toBe(true);
      rmSync(file);
    }
  });

  test('is begun anew where a tag has moved, or something else was asked for', async () => {
    const file = join(folder, 'a.tar');
    const whole = await streamed(ALL);
    const moved = buildImage('moved', [2_000], { base });
    writeFileSync(`${file}.partial`, whole.subarray(0, whole.length - 3000));
    source.add('docker.io/library/one:1', moved);
    expect(await save(file, ALL)).toBe('other');
    expect(readFileSync(file).equals(await streamed(ALL))).toBe(true);
    rmSync(file);
    writeFileSync(`${file}.partial`, whole.subarray(0, whole.length - 3000));
    expect(await save(file, ALL, { format: 'oci' })).toBe('other');
    rmSync(file);
    writeFileSync(`${file}.partial`, 'something of somebody else');
    expect(await save(file, ALL)).toBe('other');
  });
});

describe('the file', () => {
  test('is not replaced unless that is wanted, and is made as the umask says', async () => {
    const file = join(folder, 'a.tar');
    writeFileSync(file, 'precious');
    await expect(checkFree(file, { replace: false })).rejects.toMatchObject({ code: 'SAVE_EXISTS' });
    await expect(save(file, ALL)).rejects.toMatchObject({ code: 'SAVE_EXISTS' });
    expect(readFileSync(file, 'utf8')).toBe('precious');
    await save(file, ALL, { replace: true });
    expect(statSync(file).mode & 0o777).toBe(0o666 & ~process.umask());
    expect(readdirSync(folder)).toEqual(['a.tar']);
    await expect(checkFree(folder, { replace: true })).rejects.toMatchObject({ code: 'SAVE_UNWRITABLE' });
    await expect(checkFree(join(folder, 'no', 'a.tar'), { replace: true })).rejects.toMatchObject({
      code: 'SAVE_UNWRITABLE',
    });
    await expect(save(join(folder, 'no', 'a.tar'), ALL)).rejects.toMatchObject({ code: 'SAVE_UNWRITABLE' });
  });

  test('what somebody else has put in its way is not written through', async () => {
    const file = join(folder, 'a.tar');
    const victim = join(folder, 'victim');
    writeFileSync(victim, 'precious');
    symlinkSync(victim, `${file}.partial`);
    await expect(save(file, ALL)).rejects.toMatchObject({ code: 'SAVE_UNWRITABLE' });
    expect(readFileSync(victim, 'utf8')).toBe('precious');
  });

  test('two that write the same at once both end well; one that writes something else takes it over', async () => {
    const file = join(folder, 'a.tar');
    const whole = await streamed(ALL);
    const ended = await Promise.allSettled([save(file, ALL), save(file, ALL)]);
    const refusals = ended.flatMap((end) => (end.status === 'rejected' ? [end.reason as { code: string }] : []));
    expect(refusals.every(({ code }) => code === 'SAVE_EXISTS')).toBe(true);
    expect(refusals.length).toBeLessThan(2);
    expect(readFileSync(file).equals(whole)).toBe(true);
    rmSync(file);
    const layout = await layOut((await plan(ALL)).members);
    const slow = await ArchiveFile.open(file, layout, SIGNAL);
    await writeArchive({ layout, source, target: slow, from: slow.from, signal: SIGNAL });
    await save(file, ['one:1']);
    await expect(slow.keep({ replace: true })).rejects.toMatchObject({
      message: expect.stringContaining('another command'),
    });
    await slow.leave();
    expect(readFileSync(file).equals(await streamed(['one:1']))).toBe(true);
  });

  test('a layer larger than a header of tar can say is told by a record before it', async () => {
    const manifest = JSON.parse(one.manifest.bytes.toString());
    manifest.layers[0].size = 9 * 1024 ** 3;
    const { sha256 } = await import('../../../support/content.ts');
    const bytes = Buffer.from(JSON.stringify(manifest));
    source.add('docker.io/library/large:1', { ...one, manifest: { ...one.manifest, bytes, digest: sha256(bytes) } });
    const layout = await layOut((await plan(['large:1'])).members);
    const at = layout.pieces.findIndex((piece) => 'member' in piece && piece.length === 9 * 1024 ** 3);
    const head = layout.pieces[at - 1];
    if (head === undefined || !('bytes' in head)) throw new Error('no header');
    expect(Buffer.from(head.bytes).toString('latin1')).toContain(` size=${9 * 1024 ** 3}\n`);
    expect(head.length % 512).toBe(0);
  });
});
