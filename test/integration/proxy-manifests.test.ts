import { afterEach, describe, expect, test } from 'vitest';
import { DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from '../../src/oci/media-types.ts';
import { eventually } from '../support/eventually.ts';
import { FakeRegistry, type FakeRegistryOptions, MEDIA, sha256 } from '../support/fake-registry/index.ts';
import { type BedOptions, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const REPOSITORY = 'library/app';
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(fakeOptions: FakeRegistryOptions = {}, options: Partial<BedOptions> = {}) {
  const fake = await FakeRegistry.start(fakeOptions);
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } }, ...options });
  closers.push(() => bed.stop());
  const repository = fake.repository(REPOSITORY);
  return { fake, bed, repository };
}

describe('a manifest', () => {
  test('comes byte by byte, with every header that clients need, by tag and by digest, GET and HEAD', async () => {
    const { bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    for (const reference of ['1', image.digest]) {
      for (const method of ['HEAD', 'GET', 'HEAD', 'GET'] as const) {
        const reply = await bed.manifest('docker.io', REPOSITORY, reference, { method });
        expect(reply.status).toBe(200);
        expect(reply.headers).toEqual({
          'docker-distribution-api-version': 'registry/2.0',
          'content-type': image.mediaType,
          'content-length': String(image.body.length),
          'docker-content-digest': image.digest,
          etag: `"${image.digest}"`,
        });
        expect(reply.body).toEqual(method === 'GET' ? image.body : Buffer.alloc(0));
      }
    }
  });

  test('is answered 304 where the client has it', async () => {
    const { bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const reply = await bed.manifest('docker.io', REPOSITORY, '1', { ifNoneMatch: `W/"x", "${image.digest}"` });
    expect([reply.status, reply.body.length, reply.headers.etag]).toEqual([304, 0, `"${image.digest}"`]);
  });

  test('by a tag that was kept while the clock was a day ahead is asked for again, and the other variants with it', async () => {
    const { bed, fake, repository } = await start();
    const old = repository.addImage('1', ['old layer']);
    bed.clock += 86_400_000;
    expect((await bed.manifest('docker.io', REPOSITORY, '1')).body).toEqual(old.body);
    // The clock is put right, and meanwhile the tag was moved. After a restart nothing is ready in memory.
    bed.clock -= 86_400_000;
    bed.core.invalidate();
    const moved = repository.addImage('1', ['new layer']);
    expect((await bed.manifest('docker.io', REPOSITORY, '1')).body).toEqual(moved.body);
    expect(fake.log.count({ kind: 'manifest', reference: '1' })).toBeGreaterThan(1);
  });

  test('that is missing is the client’s 404, remembered for seconds', async () => {
    const { bed, fake, repository } = await start();
    repository.addImage('1', ['layer']);
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '2'))).toBe('manifestUnknown');
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '2'))).toBe('manifestUnknown');
    expect(fake.log.count({ kind: 'manifest' })).toBe(1);
    repository.addImage('2', ['layer']);
    bed.clock += 6_000;
    expect((await bed.manifest('docker.io', REPOSITORY, '2')).status).toBe(200);
  });

  test.each([401, 403, 429])('refused with %i is asked again each time', async (status) => {
    const { bed, fake } = await start({ faults: () => ({ status }) });
    await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'));
    const first = fake.log.count({ kind: 'manifest' });
    await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'));
    expect(fake.log.count({ kind: 'manifest' })).toBeGreaterThan(first);
  });

  test('that is not what its digest says is refused, and nothing of it is kept', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    fake.faults = () => ({ wrongByteAt: 1 });
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, image.digest))).toBe('upstreamWrong');
    fake.faults = () => undefined;
    const reply = await bed.manifest('docker.io', REPOSITORY, image.digest);
    expect([reply.from, sha256(reply.body)]).toEqual(['upstream', image.digest]);
  });

  test.each(['{"layers":7,"config":[1,{"digest":3}]}', '{"layers":[{"digest":"sha256:zz"}]}'])(
    'of the odd content %j is passed on as it is',
    async (body) => {
      const { bed, repository } = await start();
      repository.addManifest(body, OCI_MANIFEST, 'odd');
      expect((await bed.manifest('docker.io', REPOSITORY, 'odd')).body.toString()).toBe(body);
    },
  );

  test.each(['not json', '[]', 'null', '"x"', '{"a":1', ''])('is an object in JSON, never %j', async (body) => {
    const { bed, repository } = await start();
    const { digest } = repository.addManifest(body, OCI_MANIFEST, 'odd');
    for (const reference of ['odd', digest]) {
      expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, reference))).toBe('upstreamWrong');
    }
    expect(bed.rig.cache.manifests.getManifest(digest)).toBeNull();
  });

  test('is never a web page', async () => {
    const { bed, fake } = await start();
    fake.faults = () => ({ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>log in</html>' });
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'))).toBe('upstreamWrong');
  });
});

describe('a tag', () => {
  test('is kept for its time, then asked by HEAD, and fetched only when it moved', async () => {
    const { bed, fake, repository } = await start();
    const first = repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1');
    bed.clock += 59_000;
    expect((await bed.manifest('docker.io', REPOSITORY, '1')).from).toBe('cache');
    expect(fake.log.of({ kind: 'manifest' }).map(({ method }) => method)).toEqual(['GET']);
    bed.clock += 2_000;
    expect((await bed.manifest('docker.io', REPOSITORY, '1')).body).toEqual(first.body);
    expect(fake.log.of({ kind: 'manifest' }).map(({ method }) => method)).toEqual(['GET', 'HEAD']);
    const second = repository.addImage('1', ['two']);
    bed.clock += 61_000;
    expect((await bed.manifest('docker.io', REPOSITORY, '1')).body).toEqual(second.body);
    expect(fake.log.of({ kind: 'manifest' }).map(({ method }) => method)).toEqual(['GET', 'HEAD', 'HEAD', 'GET']);
  });

  test('is revalidated by GET where HEAD is refused or says no digest', async () => {
    for (const options of [{ refuseHead: { manifest: 405 } }, { noDigestHeader: true }]) {
      const { bed, repository } = await start(options);
      const image = repository.addImage('1', ['one']);
      for (const method of ['HEAD', 'GET'] as const) {
        const reply = await bed.manifest('docker.io', REPOSITORY, '1', { method });
        expect(reply.headers['docker-content-digest']).toBe(image.digest);
        bed.clock += 61_000;
      }
      const moved = repository.addImage('1', ['two']);
      expect((await bed.manifest('docker.io', REPOSITORY, '1')).body).toEqual(moved.body);
    }
  });

  test('is asked once for all who ask at the same time', async () => {
    const { bed, fake, repository } = await start({ latency: 30 });
    repository.addImage('1', ['one']);
    await Promise.all(Array.from({ length: 50 }, () => bed.manifest('docker.io', REPOSITORY, '1')));
    expect(fake.log.count({ kind: 'manifest' })).toBe(1);
    bed.clock += 61_000;
    await Promise.all(Array.from({ length: 50 }, () => bed.manifest('docker.io', REPOSITORY, '1')));
    expect(fake.log.count({ kind: 'manifest' })).toBe(2);
  });

  test('asked by HEAD costs no pull; the GET by digest that follows costs one, a GET by tag then none', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1', { method: 'HEAD' });
    await bed.manifest('docker.io', REPOSITORY, image.digest);
    await bed.manifest('docker.io', REPOSITORY, '1');
    expect(fake.log.of({ kind: 'manifest' }).map(({ method }) => method)).toEqual(['HEAD', 'GET']);
  });

  test('goes from the cache to another class of clients only where they would get the same', async () => {
    const { bed, fake, repository } = await start();
    const one = repository.addImage(undefined, ['one'], { docker: true });
    const index = repository.addIndex('1', [one]);
    const modern = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(', ');
    expect((await bed.manifest('docker.io', REPOSITORY, '1', { accept: modern })).body).toEqual(index.body);
    expect((await bed.manifest('docker.io', REPOSITORY, '1', { accept: '*/*' })).from).toBe('cache');
    expect(fake.log.count({ kind: 'manifest' })).toBe(1);
    // A registry converts for a client that cannot read an index.
    fake.faults = (request) =>
      request.headers.accept?.includes(OCI_INDEX) === false
        ? {
            status: 200,
            headers: { 'content-type': DOCKER_MANIFEST, 'docker-content-digest': one.digest },
            body: one.body.toString(),
          }
        : undefined;
    const old = await bed.manifest('docker.io', REPOSITORY, '1', { accept: DOCKER_MANIFEST });
    expect([old.headers['content-type'], old.body]).toEqual([DOCKER_MANIFEST, one.body]);
    expect(fake.log.count({ kind: 'manifest' })).toBe(2);
    expect((await bed.manifest('docker.io', REPOSITORY, '1', { accept: modern })).body).toEqual(index.body);
    expect((await bed.manifest('docker.io', REPOSITORY, '1', { accept: DOCKER_MANIFEST })).body).toEqual(one.body);
    expect(fake.log.count({ kind: 'manifest' })).toBe(2);
  });

  test('names every type to the upstream for a client that names none', async () => {
    const { bed, repository } = await start({ strictAccept: true });
    const index = repository.addIndex('1', [repository.addImage(undefined, ['one'])]);
    expect((await bed.manifest('docker.io', REPOSITORY, '1', { accept: '*/*' })).body).toEqual(index.body);
    expect((await bed.manifest('docker.io', REPOSITORY, index.digest)).body).toEqual(index.body);
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '1', { accept: MEDIA.manifest }))).toBe(
      'manifestUnknown',
    );
  });

  test('and a digest are gone from memory, too, when the cache is pruned', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    const pull = async () => [
      (await bed.manifest('docker.io', REPOSITORY, '1')).from,
      (await bed.manifest('docker.io', REPOSITORY, image.digest)).from,
      (await bed.blob('docker.io', REPOSITORY, image.config.digest)).from,
    ];
    await pull();
    expect(await pull()).toEqual(['cache', 'cache', 'cache']);
    fake.log.clear();
    await eventually(
      'bed.rig.index.blob(image.config.digest) !== null',
      () => bed.rig.index.blob(image.config.digest) !== null,
    );
    await bed.rig.cache.admin.prune({ all: true }, () => {}, new AbortController().signal);
    expect((await pull())[0]).toBe('upstream');
    expect(fake.log.of({}).map(({ kind, method }) => `${method} ${kind}`)).toEqual(['GET manifest', 'GET blob']);
  });

  test('outlives a restart', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1');
    const again = await RegistryBed.start({
      registries: { 'docker.io': { fake } },
      cache: { index: bed.rig.index, dataDir: bed.rig.dataDir },
    });
    closers.push(async () => again.core.close());
    await eventually(
      'bed.rig.index.factOf({ registry: "docker.io", repository: REPOSITOR…',
      () => bed.rig.index.factOf({ registry: 'docker.io', repository: REPOSITORY }, image.digest) !== null,
    );
    fake.faults = () => ({ refuse: true });
    again.clock = bed.clock + 30_000;
    const reply = await again.manifest('docker.io', REPOSITORY, '1');
    expect([reply.from, reply.body]).toEqual(['cache', image.body]);
    await again.rig.cache.close();
  });
});

describe('while the upstream fails', () => {
  test.each([
    ['refuses connections', { refuse: true }, 'docker\\.io failed: .+'],
    ['answers 408', { status: 408 }, 'docker\\.io did not answer in time: .+'],
    ['answers 429', { status: 429, headers: { 'retry-after': '1' } }, "docker\\.io limits this gateway's requests"],
    ['answers 500', { status: 500 }, 'docker\\.io failed: .+'],
    ['answers 503', { status: 503 }, 'docker\\.io failed: .+'],
    [
      'answers with a web page',
      { status: 200, headers: { 'content-type': 'text/html' }, body: '<html></html>' },
      'docker\\.io sent something other than what was asked for: a web page',
    ],
  ])('and %s: the kept answer, with a warning that says so', async (_, fault, what) => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1');
    fake.faults = () => fault;
    bed.clock += 3_600_000;
    const reply = await bed.manifest('docker.io', REPOSITORY, '1');
    expect([reply.status, reply.from]).toEqual([200, 'stale']);
    const warning = new RegExp(`^299 - "${what}, since 20[0-9T:-]+Z; this answer is 1 h old"$`);
    expect(reply.headers.warning).toMatch(warning);
    expect(reply.body).toEqual(image.body);
    expect(await bed.counter('registry_stale_served_total')).toBe(1);
    // The next request does not wait for the same failure.
    const asked = fake.log.count();
    const head = await bed.manifest('docker.io', REPOSITORY, '1', { method: 'HEAD' });
    const unchanged = await bed.manifest('docker.io', REPOSITORY, '1', { ifNoneMatch: `"${image.digest}"` });
    expect([head.from, unchanged.from, unchanged.status]).toEqual(['stale', 'stale', 304]);
    for (const { headers } of [head, unchanged]) expect(headers.warning).toMatch(warning);
    expect(fake.log.count()).toBe(asked);
    // Digests need no upstream, and what is good again is used again.
    expect((await bed.manifest('docker.io', REPOSITORY, image.digest)).from).toBe('cache');
    fake.faults = () => undefined;
    bed.clock += 60_000;
    await eventually('{ bed.clock += 20_000; return (await bed.manifest("docker.io", REPO…', async () => {
      bed.clock += 20_000;
      return (await bed.manifest('docker.io', REPOSITORY, '1')).from === 'cache';
    });
  });

  test('and the tag was asked by HEAD, the manifest by its digest, as containerd does: both are kept', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1', { method: 'HEAD' });
    await bed.manifest('docker.io', REPOSITORY, image.digest);
    fake.faults = () => ({ refuse: true });
    bed.clock += 3_600_000;
    const reply = await bed.manifest('docker.io', REPOSITORY, '1', { method: 'HEAD' });
    expect([reply.status, reply.from, reply.headers['docker-content-digest']]).toEqual([200, 'stale', image.digest]);
  });

  test('and does not answer: nobody waits for long, and only the first', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1');
    fake.faults = () => ({ delay: 60_000 });
    bed.clock += 61_000;
    const first = await bed.manifest('docker.io', REPOSITORY, '1');
    expect([first.from, first.body]).toEqual(['stale', image.body]);
    const asked = fake.log.count();
    const more = await Promise.all(Array.from({ length: 20 }, () => bed.manifest('docker.io', REPOSITORY, '1')));
    expect([new Set(more.map(({ from }) => from)), fake.log.count()]).toEqual([new Set(['stale']), asked]);
  });

  test('a kept answer is too old after staleFor', async () => {
    const { bed, fake, repository } = await start({}, { staleFor: 3_600_000 });
    repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1');
    fake.faults = () => ({ status: 503 });
    bed.clock += 3_600_001;
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'))).toBe('upstreamFailed');
  });

  test.each([
    [404, 'manifestUnknown'],
    [401, 'upstreamUnauthorized'],
    [403, 'upstreamDenied'],
  ])('%i is passed on, and the kept tag is gone', async (status, kind) => {
    const { bed, fake, repository } = await start();
    repository.addImage('1', ['one']);
    await bed.manifest('docker.io', REPOSITORY, '1');
    bed.clock += 61_000;
    fake.faults = () => ({ status });
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'))).toBe(kind);
    fake.faults = () => ({ status: 503 });
    bed.clock += 10_000;
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'))).toBe('upstreamFailed');
  });
});
