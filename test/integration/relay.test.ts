import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { parseImageName } from '../../src/images/image-name.ts';
import type { Selection } from '../../src/images/image-plan.ts';
import type { ImageSource } from '../../src/images/image-source.ts';
import { parsePlatform } from '../../src/images/platform.ts';
import { Relay, type RelayedImage } from '../../src/images/relay.ts';
import { CoreSource } from '../../src/proxy/core-source.ts';
import { openTarget, type TargetRequest } from '../../src/upstream/push/open-target.ts';
import { FileJournal } from '../../src/upstream/push/upload-journal.ts';
import { FakeRegistry, MEDIA } from '../support/fake-registry/index.ts';
import { PushRegistry, type PushRegistryOptions } from '../support/push-registry.ts';
import { RegistryBed } from '../support/registry-bed.ts';

const CHUNK = 64 * 1024;
const LAYER = Buffer.alloc(5 * CHUNK + 1000, 'a layer of some chunks ');
const WHOLE: Selection = { platforms: null, referrers: false };
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(options: PushRegistryOptions = {}) {
  const fake = await FakeRegistry.start();
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } } });
  const registry = await PushRegistry.start(options);
  const folder = mkdtempSync(join(tmpdir(), 'relay-'));
  closers.push(
    () => rmSync(folder, { recursive: true }),
    () => fake.close(),
    () => bed.stop(),
    () => registry.close(),
  );
  const source: ImageSource = new CoreSource(bed.core);
  const told: string[] = [];
  const connect = async (request: Partial<TargetRequest> = {}, signal = AbortSignal.timeout(60_000)) => {
    const target = await openTarget(
      { registry: registry.host, credentials: null, realms: [], ca: null, plainHttp: true, ...request },
      {
        config: { proxy: null, caFile: null, stallTimeout: 5_000 },
        pseudonym: 'of-this-test',
        environment: {},
        journal: new FileJournal(join(folder, 'journal')),
        tell: (sentence) => told.push(sentence),
        backoff: { tries: 4, first: 1, most: 2_000 },
        chunk: CHUNK,
      },
      signal,
    );
    closers.push(() => target.close());
    return target;
  };
  const relay = async (
    name: string,
    {
      selection = WHOLE,
      request = {},
      to = { repository: 'mirror/app', tag: '1' as string | null },
      from = source,
      signal = AbortSignal.timeout(60_000),
    } = {},
  ): Promise<RelayedImage> => {
    const target = await connect(request, signal);
    return await new Relay({ source: from, target, onBlob: () => {} }).relay(
      parseImageName(name),
      to,
      selection,
      signal,
    );
  };
  return { fake, bed, registry, source, folder, told, connect, relay, app: fake.repository('library/app') };
}

/** What the destination has is what the source has, byte for byte. */
function expectSame(registry: PushRegistry, image: { digest: string; body: Buffer; mediaType: string }, tag = '1') {
  const { manifests, tags } = registry.repository('mirror/app');
  expect(tags.get(tag)).toBe(image.digest);
  expect(manifests.get(image.digest)).toEqual({ type: image.mediaType, body: image.body });
}

describe('an image', () => {
  it('is copied whole, and again nothing is sent', async () => {
    const { registry, relay, app } = await start();
    const children = [app.addImage(undefined, [LAYER]), app.addImage(undefined, ['a small layer'])];
    const index = app.addIndex('1', children);
    const done = await relay('app:1');
    expect(done).toMatchObject({
      digest: index.digest,
      form: 'whole',
      manifests: 3,
      pushed: 4,
      mounted: 0,
      skipped: 0,
    });
    expect(done.source).toBe('docker.io/library/app:1');
    expect(done.destination).toBe(`${registry.host}/mirror/app:1`);
    expectSame(registry, index);
    for (const child of children)
      expect(registry.repository('mirror/app').manifests.get(child.digest)?.body).toEqual(child.body);
    expect(registry.received).toBe(done.pushedBytes);
    expect(registry.count('PATCH')).toBe(6);
    registry.seen.length = 0;
    expect(await relay('app:1')).toMatchObject({ manifests: 0, pushed: 0, pushedBytes: 0, skipped: 4 });
    expect(registry.seen.map(({ method }) => method)).toEqual(['GET', 'HEAD']);
  });

  it('that is there under another tag gets its tag alone', async () => {
    const { registry, relay, app } = await start();
    const image = app.addImage('1', [LAYER]);
    await relay('app:1');
    registry.seen.length = 0;
    expect(await relay('app:1', { to: { repository: 'mirror/app', tag: 'stable' } })).toMatchObject({
      manifests: 1,
      pushed: 0,
    });
    expectSame(registry, image, 'stable');
    expect(registry.count('POST')).toBe(0);
  });

  it('that is named by its digest alone is put under that', async () => {
    const { registry, relay, app } = await start();
    const image = app.addImage('1', ['layer']);
    await relay(`app@${image.digest}`, { to: { repository: 'mirror/app', tag: null } });
    expect(registry.repository('mirror/app').tags.size).toBe(0);
    expect(registry.repository('mirror/app').manifests.get(image.digest)?.body).toEqual(image.body);
  });

  it('shares what another repository of the same registry has', async () => {
    const { registry, source, connect, app } = await start();
    const image = app.addImage('1', [LAYER, 'small']);
    const target = await connect();
    // As if the source were a repository there.
    Object.defineProperty(target, 'registry', { value: 'docker.io' });
    const relay = new Relay({ source, target, onBlob: () => {} });
    for (const { digest } of [image.config, ...image.layers].slice(1))
      registry
        .repository('library/app')
        .blobs.set(digest, digest === image.layers[0]?.digest ? LAYER : Buffer.from('small'));
    const done = await relay.relay(
      parseImageName('app:1'),
      { repository: 'mirror/app', tag: '1' },
      WHOLE,
      AbortSignal.timeout(60_000),
    );
    // The configuration is not there: what was no mount is an upload.
    expect(done).toMatchObject({ mounted: 2, pushed: 1 });
    expect(registry.count('POST')).toBe(3);
    expectSame(registry, image);
  });
});

describe('platforms', () => {
  const platforms = (...names: string[]): Selection => ({ platforms: names.map(parsePlatform), referrers: false });

  it('one gives its manifest, plain', async () => {
    const { registry, relay, app } = await start();
    const children = [app.addImage(undefined, ['one']), app.addImage(undefined, ['two'])] as const;
    app.addIndex('1', children);
    expect(await relay('app:1', { selection: platforms('linux/arm64') })).toMatchObject({
      digest: children[1].digest,
      form: 'one platform',
      pushed: 2,
    });
    expectSame(registry, children[1]);
  });

  it('several give an index of them, with all else as it was', async () => {
    const { registry, relay, app } = await start();
    const [amd64, arm64, s390x] = [
      app.addImage(undefined, ['one']),
      app.addImage(undefined, ['two']),
      app.addImage(undefined, ['three']),
    ];
    const entry = (one: typeof amd64, architecture: string) => ({
      mediaType: one.mediaType,
      digest: one.digest,
      size: one.body.length,
      platform: { os: 'linux', architecture },
      annotations: { of: architecture },
    });
    const document = {
      schemaVersion: 2,
      mediaType: MEDIA.index,
      manifests: [entry(s390x, 's390x'), entry(arm64, 'arm64'), entry(amd64, 'amd64')],
      annotations: { org: 'test' },
    };
    const index = app.addManifest(document, MEDIA.index, '1');
    const done = await relay('app:1', { selection: platforms('linux/amd64', 'linux/arm64') });
    expect(done).toMatchObject({ form: 'reduced index', pushed: 4 });
    expect(done.digest).not.toBe(index.digest);
    const { manifests } = registry.repository('mirror/app');
    expect(JSON.parse(String(manifests.get(done.digest)?.body))).toEqual({
      ...document,
      manifests: document.manifests.slice(1),
    });
    expect(manifests.has(s390x.digest)).toBe(false);
  });
});

describe('what refers to an image', () => {
  async function signed(options: PushRegistryOptions) {
    const bed = await start(options);
    const image = bed.app.addImage('1', ['layer']);
    const signature = bed.app.addImage(undefined, ['signature'], {
      subject: image,
      artifactType: 'application/x-signature',
    });
    const old = bed.app.addImage(`${image.digest.replace(':', '-')}.sig`, ['cosign']);
    const done = await bed.relay('app:1', { selection: { platforms: null, referrers: true } });
    const { manifests, tags } = bed.registry.repository('mirror/app');
    expect(done).toMatchObject({ digest: image.digest, manifests: 3 });
    expect(manifests.get(signature.digest)?.body).toEqual(signature.body);
    expect(tags.get(`${image.digest.replace(':', '-')}.sig`)).toBe(old.digest);
    return { ...bed, image, signature, tags, manifests };
  }

  it('goes with it, where the registry lists referrers', async () => {
    const { tags, image } = await signed({ referrers: true });
    expect([...tags.keys()].sort()).toEqual(['1', `${image.digest.replace(':', '-')}.sig`]);
  });

  it('is in the index under its tag, where it lists none; beside what was there, and once', async () => {
    const { registry, relay, tags, manifests, image, signature, app } = await signed({});
    const tag = image.digest.replace(':', '-');
    const read = () =>
      JSON.parse(String(manifests.get(tags.get(tag) ?? '')?.body)) as { manifests: { digest: string }[] };
    expect(read().manifests).toMatchObject([
      {
        digest: signature.digest,
        size: signature.body.length,
        mediaType: MEDIA.manifest,
        artifactType: 'application/x-signature',
      },
    ]);
    const before = tags.get(tag);
    await relay('app:1', { selection: { platforms: null, referrers: true } });
    expect(tags.get(tag)).toBe(before);
    const another = app.addImage(undefined, ['another'], { subject: image, artifactType: 'application/x-sbom' });
    // Its list of referrers is a minute old.
    await relay('app:1', { selection: { platforms: null, referrers: true } });
    expect(
      read()
        .manifests.map(({ digest }) => digest)
        .slice(0, 1),
    ).toEqual([signature.digest]);
    expect(registry.count('PUT', new RegExp(tag))).toBeLessThanOrEqual(3);
    expect(another.digest).toBeTypeOf('string');
  });
});

describe('a chunk that breaks off', () => {
  it('goes on where the registry says that it stands', async () => {
    const { registry, relay, app } = await start({ partial: 'keeps' });
    const image = app.addImage('1', [LAYER]);
    registry.faults = [
      { on: 'PATCH', skip: 2, how: 'break', after: 10_000 },
      { on: 'PATCH', skip: 1, how: 'late' },
    ];
    const done = await relay('app:1');
    expectSame(registry, image);
    expect(registry.faults).toEqual([]);
    // What was confirmed is not sent again; of what was on its way some never came.
    expect(registry.received).toBe(LAYER.length + (image.config.size ?? 0));
    expect(done.pushedBytes).toBeGreaterThanOrEqual(registry.received);
    expect(registry.count('GET', /uploads/)).toBe(2);
  });

  it.each([
    ['is lost with the upload', { on: 'PATCH', skip: 2, how: 'break', after: 10_000 }],
    ['finds the upload gone', { on: 'PATCH', skip: 3, how: 'forget' }],
    ['finds it gone when all is there', { on: 'PUT', skip: 1, how: 'forget' }],
  ] as const)('%s, and the blob begins anew', async (_, fault) => {
    const { registry, relay, app } = await start({ partial: 'loses' });
    const image = app.addImage('1', [LAYER]);
    registry.faults = [fault];
    await relay('app:1');
    expect(registry.faults).toEqual([]);
    expectSame(registry, image);
  });

  it('is committed once, where the answer to that is lost', async () => {
    const { registry, relay, app } = await start();
    const image = app.addImage('1', [LAYER]);
    registry.faults = [
      { on: 'PUT', skip: 0, how: 'late' },
      { on: 'PUT', skip: 0, how: 'late' },
    ];
    await relay('app:1');
    expectSame(registry, image);
    expect(registry.received).toBe(LAYER.length + (image.config.size ?? 0));
  });

  it('is not taken for done by a registry that confirms more than it was sent', async () => {
    const { registry, relay, app } = await start();
    const image = app.addImage('1', [LAYER]);
    registry.faults = [{ on: 'PATCH', how: 'wrong range' }];
    await relay('app:1');
    expectSame(registry, image);
  });

  it('is given up in the end, and says why', async () => {
    const { registry, relay, app } = await start({ partial: 'loses' });
    app.addImage('1', [LAYER]);
    registry.faults = Array.from({ length: 9 }, () => ({ on: 'PATCH', how: 'break', after: 5_000 }) as const);
    await expect(relay('app:1')).rejects.toMatchObject({
      code: 'PUSH_FAILED',
      message: expect.stringContaining(registry.host),
    });
    expect(registry.count('PATCH')).toBeLessThan(9);
  });
});

describe('a registry', () => {
  it.each([[['stream']], [['whole']], [['stream', 'whole']], [['chunks']]] as const)(
    'that takes blobs as %j alone gets them so',
    async (takes) => {
      const { registry, relay, app } = await start({ takes: [...takes] });
      const image = app.addImage('1', [LAYER, Buffer.alloc(3 * CHUNK, 'b')]);
      await relay('app:1');
      expectSame(registry, image);
    },
  );

  it('that wants larger chunks gets them', async () => {
    const { registry, relay, app } = await start({ minChunk: 2 * CHUNK });
    const image = app.addImage('1', [LAYER]);
    await relay('app:1');
    expectSame(registry, image);
    expect(registry.seen.filter(({ method }) => method === 'PATCH').map(({ bytes }) => bytes)).toEqual([
      2 * CHUNK,
      2 * CHUNK,
      CHUNK + 1000,
    ]);
  });

  it('may name its uploads by a path alone', async () => {
    const { registry, relay, app } = await start({ locations: 'relative' });
    const image = app.addImage('1', [LAYER]);
    await relay('app:1');
    expectSame(registry, image);
  });

  it('leads an upload nowhere that it may not', async () => {
    const { registry, relay, app } = await start({ locations: { to: 'http://169.254.169.254' } });
    app.addImage('1', [LAYER]);
    await expect(relay('app:1')).rejects.toMatchObject({ code: 'PUSH_FAILED' });
    expect(registry.count('PATCH')).toBe(0);
  });

  it('that is busy is waited for', async () => {
    const { registry, relay, app } = await start();
    const image = app.addImage('1', [LAYER]);
    registry.faults = [
      { on: 'POST', how: 'status', status: 429, headers: { 'retry-after': '1' } },
      { on: 'PATCH', how: 'status', status: 503 },
      { on: 'PUT', how: 'status', status: 500 },
      { on: 'HEAD', how: 'status', status: 502 },
      { on: 'manifest', how: 'status', status: 504 },
    ];
    const began = performance.now();
    await relay('app:1');
    expect(performance.now() - began).toBeGreaterThan(990);
    expectSame(registry, image);
    expect(registry.faults).toEqual([]);
  });

  it('that asks for too long a wait is not waited for', async () => {
    const { registry, relay, app } = await start();
    app.addImage('1', [LAYER]);
    registry.faults = Array.from(
      { length: 3 },
      () => ({ on: 'POST', how: 'status', status: 429, headers: { 'retry-after': '3600' } }) as const,
    );
    await expect(relay('app:1')).rejects.toMatchObject({
      code: 'PUSH_FAILED',
      message: expect.stringContaining('429'),
    });
  });

  it('that keeps a manifest under another digest is found out', async () => {
    const { registry, relay, app } = await start();
    app.addImage('1', [LAYER]);
    registry.faults = [{ on: 'manifest', how: 'wrong digest' }];
    await expect(relay('app:1')).rejects.toMatchObject({
      code: 'PUSH_FAILED',
      message: expect.stringContaining('keeps the manifest'),
    });
  });

  it('that takes no pushes is told apart', async () => {
    const { registry, relay, app } = await start();
    app.addImage('1', [LAYER]);
    registry.faults = Array.from({ length: 3 }, () => ({ on: 'POST', how: 'status', status: 405 }) as const);
    await expect(relay('app:1')).rejects.toMatchObject({ code: 'PUSH_UNSUPPORTED' });
  });
});

describe('credentials', () => {
  const login = { username: 'bob', password: 'the-secret-of-bob' };

  it('open by Basic', async () => {
    const { registry, relay, app } = await start({ login: { kind: 'basic', ...login } });
    const image = app.addImage('1', [LAYER]);
    await relay('app:1', { request: { credentials: login } });
    expectSame(registry, image);
  });

  it('open by a token for pull and push, and one that ends on the way is renewed', async () => {
    const { registry, relay, app } = await start({ login: { kind: 'bearer', ...login } });
    const image = app.addImage('1', [LAYER]);
    const watching = setInterval(() => {
      if (registry.count('PATCH') < 2) return;
      registry.expireTokens();
      clearInterval(watching);
    }, 1);
    closers.push(() => clearInterval(watching));
    await relay('app:1', { request: { credentials: login } });
    expectSame(registry, image);
    expect(registry.tokens.map(({ scopes }) => scopes).filter((scopes) => scopes.length > 0)).toContainEqual([
      'repository:mirror/app:pull,push',
    ]);
  });

  it('may be a refresh token', async () => {
    const { registry, relay, app } = await start({ login: { kind: 'bearer', ...login, refreshToken: 'refresh-me' } });
    const image = app.addImage('1', [LAYER]);
    await relay('app:1', { request: { credentials: { username: '', password: '', identityToken: 'refresh-me' } } });
    expectSame(registry, image);
    expect(new Set(registry.tokens.map(({ grant }) => grant))).toEqual(new Set(['refresh_token']));
  });

  it.each(['basic', 'bearer'] as const)('that are wrong are refused in words without them (%s)', async (kind) => {
    const { relay, app } = await start({ login: { kind, ...login } });
    app.addImage('1', [LAYER]);
    const error = await relay('app:1', {
      request: { credentials: { username: 'bob', password: 'a-wrong-password' } },
    }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'PUSH_REFUSED', next: expect.stringContaining('docker login') });
    expect(String((error as Error).message)).not.toContain('a-wrong-password');
  });
});

describe('a push that ended on its way', () => {
  it('goes on in the upload that it had begun, where the registry has kept it', async () => {
    const { registry, relay, app, folder } = await start({ partial: 'keeps' });
    const image = app.addImage('1', [LAYER]);
    const ending = new AbortController();
    const watching = setInterval(() => registry.count('PATCH') >= 3 && ending.abort(new Error('ended')), 1);
    closers.push(() => clearInterval(watching));
    await expect(relay('app:1', { signal: ending.signal })).rejects.toThrow('ended');
    clearInterval(watching);
    const [entry = ''] = readdirSync(join(folder, 'journal'));
    const path = join(folder, 'journal', entry);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({
      repository: 'mirror/app',
      digest: image.layers[0]?.digest,
    });
    await relay('app:1');
    expectSame(registry, image);
    expect(registry.received).toBe(LAYER.length + image.config.size);
    expect(readdirSync(join(folder, 'journal'))).toEqual([]);
  });

  it('begins anew, where the registry has forgotten it', async () => {
    const { registry, relay, app } = await start();
    const image = app.addImage('1', [LAYER]);
    const ending = new AbortController();
    const watching = setInterval(() => registry.count('PATCH') >= 3 && ending.abort(new Error('ended')), 1);
    closers.push(() => clearInterval(watching));
    await expect(relay('app:1', { signal: ending.signal })).rejects.toThrow('ended');
    clearInterval(watching);
    registry.uploads.clear();
    await relay('app:1');
    expectSame(registry, image);
  });
});

describe('a source', () => {
  it('that breaks off is gone on with', async () => {
    const { fake, registry, relay, app } = await start();
    const image = app.addImage('1', [LAYER]);
    let broken = 0;
    fake.faults = ({ kind }) => (kind === 'blob' && broken++ < 2 ? { resetAfter: 100_000 } : undefined);
    await relay('app:1');
    expectSame(registry, image);
  });

  it('with wrong bytes commits nothing', async () => {
    const { registry, relay, app, source } = await start();
    const image = app.addImage('1', [LAYER, 'a small one']);
    const wrong: ImageSource = {
      manifest: (...asked) => source.manifest(...asked),
      referrers: (...asked) => source.referrers(...asked),
      tags: (...asked) => source.tags(...asked),
      async blob(key, from, signal) {
        const { size, body } = await source.blob(key, from, signal);
        const pull = async (into: Uint8Array) => {
          const count = await body.pull(into);
          if (count > 0) into[count - 1] = 0xff;
          return count;
        };
        return { size, body: { length: body.length, pull, close: () => body.close() } };
      },
    };
    await expect(relay('app:1', { from: wrong })).rejects.toMatchObject({ code: 'IMAGE_DAMAGED' });
    expect(registry.repository('mirror/app').blobs.size).toBe(0);
    expect(registry.repository('mirror/app').manifests.has(image.digest)).toBe(false);
  });
});
