import { afterEach, describe, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, generated, sha256 } from '../support/fake-registry/index.ts';
import { MemoryTier } from '../support/memory-tier.ts';
import { digestOf, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const USER = { username: 'operator', password: 'secret' };

async function startFake(isPrivate: boolean): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(
    isPrivate ? { auth: { scheme: 'bearer', private: true, users: { operator: 'secret' } } } : {},
  );
  closers.push(() => fake.close());
  return fake;
}

/** A public and a private registry; the private one is opened by the operator's credentials. */
async function start(row: { public?: boolean } = {}) {
  const open = await startFake(false);
  const closed = await startFake(true);
  const bed = await RegistryBed.start({
    registries: { 'docker.io': { fake: open }, 'private.example': { fake: closed, credentials: USER, ...row } },
  });
  closers.push(() => bed.stop());
  return { open, closed, bed };
}

describe('two registries', () => {
  test('with the same name of different content never mix', async () => {
    const one = await startFake(false);
    const other = await startFake(false);
    const bed = await RegistryBed.start({ registries: { 'docker.io': { fake: one }, 'quay.io': { fake: other } } });
    closers.push(() => bed.stop());
    const images = [one, other].map((fake, at) =>
      fake.repository('library/app').addImage('1', [generated(1000, `layer ${at}`)], { label: `${at}` }),
    );
    for (let round = 0; round < 2; round++) {
      for (const [at, registry] of ['docker.io', 'quay.io'].entries()) {
        const image = images[at];
        const foreign = images[1 - at];
        if (image === undefined || foreign === undefined) throw new Error('no image');
        expect((await bed.manifest(registry, 'library/app', '1')).body).toEqual(image.body);
        expect(await refusalOf(bed.manifest(registry, 'library/app', foreign.digest))).toBe('manifestUnknown');
        for (const layer of image.layers) {
          expect(sha256((await bed.blob(registry, 'library/app', layer.digest)).body)).toBe(layer.digest);
        }
        for (const layer of foreign.layers) {
          for (const method of ['GET', 'HEAD'] as const) {
            expect(await refusalOf(bed.blob(registry, 'library/app', layer.digest, { method }))).toBe('blobUnknown');
          }
        }
      }
    }
  });

  test('share the bytes of what both hold, once each has shown that it does', async () => {
    const one = await startFake(false);
    const other = await startFake(false);
    const bed = await RegistryBed.start({ registries: { 'docker.io': { fake: one }, 'quay.io': { fake: other } } });
    closers.push(() => bed.stop());
    const blob = generated(100_000, 'shared');
    const image = one.repository('library/app').addImage('1', [blob]);
    other.repository('org/app').addImage('1', [blob]);
    await bed.manifest('docker.io', 'library/app', '1');
    await bed.blob('docker.io', 'library/app', blob.digest);
    // Known by its bare digest only: the upstream's HEAD must show it, and its bytes are here.
    const reply = await bed.blob('quay.io', 'org/app', blob.digest);
    expect([reply.from, sha256(reply.body)]).toEqual(['cache', blob.digest]);
    expect(other.log.of({ kind: 'blob' }).map(({ method }) => method)).toEqual(['HEAD']);
    await bed.blob('quay.io', 'org/app', blob.digest);
    expect(other.log.count({ kind: 'blob' })).toBe(1);
    const manifest = await bed.manifest('quay.io', 'org/app', image.digest);
    expect([manifest.body, other.log.of({ kind: 'manifest' }).map(({ method }) => method)]).toEqual([
      image.body,
      ['HEAD'],
    ]);
  });

  test('get nothing out of the cache’s second level before each has shown that it holds it', async () => {
    const one = await startFake(false);
    const other = await startFake(false);
    const tier = new MemoryTier();
    const blob = generated(100_000, 'in the tier');
    await tier.holds(digestOf(blob.digest), blob.read(0, blob.size), 'docker.io');
    one.repository('library/app').addBlob(blob);
    other.repository('org/app');
    const registries = { 'docker.io': { fake: one }, 'quay.io': { fake: other } };
    const bed = await RegistryBed.start({ registries, cache: { shared: tier.parts } });
    closers.push(() => bed.stop());
    expect(await refusalOf(bed.blob('quay.io', 'org/app', blob.digest))).toBe('blobUnknown');
    const reply = await bed.blob('docker.io', 'library/app', blob.digest);
    expect([reply.status, sha256(reply.body)]).toEqual([200, blob.digest]);
    for (const fake of [one, other]) {
      expect(fake.log.of({ kind: 'blob' }).map(({ method }) => method)).toEqual(['GET']);
    }
    await eventually('the fill has ended', () => bed.rig.cache.admin.stats().fills === 0);
    await bed.rig.cache.admin.prune({ all: true }, () => {}, new AbortController().signal);
    // Known by now: its registry is not asked again.
    expect(sha256((await bed.blob('docker.io', 'library/app', blob.digest)).body)).toBe(blob.digest);
    expect(one.log.count({ kind: 'blob' })).toBe(1);
  });

  test('do not share the failure of one’s fill', async () => {
    const { open, closed, bed } = await start();
    const blob = generated(50_000, 'both');
    closed.repository('org/secret');
    open.repository('library/app').addBlob(blob);
    closed.faults = (request) => (request.kind === 'blob' ? { delay: 300 } : undefined);
    const failing = refusalOf(bed.blob('private.example', 'org/secret', blob.digest, { authenticated: true }));
    await eventually('closed.log.count({ kind: "blob" }) > 0', () => closed.log.count({ kind: 'blob' }) > 0);
    const reply = await bed.blob('docker.io', 'library/app', blob.digest);
    expect([sha256(reply.body), await failing]).toEqual([blob.digest, 'blobUnknown']);
  });

  test('that ask for the same blob at the same moment get it only where each holds it', async () => {
    const holder = await startFake(false);
    const other = await startFake(false);
    const bed = await RegistryBed.start({ registries: { 'docker.io': { fake: holder }, 'quay.io': { fake: other } } });
    closers.push(() => bed.stop());
    other.repository('org/app');
    const served = (digest: string) => bed.blob('docker.io', 'library/app', digest).then(({ body }) => sha256(body));
    const refused = (digest: string) => refusalOf(bed.blob('quay.io', 'org/app', digest));
    const [one, two] = [generated(50_000, 'one'), generated(50_000, 'two')];
    for (const blob of [one, two]) holder.repository('library/app').addBlob(blob);
    // Whichever begins the fill: neither its bytes nor its failure are the other’s.
    expect(await Promise.all([served(one.digest), refused(one.digest)])).toEqual([one.digest, 'blobUnknown']);
    expect(await Promise.all([refused(two.digest), served(two.digest)])).toEqual(['blobUnknown', two.digest]);
    for (const { digest } of [one, two]) expect(await refused(digest)).toBe('blobUnknown');
  });

  test('do not share the failure of a fill that one began while the other was asked for a range', async () => {
    const holder = await startFake(false);
    const other = await startFake(false);
    const bed = await RegistryBed.start({ registries: { 'docker.io': { fake: holder }, 'quay.io': { fake: other } } });
    closers.push(() => bed.stop());
    other.repository('org/app');
    const blob = holder.repository('library/app').addBlob(generated(8 * 1024 * 1024, 'ranges'));
    const digest = blob.digest;
    const asked = (fake: FakeRegistry) => () => fake.log.count({ kind: 'blob' }) > 0;
    // The holder answers the range with the whole blob; the other’s fill runs by then, and fails later.
    holder.faults = () => ({ ignoreRange: true, delay: 300 });
    other.faults = () => ({ delay: 600 });
    const served = bed.blob('docker.io', 'library/app', digest, { range: 'bytes=0-99' });
    await eventually('the holder is asked', asked(holder));
    const refused = refusalOf(bed.blob('quay.io', 'org/app', digest));
    await eventually('the other is asked', asked(other));
    const { status, body } = await served;
    expect([status, sha256(body), await refused]).toEqual([206, sha256(blob.read(0, 100)), 'blobUnknown']);
  });

  test('what one holds is not the other’s to give while the other cannot be asked', async () => {
    const { open, closed, bed } = await start();
    const blob = closed.repository('org/secret').addBlob(generated(5000));
    await bed.blob('private.example', 'org/secret', blob.digest, { authenticated: true });
    open.faults = () => ({ status: 503 });
    for (const method of ['GET', 'HEAD'] as const) {
      expect(await refusalOf(bed.blob('docker.io', 'library/app', blob.digest, { method }))).toBe('upstreamFailed');
    }
  });
});

test('a foreign layer that a manifest names is no proof that its repository holds it', async () => {
  const { open, closed, bed } = await start();
  const secret = closed.repository('org/secret').addBlob(generated(5000));
  await bed.blob('private.example', 'org/secret', secret.digest, { authenticated: true });
  const descriptor = { mediaType: 'x/y', digest: secret.digest, size: secret.size };
  const names = [
    { layers: [{ ...descriptor, urls: ['https://elsewhere.example/x'] }] },
    { manifests: [descriptor] },
    { subject: descriptor },
  ];
  for (const [at, body] of names.entries()) {
    open.repository('evil/app').addManifest(body, 'application/vnd.oci.image.manifest.v1+json', `${at}`);
    await bed.manifest('docker.io', 'evil/app', `${at}`);
    expect(await refusalOf(bed.blob('docker.io', 'evil/app', secret.digest))).toBe('blobUnknown');
    bed.clock += 6_000;
  }
});

describe('what the operator’s credentials open', () => {
  test('goes to authenticated clients only, cached or not, and nothing is told about what exists', async () => {
    const { closed, bed } = await start();
    const image = closed.repository('org/app').addImage('1', [generated(3000)]);
    const [layer] = image.layers;
    const asks = (authenticated: boolean) => [
      bed.manifest('private.example', 'org/app', '1', { authenticated }),
      bed.manifest('private.example', 'org/app', image.digest, { authenticated, method: 'HEAD' }),
      bed.blob('private.example', 'org/app', layer?.digest ?? '', { authenticated }),
      bed.ask('private.example', 'org/app', { kind: 'tags' }, { authenticated }),
      bed.ask('private.example', 'org/app', { kind: 'referrers', digest: image.digest }, { authenticated }),
    ];
    const kinds = async (authenticated: boolean) => Promise.all(asks(authenticated).map(refusalOf));
    expect(await kinds(false)).toEqual(Array(5).fill('privateContent'));
    expect(closed.log.count()).toBe(0);
    expect(await refusalOf(bed.manifest('private.example', 'org/absent', '1'))).toBe('privateContent');
    expect(await kinds(true)).toEqual(Array(5).fill('served'));
    expect(await kinds(false)).toEqual(Array(5).fill('privateContent'));
  });

  test('goes to everyone where its row says so', async () => {
    const { closed, bed } = await start({ public: true });
    closed.repository('org/app').addImage('1', [generated(3000)]);
    expect((await bed.manifest('private.example', 'org/app', '1')).status).toBe(200);
    bed.put('private.example', { fake: closed, credentials: USER });
    expect(await refusalOf(bed.manifest('private.example', 'org/app', '1'))).toBe('privateContent');
  });

  test('is closed again when the credentials are taken away', async () => {
    const { closed, bed } = await start();
    const image = closed.repository('org/app').addImage('1', [generated(3000)]);
    const digest = image.layers[0]?.digest ?? '';
    await bed.manifest('private.example', 'org/app', '1', { authenticated: true });
    await bed.blob('private.example', 'org/app', digest, { authenticated: true });
    bed.put('private.example', { fake: closed });
    for (const authenticated of [false, true]) {
      for (const reference of ['1', image.digest]) {
        const kind = await refusalOf(bed.manifest('private.example', 'org/app', reference, { authenticated }));
        expect(kind).toBe('upstreamUnauthorized');
      }
      const kind = await refusalOf(bed.blob('private.example', 'org/app', digest, { authenticated }));
      expect(kind).toBe('upstreamUnauthorized');
    }
    closed.faults = () => ({ status: 503 });
    for (const reference of ['1', image.digest]) {
      expect(await refusalOf(bed.manifest('private.example', 'org/app', reference))).toBe('upstreamFailed');
    }
  });

  test('covers what was kept from before there were credentials', async () => {
    const { open, bed } = await start();
    const image = open.repository('library/app').addImage('1', [generated(3000)]);
    await bed.manifest('docker.io', 'library/app', '1');
    bed.put('docker.io', { fake: open, credentials: USER });
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', image.digest))).toBe('privateContent');
  });
});

test('an image that was closed since is served to nobody any more, by tag, digest or blob', async () => {
  const { open, bed } = await start();
  const image = open.repository('library/app').addImage('1', [generated(3000)]);
  const digest = image.layers[0]?.digest ?? '';
  await bed.manifest('docker.io', 'library/app', '1');
  await bed.blob('docker.io', 'library/app', digest);
  open.faults = () => ({ status: 403 });
  bed.clock += 61_000;
  expect(await refusalOf(bed.manifest('docker.io', 'library/app', '1'))).toBe('upstreamDenied');
  expect(await refusalOf(bed.manifest('docker.io', 'library/app', image.digest))).toBe('upstreamDenied');
  expect(await refusalOf(bed.blob('docker.io', 'library/app', digest))).toBe('upstreamDenied');
  open.faults = () => ({ refuse: true });
  expect(await refusalOf(bed.blob('docker.io', 'library/app', digest))).toBe('upstreamFailed');
  open.faults = () => undefined;
  expect(sha256((await bed.blob('docker.io', 'library/app', digest)).body)).toBe(digest);
  expect((await bed.manifest('docker.io', 'library/app', image.digest)).body).toEqual(image.body);
});

test('an image that was closed since is gone from memory, too, for every client', async () => {
  const { open, bed } = await start();
  const image = open.repository('library/app').addImage('1', [generated(3000)]);
  for (const reference of ['1', image.digest]) await bed.manifest('docker.io', 'library/app', reference);
  for (const reference of ['1', image.digest]) {
    expect((await bed.manifest('docker.io', 'library/app', reference)).from).toBe('cache');
  }
  // Any tag that is refused closes its repository; what was ready was fresh for a minute more.
  open.faults = () => ({ status: 403 });
  expect(await refusalOf(bed.manifest('docker.io', 'library/app', 'other'))).toBe('upstreamDenied');
  for (const reference of ['1', image.digest]) {
    expect(await refusalOf(bed.manifest('docker.io', 'library/app', reference))).toBe('upstreamDenied');
  }
});

test('a list that is refused closes nothing', async () => {
  const { open, bed } = await start();
  const image = open.repository('library/app').addImage('1', [generated(3000)]);
  await bed.manifest('docker.io', 'library/app', '1');
  open.faults = ({ kind }) => (kind === 'tags' || kind === 'referrers' ? { status: 403 } : undefined);
  expect(await refusalOf(bed.ask('docker.io', 'library/app', { kind: 'tags' }))).toBe('upstreamDenied');
  // The fallback tag, which is not refused, says that there are none.
  const referrers = { kind: 'referrers', digest: image.digest } as const;
  expect((await bed.ask('docker.io', 'library/app', referrers)).status).toBe(200);
  for (const reference of ['1', image.digest]) {
    expect((await bed.manifest('docker.io', 'library/app', reference)).from).toBe('cache');
  }
});
