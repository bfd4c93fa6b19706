import { afterEach, describe, expect, test } from 'vitest';
import { parseImagePattern } from '../../src/config/images.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import { type Content, FakeRegistry, generated } from '../support/fake-registry/index.ts';
import { MemoryHistoryStore } from '../support/memory-history.ts';
import { type BedOptions, digestOf, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const REPOSITORY = 'library/app';
const HUB = 'docker.io';
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const patterns = (...list: string[]) => list.map((one) => parseImagePattern(one));

async function start(rules: BedOptions['rules'] = { cooldown: 3 * DAY }, options: Partial<BedOptions> = {}) {
  const fake = await FakeRegistry.start();
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { [HUB]: { fake } }, rules, tagTtl: MINUTE, ...options });
  closers.push(() => bed.stop());
  const repository = fake.repository(REPOSITORY);
  return {
    fake,
    bed,
    repository,
    /** The digest that the tag gives; the kind of the refusal where it is refused. */
    async tag(tag: string, ask = {}): Promise<string> {
      try {
        return (await bed.manifest(HUB, REPOSITORY, tag, ask)).headers['docker-content-digest'] ?? '';
      } catch (error) {
        if (error instanceof RegistryError) return error.kind;
        throw error;
      }
    },
    digest: (digest: string, ask = {}) => refusalOf(bed.manifest(HUB, REPOSITORY, digest, ask)),
    blob: (content: Content, ask = {}) => refusalOf(bed.blob(HUB, REPOSITORY, content.digest, ask)),
  };
}

describe('with a cooldown', () => {
  test('a tag is refused until what it stands for is old enough, in words with the time, by GET and HEAD', async () => {
    const { bed, repository, tag } = await start();
    const image = repository.addImage('1', ['layer']);
    const began = bed.clock;
    for (const method of ['GET', 'HEAD'] as const) {
      const refused = await bed.manifest(HUB, REPOSITORY, '1', { method }).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(RegistryError);
      const error = refused as RegistryError;
      const day = new Date(began + 3 * DAY).toISOString().slice(0, 10);
      expect(error.message).toMatch(
        new RegExp(`^docker\\.io/library/app:1 is too young .* from ${day} [\\d:]{8} UTC on$`),
      );
      expect(error.options.detail).toEqual({
        digest: image.digest,
        firstSeen: new Date(began).toISOString(),
        passesFrom: new Date(began + 3 * DAY).toISOString(),
      });
    }
    bed.clock += 3 * DAY - 1;
    expect(await tag('1')).toBe('imageTooYoung');
    bed.clock += 1;
    expect(await tag('1')).toBe(image.digest);
    expect(await tag('1', { method: 'HEAD' })).toBe(image.digest);
  });

  test('a tag that moved gives what it stood for before, and says so, until the new one is old enough', async () => {
    const { bed, fake, repository, tag } = await start();
    const old = repository.addImage('1', ['old']);
    await tag('1');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(old.digest);
    const moved = repository.addImage('1', ['new']);
    bed.clock += 2 * MINUTE;
    const seen = bed.clock;
    for (const method of ['GET', 'HEAD', 'GET'] as const) {
      const reply = await bed.manifest(HUB, REPOSITORY, '1', { method });
      expect(reply.headers['docker-content-digest']).toBe(old.digest);
      expect(reply.body).toEqual(method === 'GET' ? old.body : Buffer.alloc(0));
      expect(reply.headers.warning).toContain(`299 - "this tag moved to ${moved.digest}, first seen `);
    }
    // Its registry is asked as ever, and no more often than without.
    const before = fake.log.count({ kind: 'manifest' });
    bed.clock += 2 * MINUTE;
    await tag('1');
    expect(
      fake.log
        .of({ kind: 'manifest' })
        .slice(before)
        .map(({ method }) => method),
    ).toEqual(['HEAD']);
    bed.clock = seen + 3 * DAY - 1;
    expect(await tag('1')).toBe(old.digest);
    // What is ready in memory ends with the wait.
    bed.clock += 1;
    const now = await bed.manifest(HUB, REPOSITORY, '1');
    expect([now.headers['docker-content-digest'], now.headers.warning]).toEqual([moved.digest, undefined]);
  });

  test('what a tag stood for before is fetched anew by its digest where it was dropped, and refused where it is gone', async () => {
    const { bed, repository, tag } = await start();
    const old = repository.addImage('1', ['old']);
    await tag('1');
    bed.clock += 3 * DAY;
    await tag('1');
    repository.addImage('1', ['new']);
    bed.clock += 2 * MINUTE;
    bed.rig.index.removeManifests([old.digest]);
    bed.core.invalidate();
    expect(await tag('1')).toBe(old.digest);
    bed.rig.index.removeManifests([old.digest]);
    repository.manifests.delete(old.digest);
    bed.core.invalidate();
    expect(await tag('1')).toBe('imageTooYoung');
  });

  test('what a tag left again before it was old enough is not given while what came after it may be old enough first', async () => {
    const { bed, repository, tag } = await start();
    const good = repository.addImage('1', ['good']);
    await tag('1');
    bed.clock += 4 * DAY;
    expect(await tag('1')).toBe(good.digest);
    repository.addImage('1', ['evil']);
    bed.clock += 2 * MINUTE;
    expect(await tag('1')).toBe(good.digest);
    bed.clock += DAY;
    const mended = repository.addImage('1', ['mended']);
    for (let hour = 0; hour < 3 * 24; hour++) {
      expect(await tag('1')).toBe(good.digest);
      bed.clock += 60 * MINUTE;
    }
    expect(await tag('1')).toBe(mended.digest);
  });

  test('a tag that moves faster than anything gets old is not stuck: it gives what is twice as old', async () => {
    const { bed, repository, tag } = await start();
    const nightly = [];
    const given: string[] = [];
    for (let day = 0; day < 10; day++) {
      nightly.push(repository.addImage('nightly', [`night ${day}`]).digest);
      given.push(await tag('nightly'));
      bed.clock += DAY;
    }
    expect(given.slice(0, 6)).toEqual(Array(6).fill('imageTooYoung'));
    expect(given.slice(6)).toEqual(nightly.slice(0, 4));
  });

  test('what a matured manifest names passes with it, another platform for the first time today too', async () => {
    const { bed, repository, tag, digest, blob } = await start();
    const shared = generated(1000, 'shared');
    const amd = repository.addImage(undefined, [shared, 'amd']);
    const arm = repository.addImage(undefined, [shared, 'arm']);
    const index = repository.addIndex('1', [amd, arm]);
    await tag('1', { method: 'HEAD' });
    bed.clock += 3 * DAY;
    // A blob of which nothing is known but that the repository holds it.
    expect(await tag('1')).toBe(index.digest);
    expect(await digest(arm.digest)).toBe('served');
    for (const content of [arm.config, ...arm.layers]) {
      expect(await blob(content, { method: 'HEAD' })).toBe('served');
      expect(await blob(content, { range: 'bytes=0-1' })).toBe('served');
      expect(await blob(content)).toBe('served');
    }
    // Nobody pulled this one yet, and its manifest is no older than today's sight of it.
    expect(await blob(amd.config)).toBe('imageTooYoung');
    expect(await digest(amd.digest)).toBe('served');
    expect(await blob(amd.config)).toBe('served');
  });

  test('no door leads round it: digests, blobs whole and in parts, other tags and other repositories', async () => {
    const { bed, fake, repository, tag, digest, blob } = await start();
    const other = fake.repository('library/other');
    const image = repository.addImage('1', [generated(5000, 'young')]);
    const copy = other.addImage('1', [generated(5000, 'young')], { label: '1' });
    expect(copy.digest).toBe(image.digest);
    await refusalOf(bed.manifest(HUB, 'library/other', '1'));
    bed.clock += 3 * DAY;
    // It matured in the other repository, and its bytes are here.
    expect(await refusalOf(bed.manifest(HUB, 'library/other', '1'))).toBe('served');
    const [layer] = image.layers as [Content];
    expect(await refusalOf(bed.blob(HUB, 'library/other', layer.digest))).toBe('served');
    expect(await tag('1')).toBe('imageTooYoung');
    repository.tags.set('2', image.digest);
    expect(await tag('2')).toBe('imageTooYoung');
    for (const method of ['GET', 'HEAD'] as const) expect(await digest(image.digest, { method })).toBe('imageTooYoung');
    for (const ask of [
      {},
      { method: 'HEAD' },
      { range: 'bytes=0-9' },
      { range: 'bytes=0-9,20-29' },
      { range: 'bytes=-5' },
    ])
      expect(await blob(layer, ask)).toBe('imageTooYoung');
    expect(await blob(image.config)).toBe('imageTooYoung');
    expect(await digest(image.digest, { ifNoneMatch: `"${image.digest}"` })).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(image.digest);
    expect(await blob(layer)).toBe('served');
  });

  test('asking for what is not there yet makes nothing older', async () => {
    const { bed, repository, digest, blob } = await start();
    const draft = (
      await FakeRegistry.start().then((fake) => {
        closers.push(() => fake.close());
        return fake;
      })
    )
      .repository(REPOSITORY)
      .addImage('1', ['later']);
    const [layer] = draft.layers as [Content];
    for (const method of ['GET', 'HEAD'] as const) {
      expect(await digest(draft.digest, { method })).toBe('manifestUnknown');
      expect(await blob(layer, { method })).toBe('blobUnknown');
    }
    bed.clock += 4 * DAY;
    repository.addImage('1', ['later']);
    expect(await digest(draft.digest)).toBe('imageTooYoung');
    expect(await blob(layer)).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    expect(await digest(draft.digest)).toBe('served');
    expect(await blob(layer)).toBe('served');
  });

  test('what something refers to is no part of it: a signature of long ago makes no image older', async () => {
    const { bed, fake, repository, tag, digest } = await start();
    const elsewhere = fake.repository('library/elsewhere').addImage('1', ['image to come'], { label: '1' });
    const early = repository.addImage('early', ['signature'], { subject: elsewhere, artifactType: 'application/x' });
    expect(await tag('early')).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    expect(await tag('early')).toBe(early.digest);
    repository.addImage('1', ['image to come'], { label: '1' });
    expect(await digest(elsewhere.digest)).toBe('imageTooYoung');
    // The list of what refers to it is a list; what is on it is judged by itself.
    const list = await bed.ask(HUB, REPOSITORY, { kind: 'referrers', digest: digestOf(elsewhere.digest) });
    expect(list.status).toBe(200);
    expect(list.body.toString()).toContain(early.digest);
  });

  test('what is kept while its registry fails is judged the same, and says both', async () => {
    const { bed, fake, repository, tag } = await start();
    const old = repository.addImage('1', ['old']);
    await tag('1');
    bed.clock += 3 * DAY;
    await tag('1');
    const moved = repository.addImage('1', ['new']);
    bed.clock += 2 * MINUTE;
    await tag('1');
    fake.faults = () => ({ status: 500 });
    bed.clock += 2 * MINUTE;
    const stale = await bed.manifest(HUB, REPOSITORY, '1');
    expect(stale.from).toBe('stale');
    expect(stale.headers['docker-content-digest']).toBe(old.digest);
    expect(stale.headers.warning).toMatch(/^299 - "docker\.io .* old; this tag moved to sha256:/);
    bed.clock += 3 * DAY;
    const later = await bed.manifest(HUB, REPOSITORY, '1');
    expect([later.from, later.headers['docker-content-digest']]).toEqual(['stale', moved.digest]);
  });

  test('digests, repositories and tags are excepted by patterns, with all that is under them', async () => {
    const cooldownImages = patterns('!docker.io/library/free', '!*:edge');
    const { bed, fake, repository, tag, digest, blob } = await start({ cooldown: 3 * DAY, cooldownImages });
    const free = fake.repository('library/free').addImage('1', ['free']);
    expect(await refusalOf(bed.manifest(HUB, 'library/free', free.digest))).toBe('served');
    for (const { digest: layer } of free.layers)
      expect(await refusalOf(bed.blob(HUB, 'library/free', layer))).toBe('served');
    const amd = repository.addImage(undefined, ['amd']);
    const edge = repository.addIndex('edge', [amd]);
    repository.tags.set('1', edge.digest);
    expect(await tag('1')).toBe('imageTooYoung');
    expect(await tag('edge')).toBe(edge.digest);
    expect(await tag('1')).toBe('imageTooYoung');
    // The tag that may pass stands for it, and for what it names.
    expect(await digest(edge.digest)).toBe('served');
    expect(await digest(amd.digest)).toBe('served');
    for (const content of [amd.config, ...amd.layers]) expect(await blob(content)).toBe('served');
    const young = repository.addImage('2', ['two']);
    expect(await digest(young.digest)).toBe('imageTooYoung');
    bed.setRules({ cooldownImages: patterns('!*@*') });
    expect(await digest(young.digest)).toBe('served');
    expect(await blob(young.config)).toBe('served');
    expect(await tag('2')).toBe('imageTooYoung');
    // A list that names what it is for is for nothing else.
    bed.setRules({ cooldownImages: patterns('docker.io/library/app') });
    expect(await digest(young.digest)).toBe('imageTooYoung');
    bed.setRules({ cooldownImages: patterns('docker.io/library/other') });
    expect(await tag('2')).toBe(young.digest);
  });

  test('what was seen before it was set counts, and taking it back lets everything pass', async () => {
    const { bed, repository, tag, blob, digest } = await start({ cooldown: null });
    const image = repository.addImage('1', ['layer']);
    expect(await tag('1')).toBe(image.digest);
    bed.clock += 4 * DAY;
    bed.setRules({ cooldown: 3 * DAY });
    expect(await tag('1')).toBe(image.digest);
    for (const content of [image.config, ...image.layers]) expect(await blob(content)).toBe('served');
    const young = repository.addImage('1', ['young']);
    bed.clock += 2 * MINUTE;
    expect(await tag('1')).toBe(image.digest);
    expect(await digest(young.digest)).toBe('imageTooYoung');
    bed.setRules({ cooldown: null });
    expect(await tag('1')).toBe(young.digest);
    bed.setRules({ cooldown: MINUTE });
    bed.clock += MINUTE;
    expect(await tag('1')).toBe(young.digest);
  });

  test('a first sight that lies in the future counts as now', async () => {
    const { bed, repository, tag } = await start();
    const image = repository.addImage('1', ['layer']);
    bed.clock += 365 * DAY;
    await tag('1');
    bed.clock -= 365 * DAY;
    bed.restartCore();
    expect(await tag('1')).toBe('imageTooYoung');
    bed.clock += 3 * DAY - 1;
    expect(await tag('1')).toBe('imageTooYoung');
    bed.clock += 1;
    expect(await tag('1')).toBe(image.digest);
  });

  test('what one gateway of a fleet saw the others know', async () => {
    const store = new MemoryHistoryStore();
    const one = await start(undefined, { history: store });
    const two = await start(undefined, { history: store.another() });
    const image = one.repository.addImage('1', ['layer']);
    two.repository.addImage('1', ['layer']);
    await one.tag('1');
    await one.bed.history?.flush();
    two.bed.clock = one.bed.clock + 3 * DAY;
    expect(await two.tag('1')).toBe(image.digest);
    expect(await two.blob(image.config)).toBe('served');
  });

  test('nothing passes while the history cannot be read, but what is known to be old enough', async () => {
    const store = new MemoryHistoryStore();
    const { bed, repository, tag } = await start(undefined, { history: store });
    const image = repository.addImage('1', ['layer']);
    await tag('1');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(image.digest);
    store.firstSeen = () => Promise.reject(new Error('the database is away'));
    store.record = () => Promise.reject(new Error('the database is away'));
    store.spans = () => Promise.reject(new Error('the database is away'));
    bed.clock += 2 * MINUTE;
    expect(await tag('1')).toBe(image.digest);
    repository.addImage('2', ['other']);
    expect(await tag('2')).toBe('unavailable');
  });

  test('without one nothing is remembered of what manifests name', async () => {
    const { bed, repository, tag } = await start({ cooldown: null });
    const image = repository.addImage('1', ['layer']);
    expect(await tag('1')).toBe(image.digest);
    const of = (digest: string) => bed.history?.firstSeen({ registry: HUB, repository: REPOSITORY }, digestOf(digest));
    expect([await of(image.digest), await of(image.config.digest)]).toEqual([bed.clock, null]);
  });
});
