import { mkdtempSync, rmSync } from 'node:fs';
import { get, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { startAdminServer } from '../../src/admin/socket.ts';
import { SocketSource } from '../../src/admin/socket-source.ts';
import { parseImageName } from '../../src/images/image-name.ts';
import { planImage, plannedBytes } from '../../src/images/image-plan.ts';
import { type ImageSource, SourceError } from '../../src/images/image-source.ts';
import { parsePlatform } from '../../src/images/platform.ts';
import { OCI_INDEX } from '../../src/oci/media-types.ts';
import type { Digest } from '../../src/oci/names.ts';
import { CoreSource } from '../../src/proxy/core-source.ts';
import { silentLog } from '../../src/telemetry/log.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import { RegistryBed } from '../support/registry-bed.ts';

const SIGNAL = new AbortController().signal;
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const REPOSITORY = 'library/app';

async function start() {
  const fake = await FakeRegistry.start();
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } } });
  closers.push(() => bed.stop());
  const inProcess: ImageSource = new CoreSource(bed.core);
  const dataDir = mkdtempSync(join(tmpdir(), 'images-'));
  closers.push(() => rmSync(dataDir, { recursive: true }));
  const admin = await startAdminServer({ dataDir, operations: new Map(), images: inProcess, log: silentLog() });
  closers.push(() => admin.close());
  const bySocket = new SocketSource(dataDir);
  closers.push(() => bySocket.close());
  const socketPath = join(dataDir, 'admin.sock');
  return { fake, repository: fake.repository(REPOSITORY), inProcess, bySocket, socketPath };
}

async function read(source: ImageSource, digest: Digest, from = 0): Promise<Buffer> {
  const { body } = await source.blob({ registry: 'docker.io', repository: REPOSITORY, digest }, from, SIGNAL);
  const parts: Buffer[] = [];
  const part = Buffer.alloc(1000);
  for (let count = await body.pull(part); count > 0; count = await body.pull(part))
    parts.push(Buffer.from(part.subarray(0, count)));
  await body.close();
  return Buffer.concat(parts);
}

test.each(['inProcess', 'bySocket'] as const)('an image is taken apart and read, %s', async (way) => {
  const { repository, ...ways } = await start();
  const source = ways[way];
  const layer = Buffer.from('layer '.repeat(5000));
  const amd64 = repository.addImage('', [layer]);
  const arm64 = repository.addImage('', ['another layer']);
  const children = [amd64, arm64].map(({ digest, mediaType, body }, index) => ({
    digest,
    mediaType,
    size: body.length,
    platform: { os: 'linux', architecture: index === 0 ? 'amd64' : 'arm64' },
  }));
  const index = repository.addManifest({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: children }, OCI_INDEX, '1');

  const all = await planImage(source, parseImageName('app:1'), { platforms: null, referrers: true }, SIGNAL);
  expect(all.manifests.map(({ digest }) => digest)).toEqual([amd64.digest, arm64.digest, index.digest]);
  expect(all.root).toMatchObject({ mediaType: OCI_INDEX, warning: null });
  expect(Buffer.from(all.root.body)).toEqual(index.body);
  const one = { platforms: [parsePlatform('linux/amd64')], referrers: false };
  const plan = await planImage(source, parseImageName('app:1'), one, SIGNAL);
  expect(plan.manifests.map(({ digest }) => digest)).toEqual([amd64.digest, index.digest]);
  expect(plan.blobs).toHaveLength(2);
  const [config, big] = plan.blobs;
  expect(plannedBytes(plan)).toBe((config?.size ?? 0) + layer.length);
  expect(await read(source, big?.digest as Digest)).toEqual(layer);
  expect(await read(source, big?.digest as Digest, 29_990)).toEqual(layer.subarray(29_990));

  const none = { platforms: [parsePlatform('windows/amd64')], referrers: false };
  await expect(planImage(source, parseImageName('app:1'), none, SIGNAL)).rejects.toMatchObject({
    message: 'docker.io/library/app:1 is not for windows/amd64; it is for linux/amd64, linux/arm64',
  });
  await expect(planImage(source, parseImageName('app:2'), one, SIGNAL)).rejects.toMatchObject({
    status: 404,
    code: 'MANIFEST_UNKNOWN',
    message: expect.stringContaining('docker.io/library/app has no manifest 2'),
  });
  await expect(planImage(source, parseImageName('unknown.test/app'), one, SIGNAL)).rejects.toMatchObject({
    status: 403,
  });
  const tags: string[] = [];
  for await (const page of source.tags({ registry: 'docker.io', repository: REPOSITORY }, SIGNAL)) tags.push(...page);
  expect(tags).toEqual(['1']);
});

test('what its registry does not give is an error in the words of its clients', async () => {
  const { fake, repository, bySocket } = await start();
  const { digest } = repository.addBlob(Buffer.alloc(300_000, 'x'));
  await fake.close();
  await expect(read(bySocket, digest as Digest)).rejects.toMatchObject({
    status: 502,
    message: expect.stringContaining('docker.io failed'),
  });
});

test.each([
  '%zz/manifests/1',
  '..%2F..%2Fx/manifests/1',
  'library/../../app/manifests/1',
  'app%3Fx/manifests/1',
  'app%23x/tags/list',
  'a%0D%0Ab/manifests/1',
  'app/blobs/sha256:x',
  'app/other/1',
])('what is no path of an image is asked of no registry: %s', async (path) => {
  const { fake, socketPath } = await start();
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get({ socketPath, path: `/v2/docker.io/${path}` }, resolve).on('error', reject);
  });
  response.resume();
  expect(response.statusCode).toBe(404);
  expect(fake.log.count()).toBe(0);
});

test('a list of tags that fails, at once or after some pages, fails by the socket as it does in the process', async () => {
  const { bySocket } = await start();
  const unknown = { registry: 'docker.io', repository: 'library/unknown' };
  await expect(bySocket.tags(unknown, SIGNAL)[Symbol.asyncIterator]().next()).rejects.toMatchObject({
    status: 404,
    code: 'NAME_UNKNOWN',
    message: expect.stringContaining('library/unknown'),
  });

  const broken = {
    async *tags() {
      yield ['1', '2'];
      throw new SourceError(429, 'TOOMANYREQUESTS', 'no more today', 30);
    },
  };
  const dataDir = mkdtempSync(join(tmpdir(), 'images-'));
  closers.push(() => rmSync(dataDir, { recursive: true }));
  const admin = await startAdminServer({
    dataDir,
    operations: new Map(),
    images: broken as unknown as ImageSource,
    log: silentLog(),
  });
  closers.push(() => admin.close());
  const source = new SocketSource(dataDir);
  closers.push(() => source.close());
  const pages = source.tags(unknown, SIGNAL)[Symbol.asyncIterator]();
  expect(await pages.next()).toEqual({ done: false, value: ['1', '2'] });
  await expect(pages.next()).rejects.toMatchObject({ status: 429, code: 'TOOMANYREQUESTS', retryAfter: 30 });
});
