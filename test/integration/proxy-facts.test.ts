import { afterEach, describe, expect, test } from 'vitest';
import { OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated, sha256 } from '../support/fake-registry/index.ts';
import type { FaultPlan } from '../support/fake-registry/options.ts';
import { type Answered, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const USER = { username: 'operator', password: 'secret' };

async function startFake(isPrivate = false): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(
    isPrivate ? { auth: { scheme: 'bearer', private: true, users: { operator: 'secret' } } } : {},
  );
  closers.push(() => fake.close());
  return fake;
}

/** A public registry, a private one that the operator's credentials open, and a hostile one. */
async function start() {
  const [open, closed, hostile] = [await startFake(), await startFake(true), await startFake()];
  const registries = {
    'docker.io': { fake: open },
    'private.example': { fake: closed, credentials: USER },
    'evil.example': { fake: hostile },
  };
  const bed = await RegistryBed.start({ registries });
  closers.push(() => bed.stop());
  return { open, closed, hostile, bed, registries };
}

/** A secret image of the private registry, in the cache. */
async function keepSecret({ bed, closed }: Awaited<ReturnType<typeof start>>) {
  const image = closed.repository('org/secret').addImage('1', [generated(5_000, 'secret')]);
  const [layer] = image.layers;
  if (layer === undefined) throw new Error('no layer');
  await bed.manifest('private.example', 'org/secret', '1', { authenticated: true });
  await bed.blob('private.example', 'org/secret', layer.digest, { authenticated: true });
  await eventually('the secret layer is kept', () => bed.rig.index.blob(layer.digest) !== null);
  return { image, layer };
}

/** What an attacker sees of content whose digest is known: everything but its bytes is fine. */
const notServed = async (asked: Promise<Answered>, secret: Buffer): Promise<void> => {
  const answered = await asked.catch(() => null);
  expect(answered?.body.equals(secret) ?? false).toBe(false);
};

describe('what only the operator’s credentials opened', () => {
  test.each([
    ['layers', 'layers', OCI_MANIFEST],
    ['config', 'config', OCI_MANIFEST],
    ['blobs', 'blobs', OCI_MANIFEST],
    ['manifests', 'manifests', OCI_MANIFEST],
    ['subject', 'subject', OCI_MANIFEST],
    ['layers of an index', 'layers', OCI_INDEX],
    ['manifests of an index', 'manifests', OCI_INDEX],
    ['a field of nobody’s', 'x-layers', OCI_MANIFEST],
  ])('is not given because a public registry’s manifest names it in %s', async (_, field, mediaType) => {
    const rig = await start();
    const { bed, open } = rig;
    const { image, layer } = await keepSecret(rig);
    // Of a size that is not right: what its own manifest says of a blob is all that a HEAD may tell.
    const descriptors = [layer, image].map(({ digest }) => ({ mediaType: OCI_MANIFEST, digest, size: 1 }));
    open.repository('evil/app').addManifest({ schemaVersion: 2, [field]: descriptors }, mediaType, '1');
    await bed.manifest('docker.io', 'evil/app', '1');
    expect(await refusalOf(bed.blob('docker.io', 'evil/app', layer.digest))).toBe('blobUnknown');
    expect(await refusalOf(bed.manifest('docker.io', 'evil/app', image.digest))).toBe('manifestUnknown');
    bed.clock += 6_000;
    const head = { method: 'HEAD' } as const;
    const told = await bed.blob('docker.io', 'evil/app', layer.digest, head).catch(() => null);
    expect(told?.headers['content-length']).not.toBe(String(layer.size));
    expect(await refusalOf(bed.manifest('docker.io', 'evil/app', image.digest, head))).toBe('manifestUnknown');
  });

  const html: FaultPlan = () => ({ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>hello</html>' });
  test.each<[string, (size: number, digest: string) => FaultPlan]>([
    ['answers everything with 200 and a web page', () => html],
    ['answers everything with 200 and JSON', () => () => ({ status: 200, body: '{}' })],
    [
      'claims the digest in every HEAD, with the right length',
      (size, digest) =>
        ({ method }) =>
          method === 'HEAD'
            ? {
                status: 200,
                headers: {
                  'content-type': OCI_MANIFEST,
                  'content-length': String(size),
                  'docker-content-digest': digest,
                },
              }
            : { status: 404 },
    ],
  ])('is not given because another registry %s', async (_, plan) => {
    const rig = await start();
    const { bed, hostile } = rig;
    const { image, layer } = await keepSecret(rig);
    const secret = layer.read(0, layer.size);
    hostile.faults = plan(layer.size, layer.digest);
    for (const range of [undefined, 'bytes=0-99', 'bytes=0-']) {
      await notServed(bed.blob('evil.example', 'any/app', layer.digest, range === undefined ? {} : { range }), secret);
    }
    const part = await bed.blob('evil.example', 'any/app', layer.digest, { range: 'bytes=0-99' }).catch(() => null);
    expect(part?.body.equals(secret.subarray(0, 100)) ?? false).toBe(false);
    hostile.faults = plan(image.body.length, image.digest);
    for (const reference of [image.digest, 'latest']) {
      await notServed(bed.manifest('evil.example', 'any/app', reference), image.body);
    }
  });

  test('goes through a repository of another registry once that gave it itself', async () => {
    const rig = await start();
    const { bed, open } = rig;
    const { layer } = await keepSecret(rig);
    open.repository('library/app').addBlob(layer);
    const asked = () => bed.blob('docker.io', 'library/app', layer.digest);
    expect(sha256((await asked()).body)).toBe(layer.digest);
    await eventually('it is open', async () => (await asked()).from === 'cache');
    open.faults = () => ({ refuse: true });
    expect((await asked()).from).toBe('cache');
  });
});

describe('the media type of a manifest', () => {
  test('is its own registry’s, whoever else has the same bytes under another type', async () => {
    const { bed, open, hostile } = await start();
    const body = JSON.stringify({ schemaVersion: 2, manifests: [] });
    const { digest } = open.repository('library/app').addManifest(body, OCI_INDEX, '1');
    const types = ['application/vnd.evil+json', OCI_MANIFEST, 'text/plain'];
    await bed.manifest('docker.io', 'library/app', '1');
    for (const type of types) {
      hostile.repository(type.replace(/[^a-z]/g, '')).addManifest(body, type, '1');
      for (const reference of ['1', digest]) {
        const evil = await bed.manifest('evil.example', type.replace(/[^a-z]/g, ''), reference);
        expect(evil.headers['content-type']).toBe(type);
        const good = await bed.manifest('docker.io', 'library/app', reference);
        expect([good.from, good.headers['content-type']]).toEqual(['cache', OCI_INDEX]);
      }
    }
  });

  test('is not changed by a HEAD that says another', async () => {
    const { bed, open } = await start();
    const image = open.repository('library/app').addImage('1', ['layer']);
    await bed.manifest('docker.io', 'library/app', '1');
    bed.clock += 61_000;
    const headers = {
      'content-type': 'application/vnd.other+json',
      'content-length': String(image.body.length),
      'docker-content-digest': image.digest,
    };
    open.faults = ({ method }) => (method === 'HEAD' ? { status: 200, headers } : undefined);
    expect((await bed.manifest('docker.io', 'library/app', '1')).headers['content-type']).toBe(OCI_MANIFEST);
  });

  test('kept by digest is good for every Accept, while its registry is gone', async () => {
    const { bed, open } = await start();
    const { digest } = open.repository('library/app').addManifest('{"a":1}', 'application/octet-stream');
    const accept = `${OCI_MANIFEST}, ${OCI_INDEX}`;
    await bed.manifest('docker.io', 'library/app', digest, { accept });
    open.faults = () => ({ refuse: true });
    for (const asked of [accept, 'application/vnd.x+json', undefined]) {
      expect((await bed.manifest('docker.io', 'library/app', digest, { accept: asked })).status).toBe(200);
    }
  });
});

describe('an unusual Accept', () => {
  test('asks the upstream once, and makes no row for each', async () => {
    const { bed, open } = await start();
    open.repository('library/app').addImage('1', ['layer']);
    for (let seed = 0; seed < 20; seed++) {
      const accept =
        seed % 2 === 0 ? `application/vnd.x${seed}+json` : `${OCI_MANIFEST}, application/vnd.y${seed}+json`;
      expect((await bed.manifest('docker.io', 'library/app', '1', { accept })).status).toBe(200);
    }
    expect(open.log.count({ kind: 'manifest' })).toBe(2);
    expect(bed.rig.index.totals().tags).toBe(2);
  });
});

describe('a repository that its registry has closed', () => {
  const DENIALS: readonly [string, FaultPlan][] = [
    ['401', () => ({ status: 401 })],
    ['403', () => ({ status: 403 })],
  ];

  test.each(DENIALS)('with %s is still closed after a restart', async (_, plan) => {
    const { bed, open, registries } = await start();
    const image = open.repository('library/app').addImage('1', [generated(3_000)]);
    const blob = image.layers[0]?.digest ?? '';
    await bed.manifest('docker.io', 'library/app', '1');
    await bed.blob('docker.io', 'library/app', blob);
    await eventually(
      'the layer is kept',
      async () => (await bed.blob('docker.io', 'library/app', blob)).from === 'cache',
    );
    open.faults = plan;
    bed.clock += 61_000;
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', '1'))).toMatch(/^upstream(Unauthorized|Denied)$/);
    const { index, dataDir } = bed.rig;
    await bed.rig.cache.close();
    const again = await RegistryBed.start({ registries, cache: { index, dataDir } });
    closers.push(() => again.stop());
    for (const method of ['GET', 'HEAD'] as const) {
      for (const asked of [
        () => again.blob('docker.io', 'library/app', blob, { method }),
        () => again.manifest('docker.io', 'library/app', image.digest, { method }),
        () => again.manifest('docker.io', 'library/app', '1', { method }),
      ]) {
        expect(await refusalOf(asked())).toMatch(/^upstream(Unauthorized|Denied)$/);
      }
    }
    open.faults = () => ({ refuse: true });
    expect(await refusalOf(again.blob('docker.io', 'library/app', blob))).toBe('upstreamFailed');
    open.faults = () => undefined;
    expect(sha256((await again.blob('docker.io', 'library/app', blob)).body)).toBe(blob);
  });

  test('is not closed by a HEAD, nor for other repositories and clients of its registry', async () => {
    const { bed, open } = await start();
    const image = open.repository('library/app').addImage('1', [generated(3_000)]);
    const other = open.repository('library/other').addImage('1', [generated(3_000, 'other')]);
    for (const repository of ['library/app', 'library/other']) await bed.manifest('docker.io', repository, '1');
    open.faults = ({ method }) => (method === 'HEAD' ? { status: 403 } : undefined);
    bed.clock += 61_000;
    expect((await bed.manifest('docker.io', 'library/app', '1')).status).toBe(200);
    open.faults = ({ repository }) => (repository === 'library/app' ? { status: 403 } : undefined);
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', 'absent'))).toBe('upstreamDenied');
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', image.digest))).toBe('upstreamDenied');
    const kept = await bed.manifest('docker.io', 'library/other', other.digest);
    expect([kept.from, kept.body]).toEqual(['cache', other.body]);
  });

  test('by digest is closed for that digest alone', async () => {
    const { bed, open } = await start();
    const image = open.repository('library/app').addImage('1', [generated(3_000)]);
    await bed.manifest('docker.io', 'library/app', '1');
    const blob = image.layers[0]?.digest ?? '';
    open.faults = () => ({ status: 403 });
    expect(await refusalOf(bed.blob('docker.io', 'library/app', blob))).toBe('upstreamDenied');
    for (const reference of ['1', image.digest]) {
      expect((await bed.manifest('docker.io', 'library/app', reference)).from).toBe('cache');
    }
  });

  test('is not closed by the host that it redirects to', async () => {
    const fake = await FakeRegistry.start({ redirect: { to: 'absolute', manifests: true } });
    closers.push(() => fake.close());
    const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } } });
    closers.push(() => bed.stop());
    const image = fake.repository('library/app').addImage('1', [generated(3_000)]);
    await bed.manifest('docker.io', 'library/app', '1');
    fake.faults = ({ kind }) => (kind === 'cdn' ? { status: 403 } : undefined);
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', 'absent'))).not.toBe('served');
    fake.faults = ({ path, reference }) => {
      if (path === '/signed') return { status: 403 };
      return reference === 'moved' ? { status: 307, headers: { location: '/signed' } } : undefined;
    };
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', 'moved'))).toBe('upstreamDenied');
    const kept = await bed.manifest('docker.io', 'library/app', image.digest);
    expect([kept.from, kept.body]).toEqual(['cache', image.body]);
  });
});

test('a HEAD’s length that is not the kept manifest’s is not believed', async () => {
  const { bed, open } = await start();
  const image = open.repository('library/app').addImage('1', ['layer']);
  await bed.manifest('docker.io', 'library/app', '1');
  open.repository('library/app').addImage('1', ['another layer']);
  bed.clock += 61_000;
  const headers = { 'content-type': OCI_MANIFEST, 'content-length': '7', 'docker-content-digest': image.digest };
  open.faults = ({ method }) => (method === 'HEAD' ? { status: 200, headers } : undefined);
  const moved = await bed.manifest('docker.io', 'library/app', '1');
  expect(moved.body).toEqual(open.repository('library/app').manifest('1')?.body);
});

describe('what one repository’s word opens for another', () => {
  test('is looked up each time: a manifest that its giver closes is not given from memory either', async () => {
    const { bed, open, hostile } = await start();
    const image = open.repository('library/app').addImage('1', [generated(100, 'layer')]);
    await bed.manifest('docker.io', 'library/app', '1');
    const claim: FaultPlan = ({ method }) =>
      method === 'HEAD'
        ? {
            status: 200,
            headers: {
              'content-type': OCI_MANIFEST,
              'content-length': String(image.body.length),
              'docker-content-digest': image.digest,
            },
          }
        : { status: 404 };
    hostile.faults = claim;
    for (let i = 0; i < 2; i++) {
      expect((await bed.manifest('evil.example', 'any/app', image.digest)).body.equals(image.body)).toBe(true);
    }
    open.faults = () => ({ status: 403 });
    bed.clock += 61_000;
    await refusalOf(bed.manifest('docker.io', 'library/app', '1'));
    bed.clock -= 61_000;
    expect(await refusalOf(bed.manifest('evil.example', 'any/app', image.digest))).toBe('manifestUnknown');
  });

  test('does not fail with it: a blob that is coming through a repository which is closed now goes on through the other', async () => {
    const { bed, open } = await start();
    const blob = generated(3 << 20, 'shared layer');
    for (const name of ['library/one', 'library/two']) open.repository(name).addBlob(blob);
    const part = (name: string, from: number) =>
      bed.blob('docker.io', name, blob.digest, { range: `bytes=${from}-${from + 999}` });
    expect((await part('library/one', 0)).body.equals(blob.read(0, 1000))).toBe(true);
    open.faults = ({ path }) => (path.startsWith('/v2/library/one/') ? { status: 403 } : undefined);
    const other = await part('library/two', 2_000_000);
    expect([other.status, other.truncated, other.body.equals(blob.read(2_000_000, 2_001_000))]).toEqual([
      206,
      false,
      true,
    ]);
  });
});

test('a registry that brought wrong bytes of a blob has not said that it holds it', async () => {
  const { bed, open, hostile } = await start();
  const blob = generated(200_000, 'layer');
  open.repository('library/app').addBlob(blob);
  hostile.repository('any/app').addBlob(blob);
  hostile.faults = ({ method }) => (method === 'GET' ? { wrongByteAt: 100 } : { status: 404 });
  expect((await bed.blob('evil.example', 'any/app', blob.digest)).truncated).toBe(true);
  await bed.blob('docker.io', 'library/app', blob.digest);
  await eventually('the blob is kept', () => bed.rig.index.blob(blob.digest) !== null);
  hostile.faults = () => ({ status: 404 });
  expect(await refusalOf(bed.blob('evil.example', 'any/app', blob.digest))).toBe('blobUnknown');
});
