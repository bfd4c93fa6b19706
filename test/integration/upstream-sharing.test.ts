import { createServer } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { Askers } from '../../src/kit/askers.ts';
import { RegistryError } from '../../src/oci/errors.ts';
import type { Digest } from '../../src/oci/names.ts';
import { POOLS } from '../../src/upstream/registry-upstream.ts';
import { eventually } from '../support/eventually.ts';
import { type Content, FakeRegistry, type FakeRegistryOptions, generated } from '../support/fake-registry/index.ts';
import type { Fault } from '../support/fake-registry/options.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { startUpstream, type TestUpstream } from '../support/upstream.ts';

const MIB = 1024 * 1024;
const cleanups: (() => Promise<void> | void)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const fake = await FakeRegistry.start(options);
  cleanups.push(() => fake.close());
  return fake;
}

/** Aborted at the end of the test: what the hostile registry's clients asked for. */
function untilTheEnd(): AbortSignal {
  const controller = new AbortController();
  cleanups.push(() => controller.abort(new Error('the test is over')));
  return controller.signal;
}

/** An honest registry and a hostile one behind the same gateway. */
async function bed(
  hostile: FakeRegistryOptions,
  options: Parameters<typeof startUpstream>[1] = {},
  honest: FakeRegistryOptions = {},
) {
  const [evil, good] = [await fakeRegistry(hostile), await fakeRegistry(honest)];
  const upstream = startUpstream(
    { 'evil.test': { endpoints: [evil.url] }, 'good.test': { endpoints: [good.url] } },
    { connections: 1, stallTimeout: 60_000, ...options },
  );
  cleanups.push(() => upstream.close());
  const signal = untilTheEnd();
  const asks = {
    manifest: (registry: string, repository: string, tag = '1', client?: string) =>
      upstream.manifest({ registry, repository }, { kind: 'tag', tag } as never, {
        method: 'GET',
        accept: undefined,
        signal,
        askers: askers(client),
      }),
    download: async (registry: string, repository: string, { digest }: Content, client?: string) => {
      const sink = new MemorySink();
      const key = { registry, repository, digest: digest as Digest };
      await upstream.download(key, sink, signal, askers(client));
      return sink;
    },
    open: (registry: string, repository: string, content: Content) =>
      upstream.openBlob({ registry, repository, digest: content.digest as Digest }, null, signal),
  };
  return { evil, good, upstream, ...asks };
}

function askers(client: string | undefined): Askers | undefined {
  return client === undefined ? undefined : new Askers(client);
}

/** What its client no longer waits for may fail as it likes. */
function unwaited(promise: Promise<unknown>): void {
  promise.catch(() => {});
}

async function failure(promise: Promise<unknown>): Promise<RegistryError> {
  const error = await promise.then(
    () => new Error('nothing was thrown'),
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(RegistryError);
  return error as RegistryError;
}

/** Twice as many as there are permits in all. */
const MANY = 2 * Math.max(...Object.values(POOLS).map(({ permits }) => permits));

describe('a hostile registry', () => {
  it('whose documents drip stops no document of another', async () => {
    const { evil, good, manifest } = await bed({ faults: () => ({ drip: 100 }) });
    good.repository('app').addImage('1', ['layer']);
    for (let i = 0; i < MANY; i++) unwaited(manifest('evil.test', `r${i}`));
    const most = POOLS.document.perGroup;
    await eventually('it has all that it can get', () => evil.log.count() >= most);
    for (let i = 0; i < 5; i++) expect((await manifest('good.test', 'app')).size).toBeGreaterThan(0);
    expect(evil.connections).toBeLessThanOrEqual(most + POOLS.document.perGroup);
  });

  it('whose documents drip does not keep what it borrowed from two others', async () => {
    const pools = {
      ...POOLS,
      document: { permits: 4, perGroup: 3, perAsker: 3, perItem: 3, safeFor: 50, turn: 200 },
    };
    const { evil, upstream, good, manifest } = await bed({ faults: () => ({ drip: 20 }) }, { limits: { pools } });
    upstream.routes.set('evil2.test', {
      ...(upstream.routes.get('evil.test') as never as object),
      host: 'evil2.test',
    } as never);
    good.repository('app').addImage('1', ['layer']);
    for (let i = 0; i < 20; i++) for (const host of ['evil.test', 'evil2.test']) unwaited(manifest(host, `r${i}`));
    await eventually('both have all that they can get', () => evil.log.count() >= 4);
    for (let i = 0; i < 5; i++) expect((await manifest('good.test', 'app')).size).toBeGreaterThan(0);
  });

  it('whose blobs drip stops no download of another, and the other way round they go on where they rested', async () => {
    const { evil, good, download } = await bed({ bytesPerSecond: 20_000 });
    const dripping = Array.from({ length: MANY }, (_, i) => evil.repository(`r${i % 9}`).addBlob(generated(MIB, i)));
    for (const [i, content] of dripping.entries()) unwaited(download('evil.test', `r${i % 9}`, content));
    await eventually('it has all that there are', () => evil.log.count({ status: 200 }) >= POOLS.fill.permits);
    const content = good.repository('app').addBlob(generated(4 * MIB, 1));
    expect((await download('good.test', 'app', content)).digest).toBe(content.digest);
    // One rested, and asks for the rest when the other is done.
    await eventually('who rested goes on', () => evil.log.count({ status: 206 }) > 0);
  });

  it('does not keep the additional connections that it borrowed, and its download comes whole all the same', async () => {
    const pools = {
      ...POOLS,
      segment: { permits: 3, perGroup: 3, perAsker: 3, perItem: 3, safeFor: 0, turn: 60_000 },
    };
    const options = { connections: 4, limits: { pools } };
    const { evil, good, download } = await bed({ bytesPerSecond: MIB }, options, { bytesPerSecond: MIB });
    const theirs = evil.repository('r').addBlob(generated(12 * MIB, 1));
    const slow = download('evil.test', 'r', theirs);
    await eventually(
      'it has all that there are',
      () => evil.log.of({ status: 206 }).filter(({ done }) => !done).length === 3,
    );
    const content = good.repository('app').addBlob(generated(6 * MIB, 2));
    expect((await download('good.test', 'app', content)).digest).toBe(content.digest);
    expect(good.log.count({ status: 206 })).toBeGreaterThan(0);
    expect((await slow).digest).toBe(theirs.digest);
  });

  it('whose clients do not read what passes through stops nobody else, and theirs go on when they read', async () => {
    const { evil, good, open } = await bed({});
    const content = evil.repository('r').addBlob(generated(8 * MIB, 7));
    const other = evil.repository('r2').addBlob(generated(8 * MIB, 8));
    const { perItem, permits } = POOLS.passing;
    const unread: Awaited<ReturnType<typeof open>>[] = [];
    for (let i = 0; i < perItem; i++) unread.push(await open('evil.test', 'r', content));
    for (let i = 0; i < permits - perItem; i++) unread.push(await open('evil.test', 'r2', other));
    const wanted = good.repository('app').addBlob(generated(MIB, 9));
    for (let i = 0; i < 3; i++) {
      const stream = await open('good.test', 'app', wanted);
      expect(await read(stream)).toEqual(wanted.read(0, wanted.size));
    }
    const [first] = unread;
    for (const stream of unread.slice(1)) await stream.source.close();
    expect(Buffer.compare(await read(first as never), content.read(0, content.size))).toBe(0);
  });
});

async function read({ source }: { source: { pull(into: Uint8Array): Promise<number> } }): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const into = Buffer.alloc(64 * 1024);
  for (let count = await source.pull(into); count > 0; count = await source.pull(into))
    chunks.push(Buffer.from(into.subarray(0, count)));
  return Buffer.concat(chunks);
}

describe('one path of a registry', () => {
  it.each([
    ['never answers', { hang: true }, { stallTimeout: 300 }],
    ['answers 500', { status: 500 }, {}],
    ['drips', { drip: 50 }, { limits: { document: 300 } }],
    ['breaks every connection', { refuse: true }, {}],
    ['is limited', { status: 429, headers: { 'retry-after': '600' } }, {}],
  ])('that %s closes no other', async (_, fault, options) => {
    const { good: registry, manifest, upstream } = await bed({}, options);
    registry.faults = ({ path }) => (path.startsWith('/v2/bad/') ? fault : undefined);
    registry.repository('good/app').addImage('1', ['layer']);
    for (let i = 0; i < 5; i++) await failure(manifest('good.test', 'bad', `${i}`));
    expect((await manifest('good.test', 'good/app')).size).toBeGreaterThan(0);
    expect(upstream.health('good.test')[0]?.state).toBe('closed');
    registry.faults = () => undefined;
    registry.repository('bad').addImage('1', ['layer']);
    if (!('headers' in fault)) expect((await manifest('good.test', 'bad')).size).toBeGreaterThan(0);
  });

  it('whose token endpoint cannot be connected to closes no other, and the log says which host it was', async () => {
    const port = await closedPort();
    const { good: registry, manifest, upstream } = await bed({});
    const challenge = `Bearer realm="http://127.0.0.1:${port}/token",service="x"`;
    registry.faults = ({ path }) =>
      path.startsWith('/v2/bad/') ? { status: 401, headers: { 'www-authenticate': challenge } } : undefined;
    registry.repository('good/app').addImage('1', ['layer']);
    for (let i = 0; i < 5; i++) {
      const error = await failure(manifest('good.test', 'bad', `${i}`));
      expect([error.status, error.message]).toEqual([
        502,
        'good.test failed: its token endpoint cannot be connected to: it refuses connections',
      ]);
      expect(error.logged).toContain(`127.0.0.1:${port}`);
    }
    expect(upstream.outOfReach('good.test')).toBe(false);
    expect((await manifest('good.test', 'good/app')).size).toBeGreaterThan(0);
  });

  it('that redirects to a host that cannot be connected to closes no other', async () => {
    const port = await closedPort();
    const { good: registry, manifest, upstream } = await bed({});
    registry.faults = ({ path }) =>
      path.startsWith('/v2/bad/') ? { status: 307, headers: { location: `http://127.0.0.1:${port}/x` } } : undefined;
    registry.repository('good/app').addImage('1', ['layer']);
    for (let i = 0; i < 5; i++) expect((await failure(manifest('good.test', 'bad', `${i}`))).status).toBe(502);
    expect(upstream.outOfReach('good.test')).toBe(false);
    expect((await manifest('good.test', 'good/app')).size).toBeGreaterThan(0);
  });

  it('whose blobs drip leaves room for those of others, and in the end for others of its own', async () => {
    const pools = {
      ...POOLS,
      fill: { permits: 4, perGroup: 4, perAsker: 3, perItem: 3, safeFor: 0, turn: 200 },
    };
    const { good: registry, download } = await bed({}, { limits: { pools } });
    registry.faults = ({ nth, repository }) => (repository === 'bad' ? { stallAfter: 1000 + nth } : undefined);
    const dripping = Array.from({ length: 20 }, (_, i) => registry.repository('bad').addBlob(generated(MIB, i)));
    for (const content of dripping) unwaited(download('good.test', 'bad', content));
    await eventually('it has all that it can get', () => registry.log.count() >= 3);
    const other = registry.repository('good/app').addBlob(generated(MIB, 100));
    expect((await download('good.test', 'good/app', other)).digest).toBe(other.digest);
    registry.faults = ({ reference }) =>
      dripping.some(({ digest }) => digest === reference) ? { stallAfter: 9 } : undefined;
    const own = registry.repository('bad').addBlob(generated(MIB, 200));
    expect((await download('good.test', 'bad', own)).digest).toBe(own.digest);
  });
});

describe('a greedy client of a registry', () => {
  it('with 400 cold blobs that drip holds up no download of another, in the same repository', async () => {
    const { good: registry, download } = await bed({});
    registry.faults = ({ nth, reference }) =>
      greedy.some(({ digest }) => digest === reference) ? { stallAfter: 1000 + nth } : undefined;
    const greedy = Array.from({ length: 400 }, (_, i) => registry.repository('app').addBlob(generated(MIB, i)));
    for (const content of greedy) unwaited(download('good.test', 'app', content, 'greedy'));
    const most = Math.min(POOLS.fill.perAsker, POOLS.fill.perItem);
    await eventually('it has all that it can get', () => registry.log.count() >= most);
    const own = registry.repository('app').addBlob(generated(MIB, 1000));
    expect((await download('good.test', 'app', own, 'modest')).digest).toBe(own.digest);
    const other = registry.repository('other').addBlob(generated(MIB, 1001));
    expect((await download('good.test', 'other', other, 'modest')).digest).toBe(other.digest);
  });

  it.each(['app', 'other'])(
    'with 200 manifests that hang holds up no manifest of another, in %s',
    async (repository) => {
      const { good: registry, manifest } = await bed({});
      registry.faults = ({ reference }) => (reference?.startsWith('hangs') ? { hang: true } : undefined);
      for (const name of ['app', 'other']) registry.repository(name).addImage('1', ['layer']);
      for (let i = 0; i < 200; i++) unwaited(manifest('good.test', 'app', `hangs${i}`, 'greedy'));
      const most = Math.min(POOLS.document.perAsker, POOLS.document.perItem);
      await eventually('it has all that it can get', () => registry.log.count() >= most);
      expect((await manifest('good.test', repository, '1', 'modest')).size).toBeGreaterThan(0);
    },
  );
});

describe('what takes too long', () => {
  it('is a document that drips', async () => {
    const { manifest } = await bed({ faults: () => ({ drip: 10 }) }, { limits: { document: 500 } });
    const error = await failure(manifest('evil.test', 'app'));
    expect([error.kind, error.message]).toEqual([
      'upstreamTimeout',
      'evil.test did not answer in time: its answer was not whole after 1 s',
    ]);
  });

  it('is the rest of an answer that is not needed: an error, a redirect, a challenge', async () => {
    const { evil, manifest } = await bed({});
    const location = `${evil.url}/v2/app/manifests/there`;
    const realm = { 'www-authenticate': `Bearer realm="${evil.url}/token",service="fake.registry"` };
    const answers: Record<string, Fault> = {
      missing: { drip: 50, status: 404 },
      redirected: { drip: 50, status: 307, headers: { location } },
      challenged: { drip: 50, status: 401, headers: realm },
    };
    evil.faults = ({ reference }) => answers[reference ?? ''];
    evil.repository('app').addImage('there', ['layer']);
    expect((await failure(manifest('evil.test', 'app', 'missing'))).status).toBe(404);
    expect((await manifest('evil.test', 'app', 'redirected')).size).toBeGreaterThan(0);
    await failure(manifest('evil.test', 'app', 'challenged'));
    await eventually('none of them holds a connection', () => evil.log.all.every(({ done }) => done));
  });

  it('is a token endpoint that drips', async () => {
    const { evil, manifest } = await bed({ auth: { scheme: 'bearer' } }, { limits: { document: 500 } });
    evil.faults = ({ kind }) => (kind === 'token' ? { drip: 20 } : undefined);
    expect((await failure(manifest('evil.test', 'app'))).kind).toBe('upstreamTimeout');
  });

  it('is a wait for others, and the client is told in words when to come back', async () => {
    const pools = {
      ...POOLS,
      document: { permits: 2, perGroup: 2, perAsker: 2, perItem: 2, safeFor: 60_000, turn: 60_000 },
    };
    const { evil, manifest } = await bed({ faults: () => ({ hang: true }) }, { limits: { pools, wait: 100 } });
    for (let i = 0; i < 2; i++) unwaited(manifest('evil.test', `r${i}`));
    await eventually('both are taken', () => evil.log.count() === 2);
    const own = await failure(manifest('evil.test', 'r3'));
    const other = await failure(manifest('good.test', 'app'));
    expect([own.status, own.options.retryAfter, own.message, own.next]).toEqual([
      503,
      5,
      'the gateway is busy with requests from evil.test',
      'try again in 5 s',
    ]);
    expect(other.message).toBe('the gateway is busy with requests from other registries');
  });
});

describe('a registry that cannot be connected to', () => {
  it('is asked again by the next request, and is well as soon as it is', async () => {
    const port = await closedPort();
    const { upstream, manifest } = await bed({});
    upstream.routes.set('down.test', {
      ...(upstream.routes.get('good.test') as NonNullable<ReturnType<TestUpstream['routes']['get']>>),
      host: 'down.test',
      endpoints: [`http://127.0.0.1:${port}`],
    });
    for (let i = 0; i < 3; i++) await failure(manifest('down.test', 'app'));
    expect(upstream.outOfReach('down.test')).toBe(true);
    expect(upstream.health('down.test')[0]).toMatchObject({ state: 'open', lastError: 'it refuses connections' });
    const error = await failure(manifest('down.test', 'app'));
    expect(error.message).toBe('down.test failed: it refuses connections');
    const registry = await fakeRegistry({ port });
    registry.repository('app').addImage('1', ['layer']);
    expect((await manifest('down.test', 'app')).size).toBeGreaterThan(0);
    expect(upstream.health('down.test')[0]).toMatchObject({ state: 'closed', failures: 0, lastError: null });
  });
});

/** A port of this machine on which nobody listens. */
async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
