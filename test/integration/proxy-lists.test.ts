import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { resolvePull } from '../../src/edge/target.ts';
import { OCI_INDEX } from '../../src/oci/media-types.ts';
import type { Digest, What } from '../../src/oci/names.ts';
import { snapshotOf } from '../support/edge-bed.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry/index.ts';
import { nextQuery } from '../support/links.ts';
import { type Answered, RegistryBed, refusalOf } from '../support/registry-bed.ts';

const REPOSITORY = 'library/app';
const TAGS = ['1', '1.1', '2', 'latest', 'v3'];
const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function start(fakeOptions: FakeRegistryOptions = {}) {
  const fake = await FakeRegistry.start(fakeOptions);
  closers.push(() => fake.close());
  const bed = await RegistryBed.start({ registries: { 'docker.io': { fake } } });
  closers.push(() => bed.stop());
  return { fake, bed, repository: fake.repository(REPOSITORY) };
}

/** What the edge makes of a link's target. */
function followed(link: string | undefined): What {
  const path = /<([^>]+)>/.exec(link ?? '')?.[1];
  if (path === undefined) throw new Error(`no link: ${link}`);
  const [plain = '', query = ''] = path.split('?');
  const table = snapshotOf('cr.test', ['docker.io', 'quay.io'], {});
  const route = resolvePull({ host: 'cr.test', port: '', path: plain, query }, table);
  if (route === null) throw new Error(`no pull: ${path}`);
  return route.target.what;
}

const json = (reply: Answered) => JSON.parse(reply.body.toString());

describe('tags', () => {
  test('are listed page by page, by the links that come with them', async () => {
    const { bed, repository } = await start();
    for (const tag of TAGS) repository.addImage(tag, [tag]);
    const seen: string[] = [];
    let query: { n?: number; last?: string } | null = { n: 2 };
    for (let pages = 0; query !== null && pages < 10; pages++) {
      const reply = await bed.ask(
        'docker.io',
        REPOSITORY,
        { kind: 'tags', ...query },
        { base: '/v2/docker.io/', ns: 'docker.io' },
      );
      expect(reply.headers['content-length']).toBe(String(reply.body.length));
      seen.push(...json(reply).tags);
      const { link } = reply.headers;
      const next = nextQuery(link);
      if (next !== null) {
        expect(link).toMatch(/^<\/v2\/docker\.io\/library\/app\/tags\/list\?[^>]+>; rel="next"$/);
        expect(next.get('ns')).toBe('docker.io');
      }
      query = next === null ? null : { n: Number(next.get('n')), last: next.get('last') ?? '' };
    }
    expect(seen).toEqual(TAGS);
  });

  test('HEAD has the headers of GET and no body; n=0 is an empty page without a link', async () => {
    const { bed, repository } = await start();
    for (const tag of TAGS) repository.addImage(tag, [tag]);
    const get = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', n: 2 });
    const head = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', n: 2 }, { method: 'HEAD' });
    expect([head.headers, head.body.length]).toEqual([get.headers, 0]);
    const none = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', n: 0 });
    expect([json(none), none.headers.link]).toEqual([{ name: REPOSITORY, tags: [] }, undefined]);
    expect(await refusalOf(bed.ask('docker.io', 'library/absent', { kind: 'tags', n: 0 }))).toBe('nameUnknown');
  });

  test('of a registry that knows no pages are cut into pages here', async () => {
    const { bed, fake } = await start();
    const all = { name: REPOSITORY, tags: ['v3', 'latest', '2', '1.1', '1'] };
    fake.faults = () => ({
      status: 200,
      headers: { 'content-type': 'application/json; charset=utf-8' },
      body: JSON.stringify(all),
    });
    const whole = await bed.ask('docker.io', REPOSITORY, { kind: 'tags' });
    expect([json(whole), whole.headers['content-type']]).toEqual([{ ...all, tags: TAGS }, 'application/json']);
    const first = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', n: 2 });
    expect([json(first).tags, first.headers.link]).toEqual([
      ['1', '1.1'],
      '</v2/library/app/tags/list?n=2&last=1.1>; rel="next"',
    ]);
    const last = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', n: 2, last: 'latest' });
    expect([json(last).tags, last.headers.link]).toEqual([['v3'], undefined]);
    const rest = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', last: '2' });
    expect(json(rest).tags).toEqual(['latest', 'v3']);
  });

  test('what an upstream adds to its link comes back to it', async () => {
    const asked: string[] = [];
    const server: Server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.setHeader('content-type', 'application/json');
      response.setHeader('link', '<https://elsewhere.example/v2/x/tags/list?next_page=a%2Fb%3D&n=1>; rel="next"');
      response.end('{"name":"x","tags":["a"]}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => new Promise((resolve) => server.close(resolve)));
    const { bed, fake } = await start();
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    bed.put('quay.io', { fake: Object.create(fake, { url: { value: url } }) as FakeRegistry });
    const reply = await bed.ask('quay.io', 'org/app', { kind: 'tags', n: 1 }, { base: '/quay.io/v2/' });
    expect(reply.headers.link).toMatch(
      /^<\/quay\.io\/v2\/org\/app\/tags\/list\?next_page=a%2Fb%3D&n=1&_next=1&_seen=[\w-]{8}>; rel="next"$/,
    );
    expect(json(reply)).toEqual({ name: 'org/app', tags: ['a'] });
    await bed.ask('quay.io', 'org/app', followed(reply.headers.link));
    expect(asked).toEqual(['/v2/org/app/tags/list?n=1', '/v2/org/app/tags/list?next_page=a%2Fb%3D&n=1']);
  });
});

describe('a list of tags that an upstream pages', () => {
  test('is whole to a client that follows the links, whatever they say (ghcr.io: n=0)', async () => {
    const { bed, fake, repository } = await start({ tagPages: 10 });
    const tags = Array.from({ length: 25 }, (_, at) => `v${String(at).padStart(2, '0')}`);
    for (const tag of tags) repository.addImage(tag, ['x']);
    for (const first of [{ kind: 'tags' }, { kind: 'tags', n: 10 }] as const) {
      const pages: string[][] = [];
      for (let what: What | null = first; what !== null; ) {
        const reply = await bed.ask('docker.io', REPOSITORY, what, { base: '/v2/docker.io/' });
        pages.push(json(reply).tags);
        what = reply.headers.link === undefined ? null : followed(reply.headers.link);
      }
      expect(pages.map((page) => page.length)).toEqual([10, 10, 5]);
      expect(pages.flat()).toEqual(tags);
    }
    expect(fake.log.of({ kind: 'tags' }).map(({ query }) => query)).toContain('?last=v09&n=0');
  });

  test('in an order of its own stays in that order, page for page', async () => {
    const { bed, fake } = await start();
    const newestFirst = ['v10', 'v9', 'v11', 'v1', 'v2'];
    fake.faults = ({ query }) => {
      const from = Number(new URLSearchParams(query).get('from') ?? 0);
      const link = from + 2 < newestFirst.length ? { link: `<?from=${from + 2}>; rel="next"` } : {};
      const body = JSON.stringify({ name: 'x', tags: newestFirst.slice(from, from + 2) });
      return { status: 200, headers: { 'content-type': 'application/json', ...link }, body };
    };
    const seen: string[] = [];
    for (let what: What | null = { kind: 'tags' }; what !== null; ) {
      const reply = await bed.ask('docker.io', REPOSITORY, what);
      seen.push(...json(reply).tags);
      what = reply.headers.link === undefined ? null : followed(reply.headers.link);
    }
    expect(seen).toEqual(newestFirst);
  });

  test('is cut where it has more than the client asked for, and goes on behind that', async () => {
    const { bed, repository } = await start({ tagPages: 4 });
    const tags = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const tag of tags) repository.addImage(tag, ['x']);
    const first = await bed.ask('docker.io', REPOSITORY, { kind: 'tags', n: 3 });
    expect([json(first).tags, followed(first.headers.link)]).toEqual([
      ['a', 'b', 'c'],
      { kind: 'tags', n: 3, last: 'c' },
    ]);
  });
});

describe('a list that is none is refused, and nothing of its bytes is passed on', () => {
  const html = '<html><script>alert(1)</script></html>';

  test.each([
    ['text/html', html],
    ['text/html', '{"name":"x","tags":["a"]}'],
    ['application/json', html],
    ['application/json', '{"tags":"a"}'],
    ['application/json', '{"tags":[{"a":1}]}'],
    ['application/json', '['.repeat(200_000)],
    ['application/json', ''],
  ])('tags as %s %.30s', async (type, body) => {
    const { bed, fake } = await start();
    fake.faults = () => ({ status: 200, headers: { 'content-type': type }, body });
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, { kind: 'tags' }))).toBe('upstreamWrong');
  });

  test('and one with more in it comes without', async () => {
    const { bed, fake } = await start();
    const body = JSON.stringify({ name: html, tags: ['1', html, '2'], extra: html });
    fake.faults = () => ({ status: 200, headers: { 'content-type': 'text/plain' }, body });
    const reply = await bed.ask('docker.io', REPOSITORY, { kind: 'tags' }, { base: '/v2/docker.io/' });
    expect(reply.headers['content-type']).toBe('application/json');
    expect(json(reply)).toEqual({ name: `docker.io/${REPOSITORY}`, tags: ['1', '2'] });
  });
});

describe('referrers', () => {
  test('come from the upstream, filtered and in pages as it says', async () => {
    const { bed, repository } = await start({ pageSize: 1 });
    const image = repository.addImage('1', ['one']);
    const sbom = repository.addImage(undefined, ['sbom'], { subject: image, artifactType: 'application/sbom' });
    repository.addImage(undefined, ['sig'], { subject: image, artifactType: 'application/sig' });
    const what = { kind: 'referrers', digest: image.digest } as const;
    const first = await bed.ask('docker.io', REPOSITORY, what, { base: '/docker.io/v2/' });
    expect([first.headers['content-type'], json(first).manifests.length]).toEqual([OCI_INDEX, 1]);
    expect(first.headers.link).toMatch(`</docker.io/v2/library/app/referrers/${image.digest}?`);
    const second = await bed.ask('docker.io', REPOSITORY, {
      ...followed(first.headers.link),
    });
    expect(json(second).manifests[0].digest).not.toBe(json(first).manifests[0].digest);
    const filtered = await bed.ask('docker.io', REPOSITORY, { ...what, artifactType: 'application/sbom' });
    expect(filtered.headers['oci-filters-applied']).toBe('artifactType');
    expect(json(filtered).manifests).toMatchObject([{ digest: sbom.digest }]);
  });

  test('come from the fallback tag where the upstream has no such API, and are an empty index where there is none', async () => {
    const { bed, repository } = await start({ referrers: false });
    const image = repository.addImage('1', ['one']);
    const what = { kind: 'referrers', digest: image.digest } as const;
    const none = await bed.ask('docker.io', REPOSITORY, what);
    expect([none.status, none.headers['content-type'], json(none).manifests]).toEqual([200, OCI_INDEX, []]);
    const descriptor = (type: string) => ({ mediaType: 'a/b', digest: image.digest, size: 1, artifactType: type });
    const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor('x/sbom'), descriptor('x/sig')] };
    repository.addManifest(index, OCI_INDEX, `sha256-${image.digest.slice('sha256:'.length)}`);
    bed.clock += 61_000;
    const all = await bed.ask('docker.io', REPOSITORY, what);
    expect([json(all), all.headers['oci-filters-applied']]).toEqual([index, undefined]);
    const some = await bed.ask('docker.io', REPOSITORY, { ...what, artifactType: 'x/sig' });
    expect([json(some).manifests, some.headers['oci-filters-applied']]).toEqual([
      [descriptor('x/sig')],
      'artifactType',
    ]);
    const head = await bed.ask('docker.io', REPOSITORY, what, { method: 'HEAD' });
    expect([head.headers, head.body.length]).toEqual([all.headers, 0]);
  });

  const elsewhere: [string, (web: FakeRegistry) => string, number | undefined][] = [
    ['answers 404 with a web page', (web) => `${web.url}/page`, 404],
    ['answers 200 with a web page', (web) => `${web.url}/page`, 200],
    ['fails', (web) => `${web.url}/page`, 500],
    ['wants a login', (web) => `${web.url}/page`, 401],
    ['redirects for ever', (web) => `${web.url}/page`, 302],
    ['refuses connections', () => 'http://127.0.0.1:1/page', undefined],
    ['is no host for it', () => 'http://169.254.169.254/page', undefined],
  ];
  test.each(elsewhere)(
    'come from the fallback tag where a redirect leads to a web host that %s',
    async (_, to, status) => {
      const { bed, fake, repository } = await start();
      const web = await FakeRegistry.start({ host: '127.66.6.6' });
      closers.push(() => web.close());
      const headers = { 'content-type': 'text/html', location: '/page' };
      web.faults = () => ({ status: status ?? 500, headers, body: '<html>not here</html>' });
      const image = repository.addImage('1', ['one']);
      const descriptor = { mediaType: 'a/b', digest: image.digest, size: 1 };
      const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [descriptor] };
      repository.addManifest(index, OCI_INDEX, `sha256-${image.digest.slice('sha256:'.length)}`);
      fake.faults = ({ kind }) => (kind === 'referrers' ? { status: 303, headers: { location: to(web) } } : undefined);
      const what = { kind: 'referrers', digest: image.digest } as const;
      for (let turn = 0; turn < 4; turn++) {
        const reply = await bed.ask('docker.io', REPOSITORY, what);
        expect([reply.status, reply.headers['content-type'], json(reply)]).toEqual([200, OCI_INDEX, index]);
      }
      // None of that counts against the registry.
      expect((await bed.manifest('docker.io', REPOSITORY, '1')).status).toBe(200);
    },
  );

  test.each([
    ['text/html', '<html>'],
    ['application/json', '{"errors":[]}'],
    [OCI_INDEX, '{"schemaVersion":2,"manifests":[{"digest":"<script>"}]}'],
    [OCI_INDEX, '<html>'],
  ])('are empty where the registry answers 200 with %s %s', async (type, body) => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    fake.faults = ({ kind }) =>
      kind === 'referrers' ? { status: 200, headers: { 'content-type': type }, body } : undefined;
    const reply = await bed.ask('docker.io', REPOSITORY, { kind: 'referrers', digest: image.digest });
    expect([reply.headers['content-type'], json(reply)]).toEqual([
      OCI_INDEX,
      { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] },
    ]);
  });

  test('are none where the fallback tag is the subject itself (GitLab takes it for the digest)', async () => {
    const { bed, repository } = await start({ referrers: false });
    const index = repository.addIndex('1', [repository.addImage(undefined, ['one'])]);
    repository.tags.set(`sha256-${index.digest.slice('sha256:'.length)}`, index.digest);
    const reply = await bed.ask('docker.io', REPOSITORY, { kind: 'referrers', digest: index.digest });
    expect(json(reply).manifests).toEqual([]);
  });

  test('of an upstream that fails are an error', async () => {
    const { bed, fake, repository } = await start();
    const image = repository.addImage('1', ['one']);
    fake.faults = () => ({ status: 503 });
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, { kind: 'referrers', digest: image.digest }))).toBe(
      'upstreamFailed',
    );
  });
});

describe('while the registry fails', () => {
  const LISTS: readonly [string, (digest: Digest) => What][] = [
    ['tags', () => ({ kind: 'tags' })],
    ['referrers', (digest) => ({ kind: 'referrers', digest })],
  ];

  test.each(LISTS)('the last list of %s is served, with a warning', async (_, what) => {
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    repository.addImage(undefined, ['signature'], { subject: image, artifactType: 'application/vnd.example' });
    const asked = what(image.digest);
    const first = await bed.ask('docker.io', REPOSITORY, asked);
    expect([first.status, first.from, first.headers.warning]).toEqual([200, 'upstream', undefined]);
    fake.faults = () => ({ status: 503 });
    bed.clock += 3_600_000;
    const stale = await bed.ask('docker.io', REPOSITORY, asked);
    expect([stale.status, stale.from, stale.body]).toEqual([200, 'stale', first.body]);
    expect(stale.headers.warning).toMatch(/^299 - "docker\.io failed: .+, since 20.+Z; this answer is 1 h old"$/);
    // The next does not wait for the same failure, and HEAD has the same headers.
    const before = fake.log.count();
    const head = await bed.ask('docker.io', REPOSITORY, asked, { method: 'HEAD' });
    expect([head.from, head.body.length, head.headers['content-length']]).toEqual([
      'stale',
      0,
      String(first.body.length),
    ]);
    expect(fake.log.count()).toBe(before);
    fake.faults = () => undefined;
    bed.clock += 60_000;
    expect((await bed.ask('docker.io', REPOSITORY, asked)).from).toBe('upstream');
  });

  test.each(LISTS)(
    'the last list of %s outlives a start, and is the same by whatever way it is asked for',
    async (_, what) => {
      const { fake, bed, repository } = await start({ pageSize: 1 });
      const image = repository.addImage('1', ['layer']);
      repository.addImage('2', ['other']);
      for (const type of ['a', 'b'])
        repository.addImage(undefined, [type], { subject: image, artifactType: `x/${type}` });
      const asked = what(image.digest);
      await bed.ask('docker.io', REPOSITORY, asked, { base: '/v2/docker.io/', method: 'HEAD' });
      await fake.close();
      bed.restartCore();
      for (const way of [
        { base: '/v2/' },
        { base: '/docker.io/v2/', ns: 'docker.io', name: 'app', client: '192.0.2.9' },
      ]) {
        const stale = await bed.ask('docker.io', REPOSITORY, asked, way);
        expect([stale.status, stale.from, stale.headers.warning]).toEqual([
          200,
          'stale',
          expect.stringMatching(/^299 - /),
        ]);
        expect(stale.headers.link).toMatch(`<${way.base}${REPOSITORY}/${asked.kind}/`);
        expect(stale.headers.link?.includes('ns=docker.io')).toBe('ns' in way);
        const { name, tags, manifests } = json(stale);
        if (asked.kind === 'tags') expect([name, tags]).toEqual(['name' in way ? way.name : REPOSITORY, ['1']]);
        else expect(manifests).toHaveLength(1);
      }
    },
  );

  test.each(LISTS)('%s that credentials opened go with them', async (_, what) => {
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const asked = what(image.digest);
    const credentials = { username: 'u', password: 'p' };
    bed.put('docker.io', { fake, credentials });
    const authenticated = { authenticated: true };
    expect((await bed.ask('docker.io', REPOSITORY, asked, authenticated)).from).toBe('upstream');
    fake.faults = () => ({ status: 503 });
    expect((await bed.ask('docker.io', REPOSITORY, asked, authenticated)).from).toBe('stale');
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, asked))).toBe('privateContent');
    bed.put('docker.io', { fake, credentials, public: true });
    expect((await bed.ask('docker.io', REPOSITORY, asked)).from).toBe('stale');
    bed.put('docker.io', { fake });
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, asked, authenticated))).toBe('upstreamFailed');
  });

  test.each(LISTS)('%s of a repository that denied a pull are not served, after a start either', async (_, what) => {
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const asked = what(image.digest);
    await bed.ask('docker.io', REPOSITORY, asked);
    fake.faults = () => ({ status: 403 });
    expect(await refusalOf(bed.manifest('docker.io', REPOSITORY, '1'))).toBe('upstreamDenied');
    fake.faults = () => ({ status: 503 });
    bed.restartCore();
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, asked))).toBe('upstreamFailed');
  });

  test('one client pushes out no list of another', async () => {
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const asked = { kind: 'referrers', digest: image.digest } as const;
    await bed.ask('docker.io', REPOSITORY, asked, { client: 'quiet' });
    // Some 45 KiB each: together more than all the room that lists have in this cache.
    const page = (at: number): What => ({ kind: 'tags', extra: [['page', String(at)]] });
    for (let at = 0; at < 40; at++) {
      const tags = Array.from({ length: 400 }, (_, tag) => `v${at}-${tag}-${'x'.repeat(100)}`);
      fake.faults = () => ({ status: 200, body: JSON.stringify({ tags }) });
      await bed.ask('docker.io', REPOSITORY, page(at), { client: 'loud' });
    }
    fake.faults = () => ({ status: 503 });
    expect((await bed.ask('docker.io', REPOSITORY, asked)).from).toBe('stale');
    expect((await bed.ask('docker.io', REPOSITORY, page(39))).from).toBe('stale');
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, page(0)))).toBe('upstreamFailed');
  });

  test.each(LISTS)('%s that were refused meanwhile are not served any more', async (_, what) => {
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const asked = what(image.digest);
    await bed.ask('docker.io', REPOSITORY, asked);
    fake.faults = () => ({ status: 403 });
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, asked))).toBe('upstreamDenied');
    fake.faults = () => ({ status: 503 });
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, asked))).toBe('upstreamFailed');
  });

  test.each(LISTS)('%s that were asked for before the table changed are not served', async (_, what) => {
    const { fake, bed, repository } = await start();
    const image = repository.addImage('1', ['layer']);
    const asked = what(image.digest);
    fake.faults = () => {
      bed.core.invalidate();
      return undefined;
    };
    expect((await bed.ask('docker.io', REPOSITORY, asked)).status).toBe(200);
    fake.faults = () => ({ status: 503 });
    expect(await refusalOf(bed.ask('docker.io', REPOSITORY, asked))).toBe('upstreamFailed');
  });
});
