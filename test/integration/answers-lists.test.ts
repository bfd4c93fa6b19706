import { brotliCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { resolvePull } from '../../src/edge/target.ts';
import { OCI_INDEX } from '../../src/oci/media-types.ts';
import type { Digest, What } from '../../src/oci/names.ts';
import { answersBed, closeAfterEach, fakeRegistry, REGISTRY, REPOSITORY, toldOf } from '../support/answers-bed.ts';
import { snapshotOf } from '../support/edge-bed.ts';
import { FakeRegistry } from '../support/fake-registry/index.ts';
import type { Fault } from '../support/fake-registry/options.ts';
import { nextQuery } from '../support/links.ts';
import { type Answered, digestOf, refusalOf } from '../support/registry-bed.ts';
import { startUpstream } from '../support/upstream.ts';

closeAfterEach();

const json = (reply: Answered) => JSON.parse(reply.body.toString());

/** What the edge makes of the link of a reply; null where it has none. */
function followed({ headers: { link } }: Answered): What | null {
  if (link === undefined) return null;
  const [path = '', query = ''] = (/^<([^>]+)>; rel="next"$/.exec(link)?.[1] ?? '').split('?');
  const route = resolvePull(
    { host: 'cr.test', port: '', path: `/v2/${REGISTRY}${path.slice('/v2'.length)}`, query },
    TABLE,
  );
  return route?.target.what ?? null;
}
const TABLE = snapshotOf('cr.test', [REGISTRY], {});

type Ask = (what: What) => Promise<Answered>;

/** Every page that a client sees which follows the links; no more than 30. */
async function pages(ask: Ask, first: What): Promise<Answered[]> {
  const seen: Answered[] = [];
  for (let what: What | null = first; what !== null && seen.length < 30; ) {
    const reply = await ask(what);
    seen.push(reply);
    what = followed(reply);
  }
  return seen;
}

const tagsOf = (replies: Answered[]): string[] => replies.flatMap((reply) => json(reply).tags);
const ALL = Array.from({ length: 25 }, (_, at) => `v${String(at).padStart(2, '0')}`);

/** A registry that pages by ten, whatever it is asked, and knows its own links only: `page=N`. */
function pagingBy(link: (query: string, page: number) => Record<string, string>) {
  return ({ query }: { query: string }) => {
    const page = Number(new URLSearchParams(query).get('page') ?? 0);
    const tags = ALL.slice(page * 10, page * 10 + 10);
    const more = page < 2 ? link(`page=${page + 1}`, page) : {};
    const headers = { 'content-type': 'application/json', ...more };
    return { status: 200, headers, body: JSON.stringify({ name: 'x', tags }) };
  };
}

describe('lists of tags end where their registry ends them', () => {
  const LINKS: [string, (query: string) => Record<string, string>][] = [
    ['a path', (query) => ({ link: `</v2/x/tags/list?${query}>; rel="next"` })],
    ['a query alone', (query) => ({ link: `<?${query}>; rel="next"` })],
    ['another host', (query) => ({ link: `<https://elsewhere.test/a/b?${query}>; rel="next"` })],
    ['parameters without quotes', (query) => ({ link: `</v2/x/tags/list?${query}>;rel=next` })],
    ['n=0', (query) => ({ link: `</v2/x/tags/list?${query}&n=0>; rel="next"` })],
    ['several links', (query) => ({ link: `<?page=0>; rel="first", <?${query}>; title="a, b"; rel="next"` })],
    ['several relations, in upper case', (query) => ({ link: `<?${query}>; REL="LAST NEXT"` })],
    ['a fragment', (query) => ({ link: `<?${query}#top>; rel="next"` })],
  ];

  it.each(LINKS)('with a link that has %s', async (_, link) => {
    for (const first of [{ kind: 'tags' }, { kind: 'tags', n: 10 }, { kind: 'tags', n: 100 }] as const) {
      const { fake, ask } = await answersBed();
      fake.faults = pagingBy(link);
      expect(tagsOf(await pages(ask, first))).toEqual(ALL);
    }
  });

  it('with a page size of the client that the registry takes no notice of, as of `last`', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = pagingBy((query) => ({ link: `<?${query}>; rel="next"` }));
    expect(tagsOf(await pages(ask, { kind: 'tags', n: 4 }))).toEqual(ALL);
  });

  it('with a page of no tags and a link', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = ({ query }) => {
      const first = !query.includes('after');
      const headers: Record<string, string> = { 'content-type': 'application/json' };
      if (first) headers.link = '<?after=x>; rel="next"';
      return { status: 200, headers, body: JSON.stringify({ tags: first ? null : ['a'] }) };
    };
    expect(tagsOf(await pages(ask, { kind: 'tags' }))).toEqual(['a']);
  });

  it('in the order of the registry, the last page too', async () => {
    const { fake, ask } = await answersBed();
    const order = ['v2', 'v10', 'v9', 'v1'];
    fake.faults = ({ query }) => {
      const last = query.includes('page');
      const headers = { 'content-type': 'application/json', ...(last ? {} : { link: '<?page=1>; rel="next"' }) };
      return { status: 200, headers, body: JSON.stringify({ tags: last ? order.slice(2) : order.slice(0, 2) }) };
    };
    expect(tagsOf(await pages(ask, { kind: 'tags' }))).toEqual(order);
  });

  it('or in an error, where a link is longer than any URL', async () => {
    const { fake, ask } = await answersBed();
    const link = `<?page=${'x'.repeat(6_000)}>; rel="next"`;
    fake.faults = () => ({ status: 200, headers: { link }, body: '{"tags":["a"]}' });
    expect(await refusalOf(ask({ kind: 'tags' }))).toBe('upstreamWrong');
  });

  it('with a last page of nothing that names itself', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = () => ({ status: 200, headers: { link: '<?page=1>; rel="next"' }, body: '{"tags":[]}' });
    const reply = await ask({ kind: 'tags', next: 'list?page=1' });
    expect([json(reply).tags, reply.headers.link]).toEqual([[], undefined]);
  });

  it('by a link that differs in its path', async () => {
    const { fake, ask } = await answersBed();
    const paths: string[] = [];
    fake.faults = ({ path, query }) => {
      paths.push(`${path}${query}`);
      const at = Number(/\d$/.exec(path)?.[0] ?? 1);
      const link = `</v2/library/app/tags/list/page=${at + 1}>; rel="next"`;
      return { status: 200, headers: at < 3 ? { link } : {}, body: JSON.stringify({ tags: [`v${at}`] }) };
    };
    expect(tagsOf(await pages(ask, { kind: 'tags' }))).toEqual(['v1', 'v2', 'v3']);
    expect(paths.at(-1)).toBe('/v2/library/app/tags/list/page=3');
  });

  it('by a link whose query goes back as it was written', async () => {
    const { fake, ask } = await answersBed();
    const cursor = '?t=a+b%20c%2Bd&x&y=';
    fake.faults = ({ query }) => {
      const first = query === '';
      const headers = first ? { link: `</v2/library/app/tags/list${cursor}>; rel="next"` } : {};
      return { status: 200, headers, body: JSON.stringify({ tags: [first ? 'a' : query] }) };
    };
    const seen = await pages(ask, { kind: 'tags' });
    expect(fake.log.of({ kind: 'tags' }).map(({ query }) => query)).toEqual(['', cursor]);
    expect(seen).toHaveLength(2);
  });

  it.each([undefined, 2])('once, where every page links to itself (n=%s)', async (n) => {
    const { fake, ask } = await answersBed();
    fake.faults = ({ path, query }) => ({
      status: 200,
      headers: { link: `<${path}${query}>; rel="next"` },
      body: '{"tags":["a","b","c"]}',
    });
    expect(tagsOf(await pages(ask, { kind: 'tags', ...(n === undefined ? {} : { n }) }))).toEqual(['a', 'b', 'c']);
  });

  /** A registry whose pages of two tags lead to one another as `next` says. */
  const leading = (next: readonly (number | null)[], tags: (page: number) => readonly string[] | null) => {
    return ({ query }: { query: string }) => {
      const page = Number(new URLSearchParams(query).get('page') ?? 0);
      const to = next[page];
      const headers = { ...(to == null ? {} : { link: `<?page=${to}>; rel="next"` }) };
      return { status: 200, headers, body: JSON.stringify({ tags: tags(page) }) };
    };
  };
  const two = (page: number) => [`v${page}a`, `v${page}b`];

  it.each([
    ['to the first', [1, 2, 3, 0]],
    ['to the first by another name', [1, 2, 3, 4, 1]],
    ['to one in between', [1, 2, 3, 2]],
    ['to the one before', [1, 2, 3, 2]],
  ])('once, where the last page leads back %s', async (_, next) => {
    const { fake, ask } = await answersBed();
    fake.faults = leading(next, (page) => two(page === 4 ? 0 : page));
    for (const first of [{ kind: 'tags' }, { kind: 'tags', n: 100 }, { kind: 'tags', n: 1 }] as const) {
      const seen = await pages(ask, first);
      expect(tagsOf(seen)).toEqual([0, 1, 2, 3].flatMap(two));
      expect(seen.at(-1)?.headers.link).toBeUndefined();
    }
  });

  it.each([undefined, 2])('once, where every page is all of it under another name (n=%s)', async (n) => {
    const { fake, ask } = await answersBed();
    const forever = Array.from({ length: 40 }, (_, page) => page + 1);
    fake.faults = leading(forever, () => ['a', 'b', 'c']);
    const seen = await pages(ask, { kind: 'tags', ...(n === undefined ? {} : { n }) });
    expect([tagsOf(seen), seen.at(-1)?.headers.link]).toEqual([['a', 'b', 'c'], undefined]);
  });

  it('where pages of nothing lead in a circle, and not where they lead on', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = leading([1, 2, 1], (page) => (page === 0 ? ['a'] : null));
    expect(tagsOf(await pages(ask, { kind: 'tags' }))).toEqual(['a']);
    fake.faults = leading([1, 2, 3, null], (page) => (page === 0 || page === 3 ? two(page) : null));
    expect(tagsOf(await pages(ask, { kind: 'tags' }))).toEqual([...two(0), ...two(3)]);
  });

  it('after thousands of pages', async () => {
    const { fake, ask } = await answersBed();
    const COUNT = 600;
    fake.faults = leading([...Array.from({ length: COUNT - 1 }, (_, page) => page + 1), 0], two);
    let tags = 0;
    for (let what: What | null = { kind: 'tags' }; what !== null && tags < 3 * COUNT; ) {
      const reply = await ask(what);
      expect(reply.headers.link?.length ?? 0).toBeLessThan(3_000);
      tags += json(reply).tags.length;
      what = followed(reply);
    }
    expect(tags).toBe(2 * COUNT);
  });

  it.each([
    ['has pages of a size of its own', 10],
    ['has no pages otherwise', Number.POSITIVE_INFINITY],
  ])('where it refuses so large a page, and %s', async (_, size) => {
    const { fake, ask } = await answersBed();
    fake.faults = ({ query }) => {
      const asked = new URLSearchParams(query);
      const headers: Record<string, string> = { 'content-type': 'application/json' };
      if (Number(asked.get('n') ?? 0) > 10) {
        const detail = { n: asked.get('n') };
        return {
          status: 400,
          headers,
          body: JSON.stringify({ errors: [{ code: 'PAGINATION_NUMBER_INVALID', detail }] }),
        };
      }
      const rest = ALL.filter((tag) => tag > (asked.get('last') ?? ''));
      const tags = rest.slice(0, size);
      if (tags.length < rest.length) headers.link = `<?last=${tags.at(-1)}>; rel="next"`;
      return { status: 200, headers, body: JSON.stringify({ tags }) };
    };
    for (const n of [11, 24, 1_000]) {
      const seen = await pages(ask, { kind: 'tags', n });
      expect(tagsOf(seen)).toEqual(ALL);
      expect(Math.max(...seen.map((reply) => json(reply).tags.length))).toBeLessThanOrEqual(n);
    }
  });

  it('or in an error, where a link leads out of the list', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = () => ({ status: 200, headers: { link: '</pages/2>; rel="next"' }, body: '{"tags":["a"]}' });
    expect(await refusalOf(ask({ kind: 'tags' }))).toBe('upstreamWrong');
  });

  it('and come compressed', async () => {
    const { fake, ask } = await answersBed();
    const headers = { 'content-type': 'application/json', 'content-encoding': 'br' };
    fake.faults = () => ({ status: 200, headers, body: brotliCompressSync('{"tags":["a"]}') });
    expect(tagsOf([await ask({ kind: 'tags' })])).toEqual(['a']);
  });

  it('deep JSON is none', async () => {
    const { fake, ask } = await answersBed();
    fake.faults = () => ({ status: 200, body: `{"tags":${'['.repeat(100_000)}` });
    expect(await refusalOf(ask({ kind: 'tags' }))).toBe('upstreamWrong');
  });
});

describe('referrers', () => {
  const fallback = (digest: Digest) => `sha256-${digest.slice('sha256:'.length)}`;
  const descriptor = (digest: Digest, artifactType: string) => ({ mediaType: 'a/b', digest, size: 1, artifactType });

  /** An image, and an index under the tag that is the fallback. */
  async function withFallback() {
    const bed = await answersBed();
    const image = bed.repository.addImage('1', ['one']);
    const manifests = [descriptor(image.digest, 'x/sig'), descriptor(image.digest, 'x/sbom')];
    bed.repository.addManifest(
      { schemaVersion: 2, mediaType: OCI_INDEX, manifests },
      OCI_INDEX,
      fallback(image.digest),
    );
    return { ...bed, image, manifests, what: { kind: 'referrers', digest: image.digest } as const };
  }

  const index = '{"schemaVersion":2,"manifests":[]}';
  it.each<[string, Omit<Fault, 'headers'> & { headers?: Record<string, string> }]>([
    ['200 with a web page', { status: 200, headers: { 'content-type': 'text/html' }, body: index }],
    [
      '200 with a manifest',
      { status: 200, headers: { 'content-type': OCI_INDEX }, body: '{"schemaVersion":2,"layers":[]}' },
    ],
    [
      '200 with a Docker list',
      {
        status: 200,
        headers: { 'content-type': 'application/vnd.docker.distribution.manifest.list.v2+json' },
        body: index,
      },
    ],
    ['200 with text', { status: 200, headers: { 'content-type': 'text/plain' }, body: 'not found' }],
    ['200 with nothing', { status: 200, headers: { 'content-type': OCI_INDEX }, body: '' }],
    [
      '200 with deep JSON',
      { status: 200, headers: { 'content-type': OCI_INDEX }, body: '{"manifests":'.repeat(20_000) },
    ],
    ['204', { status: 204 }],
    ['a redirect to itself', { status: 307, headers: { location: '' } }],
    ['a redirect without a place', { status: 302 }],
    ['400', { status: 400 }],
    ['401 in JSON', { status: 401, headers: { 'content-type': 'application/json' }, body: '{"errors":[]}' }],
    ['403 in JSON', { status: 403, headers: { 'content-type': 'application/json' }, body: '{"errors":[]}' }],
    ['403 with a web page', { status: 403, headers: { 'content-type': 'text/html' }, body: '<html>' }],
    ['404', { status: 404 }],
    ['405', { status: 405 }],
    ['406', { status: 406 }],
    ['501', { status: 501 }],
  ])('that are answered %s come from the fallback tag', async (_, fault) => {
    const { fake, ask, what, manifests } = await withFallback();
    fake.faults = ({ kind, path }) => {
      const headers = fault.headers?.location === '' ? { location: path } : (fault.headers ?? {});
      return kind === 'referrers' ? { ...fault, headers } : undefined;
    };
    const reply = await ask(what);
    expect([reply.status, reply.headers['content-type'], json(reply).manifests]).toEqual([200, OCI_INDEX, manifests]);
  });

  it.each([
    [429, 'upstreamRateLimited'],
    [500, 'upstreamFailed'],
    [503, 'upstreamFailed'],
  ])('that a registry answers %i itself are not empty, and no fallback', async (status, kind) => {
    const { fake, ask, what } = await withFallback();
    fake.faults = (request) => (request.kind === 'referrers' ? { status } : undefined);
    expect(await refusalOf(ask(what))).toBe(kind);
    // A page of the server in front of it says no more.
    if (status < 500) return;
    fake.faults = (request) =>
      request.kind === 'referrers' ? { status, headers: { 'content-type': 'text/html' } } : undefined;
    expect(await refusalOf(ask(what))).toBe(kind);
  });

  it.each([
    [401, 'upstreamUnauthorized'],
    [403, 'upstreamDenied'],
  ])('of a repository that its registry denies with %i are denied', async (status, kind) => {
    const { fake, ask, what } = await withFallback();
    fake.faults = () => ({ status });
    expect(await refusalOf(ask(what))).toBe(kind);
  });

  it('are not counted against their registry where a redirect leads to a web host', async () => {
    const { fake, bed, ask, what, manifests, image, manifest } = await withFallback();
    const web = await fakeRegistry({ host: '127.66.6.6' });
    web.faults = () => ({ status: 404, headers: { 'content-type': 'text/html' }, body: '<html>' });
    const to = (location: string) => {
      fake.faults = ({ kind }) => (kind === 'referrers' ? { status: 303, headers: { location } } : undefined);
    };
    for (const location of [`${web.url}/page`, `${web.url}/v2/x/y`, 'http://127.0.0.1:1/', 'http://169.254.169.254/']) {
      to(location);
      expect(json(await ask(what)).manifests).toEqual(manifests);
    }
    bed.clock += 61_000;
    expect((await manifest('1')).headers['docker-content-digest']).toBe(image.digest);
  });

  it('are not waited for where that web host never answers, beyond the time of an answer', async () => {
    const { fake, repository } = await withFallback();
    const web = await fakeRegistry({ host: '127.66.6.6', faults: () => ({ hang: true }) });
    fake.faults = ({ kind }) =>
      kind === 'referrers' ? { status: 303, headers: { location: `${web.url}/page` } } : undefined;
    const upstream = startUpstream({ [REGISTRY]: { endpoints: [fake.url] } }, { stallTimeout: 300 });
    const digest = repository.manifest('1')?.digest as Digest;
    const key = { registry: REGISTRY, repository: REPOSITORY };
    const request = { page: digest, artifactType: undefined };
    let asked = 0;
    // Nor again, whatever is asked for, and though nobody has pulled it: that host does not answer.
    for (const isKnown of [false, false, true]) {
      expect(await upstream.referrers(key, digest, { ...request, isKnown }, new AbortController().signal)).toBeNull();
      asked ||= web.log.count();
    }
    expect(web.log.count()).toBe(asked);
    expect(upstream.health(REGISTRY)).toMatchObject([{ state: 'closed', lastError: null }]);
    await upstream.close();
  });

  describe('of a registry without the API', () => {
    const NOT_THERE: [string, (web: FakeRegistry) => Fault][] = [
      ['answers 404', () => ({ status: 404, body: '404 page not found' })],
      ['answers 405', () => ({ status: 405 })],
      ['answers a web page', () => ({ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>' })],
      [
        'redirects to a web host that never answers',
        (web) => ({ status: 303, headers: { location: `${web.url}/page` } }),
      ],
    ];

    it.each(NOT_THERE)(
      'that %s are asked for once, and then of the fallback tag alone',
      async (_, fault) => {
        const { fake, ask, manifest, repository, what, manifests } = await withFallback();
        const web = await fakeRegistry({ host: '127.66.6.6', faults: () => ({ hang: true }) });
        fake.faults = ({ kind }) => (kind === 'referrers' ? fault(web) : undefined);
        const asked = () => fake.log.of({ kind: 'referrers' }).length;
        // Nothing shows yet that the repository holds the image, so that it may be the repository that is not there.
        expect(json(await ask(what)).manifests).toEqual(manifests);
        const before = asked();
        await manifest('1');
        for (let turn = 0; turn < 3; turn++) expect(json(await ask(what)).manifests).toEqual(manifests);
        const other = repository.addImage('2', ['two']);
        expect(json(await ask({ kind: 'referrers', digest: other.digest })).manifests).toEqual([]);
        expect(asked() - before).toBe(1);
      },
      20_000,
    );

    it.each([
      ['403 for one of them', { status: 403 }],
      ['no list for one of them', { status: 200, headers: { 'content-type': OCI_INDEX }, body: '{}' }],
    ])('that answers %s, the others are asked for', async (_, fault) => {
      const { fake, ask, manifest, repository, what } = await withFallback();
      await manifest('1');
      const other = repository.addImage('2', ['two']);
      const sbom = repository.addImage(undefined, ['sbom'], { subject: other, artifactType: 'x/sbom' });
      fake.faults = ({ kind, path }) => (kind === 'referrers' && path.endsWith(what.digest) ? fault : undefined);
      await ask(what);
      expect(json(await ask({ kind: 'referrers', digest: other.digest })).manifests).toMatchObject([
        { digest: sbom.digest },
      ]);
    });
  });

  it('are chosen by type here where their registry does not say that it has, page for page', async () => {
    const { fake, ask, image } = await withFallback();
    const rows = ['x/sig', 'x/sbom', 'x/sig'].map((type, at) =>
      descriptor(digestOf(`sha256:${`${at}`.repeat(64)}`), type),
    );
    fake.faults = ({ kind, query }) => {
      if (kind !== 'referrers') return undefined;
      const page = Number(new URLSearchParams(query).get('page') ?? 0);
      const headers: Record<string, string> = { 'content-type': OCI_INDEX };
      if (page < 2) headers.link = `<?page=${page + 1}>; rel="next"`;
      return { status: 200, headers, body: JSON.stringify({ schemaVersion: 2, manifests: [rows[page]] }) };
    };
    const replies = await pages(ask, { kind: 'referrers', digest: image.digest, artifactType: 'x/sig' });
    expect(replies.map((reply) => json(reply).manifests.length)).toEqual([1, 0, 1]);
    for (const { headers } of replies) expect(headers['oci-filters-applied']).toBe('artifactType');
    expect(fake.log.of({ kind: 'referrers' }).map(({ query }) => query)).toEqual([
      '?artifactType=x%2Fsig',
      '?page=1',
      '?page=2',
    ]);
    const all = await pages(ask, { kind: 'referrers', digest: image.digest });
    expect(all.map(({ headers }) => headers['oci-filters-applied'])).toEqual([undefined, undefined, undefined]);
  });

  it('of a subject that its registry takes for the fallback tag are none', async () => {
    const { repository, ask } = await answersBed({ referrers: false });
    const subject = repository.addIndex('1', [repository.addImage(undefined, ['one'])]);
    repository.tags.set(fallback(subject.digest), subject.digest);
    const reply = await ask({ kind: 'referrers', digest: subject.digest });
    expect([reply.status, json(reply).manifests]).toEqual([200, []]);
  });
});

it('a list names the repository as the client has it', async () => {
  const fake = await FakeRegistry.start();
  const { bed } = await answersBed();
  bed.put('docker.io', { fake });
  fake.repository('library/alpine').addImage('1', ['x']);
  const table = snapshotOf('cr.test', ['docker.io'], { docker: 'docker.io' });
  const NAMES: [string, string, string][] = [
    ['cr.test', '/v2/alpine', 'alpine'],
    ['cr.test', '/v2/library/alpine', 'library/alpine'],
    ['cr.test', '/v2/docker.io/alpine', 'docker.io/alpine'],
    ['cr.test', '/docker.io/v2/alpine', 'alpine'],
    ['cr.test', '/v2/registry-1.docker.io/alpine', 'registry-1.docker.io/alpine'],
    ['docker.cr.test', '/v2/alpine', 'alpine'],
  ];
  for (const [host, path, name] of NAMES) {
    const route = resolvePull({ host, port: '', path: `${path}/tags/list`, query: 'n=0' }, table);
    if (route === null) throw new Error(path);
    const { target, ...rest } = route;
    const reply = await bed.ask(target.registry, target.repository, { kind: 'tags' }, rest);
    expect([path, json(reply).name]).toEqual([path, name]);
  }
  await fake.close();
});

it('a link leads back in the shape that the client used', async () => {
  const { bed, repository } = await answersBed();
  for (const tag of ['a', 'b', 'c']) repository.addImage(tag, ['x']);
  const reply = await bed.ask(REGISTRY, REPOSITORY, { kind: 'tags', n: 2 }, { base: '/v2/r.test/' });
  expect(reply.headers.link).toMatch(/^<\/v2\/r\.test\/library\/app\/tags\/list\?/);
  expect(nextQuery(reply.headers.link)?.get('last')).toBe('b');
  expect((await toldOf(bed.ask(REGISTRY, 'no/such', { kind: 'tags' }))).status).toBe(404);
});
