import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { unpackTar } from 'modern-tar';
import { afterEach, expect, test } from 'vitest';
import type { Operation } from '../../src/admin/contract.ts';
import { startAdminServer } from '../../src/admin/socket.ts';
import { SocketSource } from '../../src/admin/socket-source.ts';
import { run } from '../../src/cli/run.ts';
import { OCI_INDEX } from '../../src/oci/media-types.ts';
import { CoreSource } from '../../src/proxy/core-source.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { generated } from '../support/content.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { digestOf, RegistryBed } from '../support/registry-bed.ts';

// `gateway save` in this process, by the admin socket of a gateway over the real cache and upstream, with a fake registry behind it.

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Names of images are taken as they are. */
const FACTS: Operation = async () => ({
  domain: 'cr.example.com',
  registries: ['docker.io'],
  patterns: [],
  aliases: [],
  ownNames: [],
});

interface Ended {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

async function start(options: { readonly keepNothing?: boolean } = {}) {
  const fake = await FakeRegistry.start();
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } }, ...options });
  closers.push(() => bed.stop());
  const folder = mkdtempSync(join(tmpdir(), 'save-'));
  closers.push(() => rmSync(folder, { recursive: true }));
  const open = () =>
    startAdminServer({
      dataDir: folder,
      operations: new Map([['client.facts', FACTS]]),
      images: new CoreSource(bed.core),
      log: silentLog(),
    });
  let admin = await open();
  closers.push(() => admin.close());
  const file = join(folder, 'images.tar');
  const cli = async (
    args: readonly string[],
    more: { readonly stdout?: Writable; readonly signal?: AbortSignal } = {},
  ): Promise<Ended> => {
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    const collect = (into: Buffer[]) =>
      new Writable({
        write(chunk: Buffer, _, done) {
          into.push(Buffer.from(chunk));
          done();
        },
      });
    const code = await run({
      argv: ['--data-dir', folder, 'save', ...args],
      stdout: more.stdout ?? collect(out),
      stderr: collect(err),
      stdin: Readable.from([]) as unknown as NodeJS.ReadableStream,
      env: {},
      cwd: folder,
      signal: more.signal ?? new AbortController().signal,
    });
    return { code, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() };
  };
  const restart = async () => {
    await admin.close();
    admin = await open();
  };
  return { fake, bed, folder, file, cli, restart, stop: () => admin.close() };
}

async function contents(file: string): Promise<Map<string, Buffer>> {
  const entries = await unpackTar(readFileSync(file), { strict: true });
  return new Map(entries.map(({ header, data }) => [header.name, Buffer.from(data ?? [])]));
}

/** Every blob in it has the digest that it is named by. */
async function expectSound(file: string): Promise<Map<string, Buffer>> {
  const files = await contents(file);
  for (const [name, bytes] of files)
    if (name.startsWith('blobs/'))
      expect(`blobs/sha256/${createHash('sha256').update(bytes).digest('hex')}`).toBe(name);
  return files;
}

test('layers that images share are fetched and written once; saved again from the cache alone it is the same', async () => {
  const { fake, file, folder, cli } = await start();
  const shared = generated(400_000, 'shared');
  fake.repository('library/a').addImage('1', [shared, 'of a']);
  fake.repository('library/b').addImage('1', [shared, 'of b']);
  fake.repository('team/c').addImage('1', [shared, 'of c']);
  const names = ['a:1', 'b:1', 'team/c:1'];
  const saved = await cli([...names, '-o', file, '--json']);
  const result = JSON.parse(saved.stdout.toString()) as { bytes: number; images: object[] };
  expect(result).toMatchObject({ file, format: 'docker-archive', bytes: readFileSync(file).length });
  expect(result.images).toMatchObject([
    { image: 'docker.io/library/a:1', platform: 'linux/amd64', layers: 2, index: null },
    { image: 'docker.io/library/b:1' },
    { image: 'docker.io/team/c:1' },
  ]);
  const files = await expectSound(file);
  expect(files.size).toBe(3 + 3 * 3 + 1);
  expect(fake.log.count({ reference: shared.digest })).toBe(1);
  await fake.close();
  const second = join(folder, 'again.tar');
  expect(await cli([...names, '-o', second])).toMatchObject({ code: 0 });
  expect(readFileSync(second).equals(readFileSync(file))).toBe(true);
});

test('of an index, the platforms that were asked for; one that it is not for is refused in words', async () => {
  const { fake, file, folder, cli } = await start();
  const repository = fake.repository('library/app');
  const children = ['amd64', 'arm64', 's390x'].map((architecture) => {
    const { digest, mediaType, body } = repository.addImage(undefined, [`layer of ${architecture}`], {
      label: architecture,
    });
    return { digest, mediaType, size: body.length, platform: { os: 'linux', architecture } };
  });
  const index = repository.addManifest({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: children }, OCI_INDEX, '1');
  const two = ['--format', 'oci', '--platform', 'linux/amd64,linux/arm64'];
  expect(await cli(['app:1', '-o', file, ...two])).toMatchObject({ code: 0 });
  const files = await expectSound(file);
  expect(files.get(`blobs/sha256/${index.digest.slice(7)}`)).toEqual(index.body);
  expect(children.map(({ digest }) => files.has(`blobs/sha256/${digest.slice(7)}`))).toEqual([true, true, false]);
  const refused = await cli(['app:1', '-o', join(folder, 'b.tar'), '--platform', 'windows/amd64']);
  expect(refused).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('it is for linux/amd64, linux/arm64, linux/s390x'),
  });
  expect(await cli(['app:1', '-o', join(folder, 'b.tar'), '--platform', 'linux/amd64,linux/arm64'])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('--format oci'),
  });
  expect(await cli(['app:2', '-o', join(folder, 'b.tar')])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('has no manifest 2'),
  });
  expect(readdirSync(folder).filter((name) => name.startsWith('b.tar'))).toEqual([]);
});

test('what refers to an image goes into a layout with it', async () => {
  const { fake, file, cli } = await start();
  const repository = fake.repository('library/app');
  const image = repository.addImage('1', ['layer']);
  const signature = repository.addImage(undefined, ['a signature'], {
    subject: image,
    artifactType: 'application/vnd.example.signature',
  });
  const tag = `${image.digest.replace(':', '-')}.sig`;
  const cosign = repository.addImage(tag, ['another signature'], { label: 'cosign' });
  expect(await cli(['app:1', '-o', file, '--format', 'oci', '--referrers'])).toMatchObject({ code: 0 });
  const files = await expectSound(file);
  const { manifests } = JSON.parse(files.get('index.json')?.toString() ?? '') as { manifests: { digest: string }[] };
  expect(manifests.map(({ digest }) => digest)).toEqual([image.digest, signature.digest, cosign.digest]);
  expect(manifests[2]).toMatchObject({
    annotations: { 'org.opencontainers.image.ref.name': `docker.io/library/app:${tag}` },
  });
});

test('a registry that gives wrong bytes fails it, and nothing has the name; once it is right, the rest is fetched', async () => {
  const { fake, file, folder, cli } = await start({ keepNothing: true });
  const [first, second] = [generated(300_000, 'first'), generated(500_000, 'second')];
  fake.repository('library/app').addImage('1', [first, second]);
  fake.faults = ({ reference }) => (reference === second.digest ? { wrongByteAt: 1000 } : undefined);
  const failed = await cli(['app:1', '-o', file]);
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining(second.digest) });
  expect(readdirSync(folder).filter((name) => name.startsWith('images'))).toEqual(['images.tar.partial']);
  fake.faults = () => undefined;
  fake.log.clear();
  const again = await cli(['app:1', '-o', file]);
  expect(again).toMatchObject({ code: 0, stderr: expect.stringContaining('are there from an earlier run') });
  await expectSound(file);
  expect(fake.log.count({ reference: first.digest })).toBe(0);
});

test('a manifest that lies about a size is not believed', async () => {
  const { fake, file, cli } = await start();
  const repository = fake.repository('library/app');
  const { body, mediaType } = repository.addImage('true', [generated(100_000, 'layer')]);
  for (const by of [-10, 10]) {
    const manifest = JSON.parse(body.toString()) as { layers: { size: number }[] };
    for (const layer of manifest.layers) layer.size += by;
    repository.addManifest(manifest, mediaType, 'lies');
    expect(await cli([`app:lies`, '-o', file])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/its manifest says|bytes of a blob that has/),
    });
  }
});

test('a tag that moved between two runs makes the second begin anew, and say so', async () => {
  const { fake, bed, file, cli } = await start();
  const repository = fake.repository('library/app');
  repository.addImage('1', [generated(200_000, 'old')]);
  expect(await cli(['app:1', '-o', file])).toMatchObject({ code: 0 });
  truncateSync(file, 150_000);
  renameSync(file, `${file}.partial`);
  repository.addImage('1', [generated(200_000, 'new')]);
  bed.clock += 3_600_000;
  expect(await cli(['app:1', '-o', file])).toMatchObject({
    code: 0,
    stderr: expect.stringContaining('a tag has moved'),
  });
  const files = await expectSound(file);
  expect(files.has(`blobs/sha256/${generated(200_000, 'new').digest.slice(7)}`)).toBe(true);
});

test('to a pipe goes the same archive, and nothing else; a reader that leaves ends it quietly', async () => {
  const { fake, file, cli } = await start();
  fake.repository('library/app').addImage('1', [generated(3_000_000, 'layer')]);
  expect(await cli(['app:1', '-o', file])).toMatchObject({ code: 0 });
  const piped = await cli(['app:1', '-o', '-']);
  expect(piped.code).toBe(0);
  expect(piped.stdout.equals(readFileSync(file))).toBe(true);
  let taken = 0;
  const leaving = new Writable({
    write(chunk: Buffer, _, done) {
      taken += chunk.length;
      done(taken > 1_000_000 ? Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }) : null);
    },
  });
  const left = await cli(['app:1', '-o', '-'], { stdout: leaving });
  expect(left.code).toBe(1);
  expect(left.stderr).not.toMatch(/EPIPE|unexpected/);
  expect(await cli(['app:1', '-o', '-', '--json'])).toMatchObject({ code: 2 });
});

test('a gateway that ends meanwhile is waited for, and what came is not asked for again', async () => {
  const { fake, file, cli, restart } = await start({ keepNothing: true });
  const layer = generated(4_000_000, 'layer');
  fake.repository('library/app').addImage('1', [layer]);
  fake.faults = ({ reference, nth }) =>
    reference === layer.digest && nth === 0 ? { stallAfter: 2_000_000 } : undefined;
  const saving = cli(['app:1', '-o', file]);
  await eventually('half of the layer to be written', () => {
    const partial = readdirSync(join(file, '..')).includes('images.tar.partial');
    return partial && readFileSync(`${file}.partial`).length > 1_000_000;
  });
  await restart();
  expect(await saving).toMatchObject({ code: 0 });
  await expectSound(file);
  const ranges = fake.log.of({ reference: layer.digest }).map(({ range }) => range?.from ?? 0);
  expect(ranges.length).toBeGreaterThan(1);
  expect(Math.min(...ranges.slice(1))).toBeGreaterThan(1_000_000);
});

test('stopped by its person, it leaves what it has; many at once, and those that leave, free what they read', async () => {
  const { fake, folder, file, cli } = await start({ keepNothing: true });
  const layer = generated(2_000_000, 'layer');
  fake.repository('library/app').addImage('1', [layer]);
  fake.faults = ({ kind }) => (kind === 'blob' ? { stallAfter: 1_500_000 } : undefined);
  const stopping = new AbortController();
  const saving = cli(['app:1', '-o', file], { signal: stopping.signal });
  await eventually(
    'a part to be written',
    () => readdirSync(folder).includes('images.tar.partial') && readFileSync(`${file}.partial`).length > 1_000_000,
  );
  stopping.abort();
  expect(await saving).toMatchObject({ code: 1, stderr: expect.stringContaining('stopped') });
  const source = new SocketSource(folder);
  closers.push(() => source.close());
  const key = { registry: 'docker.io', repository: 'library/app', digest: digestOf(layer.digest) };
  const readers = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const leaving = new AbortController();
      const { body } = await source.blob(key, 0, leaving.signal);
      await body.pull(Buffer.alloc(1000));
      return { body, leaving };
    }),
  );
  for (const [index, { body, leaving }] of readers.entries()) {
    if (index % 2 === 0) leaving.abort();
    await body.close();
  }
  // Its connections to the registry are given back: nothing of what stalls is held for those who left.
  await eventually('the registry to see them leave', () => fake.log.of({ kind: 'blob' }).every(({ done }) => done));
});

test('a file that is there is not replaced, unless that is wanted', async () => {
  const { fake, file, cli } = await start();
  fake.repository('library/app').addImage('1', ['layer']);
  expect(await cli(['app:1', '-o', file])).toMatchObject({ code: 0 });
  expect(await cli(['app:1', '-o', file])).toMatchObject({ code: 1, stderr: expect.stringContaining('--force') });
  expect(await cli(['app:1', '-o', file, '--force'])).toMatchObject({ code: 0 });
});
