import { afterEach, describe, expect, test } from 'vitest';
import type { RegistryError } from '../../src/oci/errors.ts';
import { FakeRegistry, type FakeRegistryOptions, QUIRKS } from '../support/fake-registry/index.ts';
import { type Answered, type AskOptions, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const HUB = 'docker.io';
const SIX_HOURS = 6 * 3600;
const started: { close(): Promise<unknown> }[] = [];

afterEach(async () => {
  for (const each of started.splice(0).reverse()) await each.close();
});

interface Bed {
  readonly bed: RegistryBed;
  readonly fake: FakeRegistry;
  image(name: string, content: string): string;
  pull(name: string, options?: AskOptions): Promise<Answered>;
  /** Past the time for which a tag's answer is good, and past that for which a refused one is not asked again. */
  later(): void;
}

/** A gateway before a registry that counts as Docker Hub does. */
async function start(limit: number, more: FakeRegistryOptions = {}, endpoints: FakeRegistry[] = []): Promise<Bed> {
  const fake = await fakeRegistry({ ...QUIRKS.docker, pullLimit: { limit }, ...more });
  const urls = [fake, ...endpoints].map(({ url }) => url);
  const bed = await RegistryBed.start({ registries: { [HUB]: { fake, endpoints: urls } } });
  started.push({ close: () => bed.stop() });
  return {
    bed,
    fake,
    image: (name, content) => {
      const [repository = '', tag = ''] = name.split(':');
      return fake.repository(repository).addImage(tag, [content], { label: content }).digest;
    },
    pull: (name, options) => {
      const [repository = '', reference = ''] = name.includes('@') ? name.split('@') : name.split(':');
      return bed.manifest(HUB, repository, reference, options);
    },
    later: () => {
      bed.clock += 61_000;
    },
  };
}

async function fakeRegistry(options: FakeRegistryOptions): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  started.push(fake);
  return fake;
}

async function errorOf(promise: Promise<unknown>): Promise<RegistryError> {
  return await promise.then(
    () => {
      throw new Error('it was served');
    },
    (error: RegistryError) => error,
  );
}

const manifestsOf = (fake: FakeRegistry, method?: string): number =>
  fake.log.count({ kind: 'manifest', ...(method === undefined ? {} : { method }) });

describe('a registry that counts pulls', () => {
  test('is never asked for more than it allows, however many come at once before anything is known', async () => {
    const { fake, image, pull } = await start(10);
    const names = Array.from({ length: 30 }, (_, i) => `library/app${i}:1`);
    for (const name of names) image(name, name);
    const outcomes = await Promise.all(names.map((name) => refusalOf(pull(name))));
    expect(outcomes.filter((outcome) => outcome === 'served')).toHaveLength(10);
    expect(new Set(outcomes)).toEqual(new Set(['served', 'upstreamBudgetSpent']));
    expect([fake.pulls.counted(), fake.pulls.refused()]).toEqual([10, 0]);
  });

  test('that has given all says whose limit it is and when there is more; what is kept, HEADs and blobs go on', async () => {
    const { bed, fake, image, pull } = await start(1);
    image('library/one:1', 'one');
    const other = image('library/two:1', 'two');
    const { layers } = fake.repository('library/two').addImage('2', ['layer of two']);
    await pull('library/one:1');
    fake.log.clear();
    const error = await errorOf(pull(`library/two@${other}`));
    expect([error.status, error.code]).toEqual([429, 'TOOMANYREQUESTS']);
    expect(error.message).toMatch(
      /^docker\.io limits pulls: the 1 pulls in 6 h that it allows this gateway's address are used up until \d{4}-/,
    );
    expect(error.options.retryAfter).toBeGreaterThan(SIX_HOURS - 60);
    expect(error.options.retryAfter).toBeLessThanOrEqual(SIX_HOURS);
    expect(fake.log.count()).toBe(0);
    expect((await pull('library/two:1', { method: 'HEAD' })).headers['docker-content-digest']).toBe(other);
    expect((await bed.blob(HUB, 'library/two', layers[0]?.digest ?? '')).status).toBe(200);
    expect((await pull('library/one:1')).from).toBe('cache');
  });

  test('gives again as soon as a HEAD says so', async () => {
    const { fake, image, pull, later } = await start(1);
    image('library/one:1', 'one');
    image('library/two:1', 'two');
    await pull('library/one:1');
    expect(await refusalOf(pull('library/two:1'))).toBe('upstreamBudgetSpent');
    // A moment later nobody asks again, not even by HEAD.
    fake.log.clear();
    expect(await refusalOf(pull('library/two:1'))).toBe('upstreamBudgetSpent');
    expect(fake.log.count()).toBe(0);
    const real = fake.pulls.now;
    fake.pulls.now = () => real() + SIX_HOURS * 1000;
    later();
    expect((await pull('library/two:1')).status).toBe(200);
    expect(fake.pulls.refused()).toBe(0);
  });

  test('counts by account: with other credentials there are as many again', async () => {
    const users = { robot: 'secret' };
    const { bed, fake, image, pull } = await start(1, { auth: { ...QUIRKS.docker.auth, users } });
    image('library/one:1', 'one');
    image('library/two:1', 'two');
    await pull('library/one:1');
    expect(await refusalOf(pull('library/two:1'))).toBe('upstreamBudgetSpent');
    bed.put(HUB, { fake, credentials: { username: 'robot', password: 'secret' }, public: true });
    expect((await pull('library/two:1')).status).toBe(200);
    const error = await errorOf(pull(`library/one@sha256:${'0'.repeat(64)}`));
    expect(error.message).toContain("that it allows this gateway's account are used up");
    expect([error.message.includes('robot'), error.logged.includes('(account robot)')]).toEqual([false, true]);
    expect([fake.pulls.counted('robot'), fake.pulls.refused()]).toEqual([1, 0]);
  });

  test('after a start tells with the first HEAD', async () => {
    const { bed, fake, image, pull } = await start(10);
    image('library/app:1', 'one');
    image('library/app:2', 'two');
    fake.pulls.spend('127.0.0.1', 10);
    expect((await pull('library/app:1', { method: 'HEAD' })).status).toBe(200);
    fake.log.clear();
    expect(await refusalOf(pull('library/app:2'))).toBe('upstreamBudgetSpent');
    expect([manifestsOf(fake, 'GET'), fake.pulls.refused()]).toEqual([0, 0]);
    expect(bed.upstream.budgets()).toEqual([
      {
        registry: HUB,
        endpoint: fake.url,
        account: null,
        source: '127.0.0.1',
        limit: 10,
        remaining: 0,
        windowSeconds: SIX_HOURS,
        refillsAt: expect.stringMatching(/^20.*Z$/),
        kind: 'pulls',
        restingUntil: expect.stringMatching(/^20.*Z$/),
      },
    ]);
  });

  test.each([
    ['headers', { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '0;w=21600' }, 'Too Many Requests'],
    [
      'words',
      {},
      '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit. Upgrade: https://…"}]}',
    ],
  ])('that refuses a pull with its %s is asked for none, by whatever name', async (_, headers, body) => {
    const { bed, fake, image, pull } = await start(100);
    image('library/app:1', 'one');
    const { layers } = fake.repository('library/other').addImage('1', ['other']);
    fake.faults = ({ kind, method }) =>
      kind === 'manifest' && method === 'GET' ? { status: 429, headers, body } : undefined;
    expect(await refusalOf(pull('library/app:1'))).toBe('upstreamBudgetSpent');
    const gets = manifestsOf(fake, 'GET');
    fake.faults = () => undefined;
    fake.log.clear();
    expect(await refusalOf(pull(`library/other@sha256:${'0'.repeat(64)}`))).toBe('upstreamBudgetSpent');
    expect([gets, fake.log.count()]).toEqual([1, 0]);
    expect((await bed.blob(HUB, 'library/other', layers[0]?.digest ?? '')).status).toBe(200);
  });

  test('that refuses an address is asked for nothing at all, no token and no HEAD, whatever the account', async () => {
    const users = { robot: 'secret' };
    const { bed, fake, image, pull, later } = await start(100, { auth: { ...QUIRKS.docker.auth, users } });
    const digest = image('library/app:1', 'one');
    const { layers } = fake.repository('library/other').addImage('1', ['other']);
    await pull('library/app:1');
    fake.faults = ({ kind }) =>
      kind === 'token'
        ? undefined
        : { status: 429, headers: { 'retry-after': '40', 'content-type': 'text/plain' }, body: 'Too Many Requests' };
    const error = await errorOf(pull('library/other:1'));
    expect(error.message).toMatch(/^docker\.io limits pulls: it has asked this gateway's address for a pause until /);
    expect(error.options.retryAfter).toBeCloseTo(40, 0);
    fake.faults = () => undefined;
    fake.log.clear();
    bed.put(HUB, { fake, credentials: { username: 'robot', password: 'secret' }, public: true });
    expect(await refusalOf(pull('library/other:1'))).toBe('upstreamBudgetSpent');
    expect(await refusalOf(bed.blob(HUB, 'library/other', layers[0]?.digest ?? ''))).toBe('upstreamBudgetSpent');
    later();
    const stale = await pull('library/app:1');
    expect([stale.from, stale.headers['docker-content-digest']]).toEqual(['stale', digest]);
    expect(fake.log.count()).toBe(0);
    expect(bed.upstream.budgets(HUB)).toContainEqual(expect.objectContaining({ kind: 'abuse', endpoint: fake.url }));
  });

  test('that refuses every HEAD with a 429 loses those alone, and is soon not asked by HEAD', async () => {
    const fake = await fakeRegistry({});
    const bed = await RegistryBed.start({ registries: { 'plain.test': { fake } } });
    started.push({ close: () => bed.stop() });
    const repositories = ['app', 'other', 'third'];
    for (const name of repositories) fake.repository(name).addImage('1', [name]);
    const headers = { 'content-type': 'text/plain' };
    fake.faults = ({ method }) => (method === 'HEAD' ? { status: 429, headers } : undefined);
    for (const name of repositories) {
      expect((await bed.manifest('plain.test', name, '1', { method: 'HEAD' })).status).toBe(200);
      expect((await bed.manifest('plain.test', name, '1')).status).toBe(200);
      bed.clock += 61_000;
      // What is kept is asked anew.
      expect((await bed.manifest('plain.test', name, '1')).from).toBe('cache');
    }
    expect([manifestsOf(fake, 'HEAD'), bed.upstream.budgets('plain.test')]).toEqual([1, []]);
  });

  test('is not moved by what a host says that it redirects to', async () => {
    const other = await fakeRegistry({});
    const { fake, image, pull } = await start(100);
    const digest = image('library/app:1', 'one');
    fake.faults = ({ kind, path }) =>
      kind === 'manifest' ? { status: 307, headers: { location: `${other.url}${path}` } } : undefined;
    const headers = { 'ratelimit-limit': '1;w=21600', 'ratelimit-remaining': '0;w=21600' };
    other.faults = () => ({ status: 429, headers });
    expect(await refusalOf(pull('library/app:1'))).toBe('upstreamRateLimited');
    fake.faults = () => undefined;
    expect((await pull(`library/app@${digest}`)).status).toBe(200);
  });
});

describe('a tag of a registry that counts pulls', () => {
  test('is asked by HEAD where nothing of it is kept: another tag may name the same', async () => {
    const { fake, image, pull } = await start(100);
    image('library/app:1', 'one');
    await pull('library/app:1');
    fake.repository('library/app').tags.set('latest', image('library/app:1', 'one') as never);
    const reply = await pull('library/app:latest');
    expect([reply.status, fake.pulls.counted()]).toEqual([200, 1]);
  });

  test('is fetched once by whatever clients ask for it', async () => {
    const { fake, image, pull } = await start(100);
    image('library/warm:1', 'warm');
    await pull('library/warm:1');
    image('library/app:1', 'one');
    const accepts = ['application/vnd.oci.image.manifest.v1+json', '*/*', undefined];
    const replies = await Promise.all(accepts.map((accept) => pull('library/app:1', { accept })));
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200]);
    expect(fake.pulls.counted()).toBe(2);
  });

  test('that moved is fetched while half of the limit is left, and answered from what is kept then, marked', async () => {
    const { bed, fake, image, pull, later } = await start(10);
    const names = ['library/a:1', 'library/b:1', 'library/c:1'];
    const old = names.map((name) => image(name, `old ${name}`));
    for (const name of names) await pull(name);
    const moved = names.map((name) => image(name, `new ${name}`));
    later();
    const replies = await Promise.all(names.map((name) => pull(name)));
    const digests = replies.map(({ headers }) => headers['docker-content-digest']);
    expect(digests.filter((digest, i) => digest === moved[i])).toHaveLength(2);
    const stale = replies.find(({ from }) => from === 'stale');
    expect(digests.filter((digest, i) => digest === old[i])).toHaveLength(1);
    expect(stale?.headers.warning).toMatch(
      /^299 - "docker\.io limits pulls: [56] of the 10 pulls in 6 h that it allows this gateway's address are left until .*, and kept for images that are not here yet, since .*; this answer is 1 min 1 s old"$/,
    );
    expect(await bed.counter('registry_stale_served_total')).toBe(1);
    // The rest is for what is not here.
    for (let i = 0; i < 5; i++) {
      image(`library/new${i}:1`, `new${i}`);
      expect((await pull(`library/new${i}:1`)).status).toBe(200);
    }
    expect([fake.pulls.counted(), fake.pulls.refused()]).toEqual([10, 0]);
    // HEADs go on, and see when it has moved back.
    later();
    fake.log.clear();
    for (const [i, name] of names.entries()) {
      fake.repository(name.split(':')[0] ?? '').tags.set('1', old[i] as never);
      expect((await pull(name)).headers.warning).toBeUndefined();
    }
    expect([manifestsOf(fake, 'HEAD'), manifestsOf(fake, 'GET')]).toEqual([3, 0]);
  });

  test('that is older than cache.staleFor is fetched from what is kept for others, too', async () => {
    const { bed, image, pull } = await start(2);
    image('library/app:1', 'old');
    await pull('library/app:1');
    const moved = image('library/app:1', 'new');
    bed.clock += 8 * 86_400_000;
    expect((await pull('library/app:1')).headers['docker-content-digest']).toBe(moved);
  });

  test('is not said to be what a client would not get by its digest next', async () => {
    const { fake, image, pull, later } = await start(10);
    const old = image('library/app:1', 'old');
    await pull('library/app:1');
    fake.pulls.spend('127.0.0.1', 6);
    const moved = image('library/app:1', 'new');
    later();
    const head = await pull('library/app:1', { method: 'HEAD' });
    expect([head.headers['docker-content-digest'], head.from]).toEqual([old, 'stale']);
    const real = fake.pulls.now;
    fake.pulls.now = () => real() + SIX_HOURS * 1000;
    later();
    for (let i = 0; i < 20; i++) {
      const again = await pull('library/app:1', { method: 'HEAD' });
      expect(again.headers['docker-content-digest']).toBe(moved);
    }
    expect((await pull(`library/app@${moved}`)).status).toBe(200);
    expect((await pull('library/app:1')).headers['docker-content-digest']).toBe(moved);
    // What a HEAD named is here: it stays the tag's answer though nobody can be asked.
    fake.faults = () => ({ status: 500 });
    later();
    const stale = await pull('library/app:1');
    expect([stale.from, stale.headers['docker-content-digest']]).toEqual(['stale', moved]);
  });

  test('that names an index is given with the manifest of a platform, or not at all', async () => {
    const { fake, image, pull } = await start(4);
    image('library/warm:1', 'warm');
    await pull('library/warm:1');
    const indexes = ['library/a', 'library/b'].map((name) => {
      const repository = fake.repository(name);
      const children = ['amd64', 'arm64'].map((platform) => repository.addImage(undefined, [`${name} ${platform}`]));
      repository.addIndex('1', children);
      return { name, child: children[0]?.digest ?? '' };
    });
    const outcomes = await Promise.all(indexes.map(({ name }) => refusalOf(pull(`${name}:1`))));
    expect(outcomes.toSorted()).toEqual(['served', 'upstreamBudgetSpent']);
    const { name, child } = indexes[outcomes.indexOf('served')] ?? { name: '', child: '' };
    image('library/c:1', 'c');
    expect((await pull('library/c:1')).status).toBe(200);
    image('library/d:1', 'd');
    expect(await refusalOf(pull('library/d:1'))).toBe('upstreamBudgetSpent');
    expect((await pull(`${name}@${child}`)).status).toBe(200);
    expect([fake.pulls.counted(), fake.pulls.refused()]).toEqual([4, 0]);
  });

  test('that moved to another index costs the platforms that were pulled as well', async () => {
    const { fake, pull, later } = await start(10);
    const repository = fake.repository('library/app');
    const indexOf = (label: string) => {
      const children = ['amd64', 'arm64', 's390x'].map((each) => repository.addImage(undefined, [`${label} ${each}`]));
      return { children, digest: repository.addIndex('1', children).digest };
    };
    const old = indexOf('old');
    await pull('library/app:1');
    for (const child of old.children) await pull(`library/app@${child.digest}`);
    // Six are left: three beyond the half would give an index, but not its three platforms.
    indexOf('new');
    later();
    const reply = await pull('library/app:1');
    expect([reply.from, reply.headers['docker-content-digest']]).toEqual(['stale', old.digest]);
    expect([fake.pulls.counted(), fake.pulls.refused()]).toEqual([4, 0]);
  });
});

describe('a second endpoint', () => {
  test('gives by digest what the first would not now; the tag is what the first says', async () => {
    const mirror = await fakeRegistry({});
    const { fake, image, pull } = await start(1, {}, [mirror]);
    image('library/warm:1', 'warm');
    await pull('library/warm:1');
    const digest = image('library/app:1', 'new');
    const held = mirror.repository('library/app');
    held.addImage(undefined, ['new'], { label: 'new' });
    held.addImage('1', ['older'], { label: 'older' });
    expect((await pull('library/app:1')).headers['docker-content-digest']).toBe(digest);
    expect([fake.pulls.counted(), fake.pulls.refused()]).toEqual([1, 0]);
    expect(mirror.log.of({ kind: 'manifest' }).map(({ reference }) => reference)).toEqual([digest]);
  });

  test('that has it not is no miss while the first was not asked', async () => {
    const mirror = await fakeRegistry({});
    const { fake, image, pull } = await start(1, {}, [mirror]);
    image('library/warm:1', 'warm');
    await pull('library/warm:1');
    image('library/app:1', 'one');
    mirror.repository('library/app').addImage('1', ['older']);
    expect(await refusalOf(pull('library/app:1'))).toBe('upstreamBudgetSpent');
    expect([fake.pulls.counted(), fake.pulls.refused()]).toEqual([1, 0]);
  });

  test('makes no tag go back to what it has, while the first wants to be left alone', async () => {
    const mirror = await fakeRegistry({});
    const { fake, image, pull, later } = await start(100, {}, [mirror]);
    const digest = image('library/app:1', 'one');
    mirror.repository('library/app').addImage('1', ['older']);
    await pull('library/app:1');
    fake.faults = () => ({ status: 429, headers: { 'content-type': 'text/plain' }, body: 'Too Many Requests' });
    for (let turn = 0; turn < 2; turn++) {
      later();
      const reply = await pull('library/app:1');
      expect([reply.from, reply.headers['docker-content-digest']]).toEqual(['stale', digest]);
    }
    expect(mirror.log.count({ kind: 'manifest' })).toBe(0);
    // What is not here may come from there.
    image('library/other:1', 'other');
    mirror.repository('library/other').addImage('1', ['other']);
    expect((await pull('library/other:1')).status).toBe(200);
  });
});
