import { afterEach, describe, expect, test } from 'vitest';
import { parseImagePattern } from '../../src/config/images.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import { eventually } from '../support/eventually.ts';
import {
  type Content,
  FakeRegistry,
  type FakeRegistryOptions,
  generated,
  MEDIA,
} from '../support/fake-registry/index.ts';
import { MemoryTier } from '../support/memory-tier.ts';
import { type BedOptions, digestOf, RegistryBed, refusalOf } from '../support/registry-bed.ts';

// Ways out that neither policy.images nor policy.cooldown may forget: the shared store, what is fetched ahead, what was given before, and gateways that keep nothing.

const HUB = 'docker.io';
const APP = 'library/app';
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

const patterns = (...list: string[]) => list.map((one) => parseImagePattern(one));

async function start(
  rules: NonNullable<BedOptions['rules']>,
  options: Partial<BedOptions> = {},
  fakeOptions: FakeRegistryOptions = {},
) {
  const fake = await FakeRegistry.start(fakeOptions);
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { [HUB]: { fake } }, rules, tagTtl: MINUTE, ...options });
  closers.push(() => bed.stop());
  return {
    fake,
    bed,
    repository: fake.repository(APP),
    /** The digest that the tag gives; the kind of the refusal where it is refused. */
    async tag(tag: string, ask = {}): Promise<string> {
      try {
        return (await bed.manifest(HUB, APP, tag, ask)).headers['docker-content-digest'] ?? '';
      } catch (error) {
        if (error instanceof RegistryError) return error.kind;
        throw error;
      }
    },
    digest: (digest: string, ask = {}) => refusalOf(bed.manifest(HUB, APP, digest, ask)),
    blob: ({ digest }: Pick<Content, 'digest'>, ask = {}) => refusalOf(bed.blob(HUB, APP, digest, ask)),
  };
}

/** How a blob may be asked for. */
const QUESTIONS = [
  {},
  { method: 'HEAD' as const },
  { range: 'bytes=0-9' },
  { range: 'bytes=-5' },
  { range: 'bytes=0-1,5-6' },
  { ifNoneMatch: '*' },
];

describe('the shared store', () => {
  test('no client is sent there for what may not pass, and its registry is not asked', async () => {
    const tier = new MemoryTier();
    const cache = { shared: tier.parts };
    const { bed, fake, repository, tag, blob } = await start({ cooldown: 3 * DAY }, { cache, redirect: true });
    const image = repository.addImage('1', [generated(5_000, 'shared')]);
    const [layer] = image.layers as [Content];
    expect(await tag('1')).toBe('imageTooYoung');
    // Another gateway fetched it for its clients.
    await tier.holds(digestOf(layer.digest), layer.read(0, layer.size), HUB);
    for (const ask of QUESTIONS) expect(await blob(layer, ask)).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(image.digest);
    expect((await bed.blob(HUB, APP, layer.digest)).status).toBe(307);
    expect((await bed.blob(HUB, APP, layer.digest, { range: 'bytes=0-9' })).status).toBe(307);
    fake.log.clear();
    for (const images of [patterns('!docker.io/library/app'), patterns('*', '!*:1'), patterns(`!*@${layer.digest}`)]) {
      bed.setRules({ images });
      for (const ask of QUESTIONS) expect(await blob(layer, ask)).toBe('imageRefused');
    }
    expect(fake.log.count()).toBe(0);
    expect(tier.calls.filter((call) => call.startsWith('open'))).toEqual([]);
  });
});

describe('what is fetched ahead', () => {
  const prefetch = { isOn: () => true, isContended: () => false };

  test('is nothing of a tag that waits, but of what it gives meanwhile', async () => {
    const { bed, fake, repository, tag } = await start({ cooldown: 3 * DAY }, { prefetch });
    const old = repository.addImage('1', [generated(5_000, 'old')]);
    expect(await tag('1')).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    const young = repository.addImage('1', [generated(5_000, 'young')]);
    expect(await tag('1')).toBe(old.digest);
    const parts = [old.config, ...old.layers].map(({ digest }) => digestOf(digest));
    await eventually('the old ones', () => parts.every((digest) => bed.rig.index.blob(digest) !== null));
    for (const { digest } of [young.config, ...young.layers]) expect(fake.log.count({ reference: digest })).toBe(0);
  });

  test('is nothing that a pattern refuses by its digest', async () => {
    const { bed, fake, repository, tag } = await start({ images: [] }, { prefetch });
    const image = repository.addImage('1', [generated(5_000, 'fine'), generated(6_000, 'refused')]);
    const [fine, refused] = image.layers as [Content, Content];
    bed.setRules({ images: patterns(`!*@${refused.digest}`) });
    expect(await tag('1')).toBe(image.digest);
    await eventually('the others', () => bed.rig.index.blob(digestOf(fine.digest)) !== null);
    expect(fake.log.count({ reference: refused.digest })).toBe(0);
  });
});

describe('a tag that moved', () => {
  const USER = { username: 'operator', password: 'secret' };

  test('gives nothing that its registry has closed or withdrawn since', async () => {
    const auth: FakeRegistryOptions['auth'] = { scheme: 'bearer', users: { operator: 'secret' } };
    const { bed, fake, repository, tag, digest, blob } = await start({ cooldown: 3 * DAY }, {}, { auth });
    const old = repository.addImage('1', ['old']);
    await tag('1');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(old.digest);
    for (const part of [old.config, ...old.layers]) expect(await blob(part)).toBe('served');
    repository.addImage('1', ['young']);
    bed.clock += 2 * MINUTE;
    expect(await tag('1')).toBe(old.digest);
    // Closed: what was old enough is no more anybody's.
    for (const status of [401, 403]) {
      fake.faults = () => ({ status });
      bed.clock += 2 * MINUTE;
      expect(await tag('1')).toMatch(/^upstream(?:Unauthorized|Denied)$/);
      expect(await digest(old.digest)).toMatch(/^upstream(?:Unauthorized|Denied)$/);
      expect(await tag('1', { method: 'HEAD' })).toMatch(/^upstream(?:Unauthorized|Denied)$/);
      for (const ask of [{}, { range: 'bytes=0-1' }])
        expect(await blob(old.config, ask)).toMatch(/^upstream(?:Unauthorized|Denied)$/);
      fake.faults = () => undefined;
      expect(await tag('1')).toBe(old.digest);
    }
    // Deleted: the tag is gone, whatever it stood for.
    repository.tags.delete('1');
    bed.clock += 2 * MINUTE;
    expect(await tag('1')).toBe('manifestUnknown');
  });

  test('goes on giving what it gave, however seldom its registry is asked', async () => {
    const { bed, fake, repository, tag } = await start({ cooldown: 3 * DAY }, { tagTtl: 5 * DAY });
    const old = repository.addImage('1', ['old']);
    expect(await tag('1')).toBe('imageTooYoung');
    bed.clock += 4 * DAY;
    // From memory: the registry was asked once, four days ago.
    expect(await tag('1')).toBe(old.digest);
    expect(fake.log.count({ kind: 'manifest' })).toBe(1);
    const young = repository.addImage('1', ['young']);
    for (let day = 4; day < 8; day++) {
      expect(await tag('1')).toBe(old.digest);
      bed.clock += DAY;
    }
    // The move was seen when it was asked again, on the fifth day.
    expect(await tag('1')).toBe(young.digest);
  });

  test('gives what is closed to those alone who may have it', async () => {
    const auth: FakeRegistryOptions['auth'] = { scheme: 'bearer', private: true, users: { operator: 'secret' } };
    const { bed, fake, repository, tag } = await start({ cooldown: 3 * DAY }, {}, { auth });
    bed.put(HUB, { fake, credentials: USER });
    const old = repository.addImage('1', ['old']);
    const user = { authenticated: true };
    expect(await tag('1', user)).toBe('imageTooYoung');
    expect(await tag('1')).toBe('privateContent');
    bed.clock += 3 * DAY;
    repository.addImage('1', ['young']);
    expect(await tag('1', user)).toBe(old.digest);
    expect(await tag('1')).toBe('privateContent');
    // Without them nothing that they opened is given.
    bed.put(HUB, { fake });
    bed.clock += 2 * MINUTE;
    for (const ask of [user, {}]) expect(await tag('1', ask)).toMatch(/^upstream(?:Unauthorized|Denied)$/);
  });

  test('back and forth gives what is old enough of the two, and each class of clients what it accepts', async () => {
    const { bed, repository, tag } = await start({ cooldown: 3 * DAY });
    const one = repository.addImage('1', ['one']);
    await tag('1');
    bed.clock += 3 * DAY;
    const other = repository.addImage('2', ['other']);
    for (let turn = 0; turn < 60; turn++) {
      repository.tags.set('1', (turn % 2 === 0 ? other : one).digest as never);
      expect(await tag('1', turn % 3 === 0 ? { method: 'HEAD' } : {})).toBe(one.digest);
      bed.clock += 2 * MINUTE;
    }
    // A class that never saw the old one is given no other class's.
    repository.tags.set('1', other.digest as never);
    bed.clock += 2 * MINUTE;
    expect(await tag('1', { accept: MEDIA.index })).not.toBe(other.digest);
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(other.digest);
  });

  test('is refused in words while its registry is down, and it waits', async () => {
    const { bed, fake, repository, tag, digest } = await start({ cooldown: 3 * DAY });
    const young = repository.addImage('1', ['young']);
    expect(await tag('1')).toBe('imageTooYoung');
    fake.faults = () => ({ status: 503 });
    bed.clock += 2 * MINUTE;
    expect(await tag('1')).toBe('imageTooYoung');
    expect(await digest(young.digest)).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(young.digest);
  });
});

describe('parts of images', () => {
  test('a fresh image of old layers is young itself, and so is a fresh platform beside old ones', async () => {
    const { bed, repository, tag, digest, blob } = await start({ cooldown: 3 * DAY });
    const layer = generated(3_000, 'old layer');
    const old = repository.addImage(undefined, [layer], { label: 'old' });
    repository.addIndex('1', [old]);
    await tag('1');
    bed.clock += 3 * DAY;
    await digest(old.digest);
    const fresh = repository.addImage(undefined, [layer], { label: 'fresh' });
    const index = repository.addIndex('2', [old, fresh]);
    repository.tags.set('3', fresh.digest as never);
    for (const reference of ['2', '3']) expect(await tag(reference)).toBe('imageTooYoung');
    for (const reference of [index.digest, fresh.digest]) expect(await digest(reference)).toBe('imageTooYoung');
    expect(await blob(fresh.config)).toBe('imageTooYoung');
    // Under a new name what is old is old.
    repository.tags.set('4', old.digest as never);
    expect(await tag('4')).toBe(old.digest);
    expect(await blob(layer)).toBe('served');
    // A manifest is no blob that may pass sooner.
    expect(await blob(fresh)).toBe('imageTooYoung');
  });
});

describe('a gateway that keeps nothing', () => {
  test('is held to both, and gives what a tag last stood for', async () => {
    const { bed, fake, repository, tag, digest, blob } = await start({ cooldown: 3 * DAY }, { keepNothing: true });
    const old = repository.addImage('1', [generated(4_000, 'old')]);
    const [layer] = old.layers as [Content];
    expect(await tag('1')).toBe('imageTooYoung');
    for (const ask of QUESTIONS) expect(await blob(layer, ask)).toBe('imageTooYoung');
    bed.clock += 3 * DAY;
    expect(await tag('1')).toBe(old.digest);
    const young = repository.addImage('1', ['young']);
    bed.clock += 2 * MINUTE;
    for (const method of ['GET', 'HEAD'] as const) expect(await tag('1', { method })).toBe(old.digest);
    expect(await digest(young.digest)).toBe('imageTooYoung');
    expect(await blob(layer)).toBe('served');
    bed.setRules({ images: patterns('docker.io/*', '!*:1') });
    fake.log.clear();
    expect(await tag('1')).toBe('imageRefused');
    expect(await digest(old.digest)).toBe('imageRefused');
    for (const ask of QUESTIONS) expect(await blob(layer, ask)).toBe('imageRefused');
    expect(fake.log.count()).toBe(0);
  });
});
