import { describe, expect, it } from 'vitest';
import {
  cleanups,
  digestOf,
  downloads,
  failure,
  fakeRegistry,
  fetchInto,
  layer,
  MIB,
  signal,
  upstreamOf,
} from '../support/downloads.ts';
import { eventually } from '../support/eventually.ts';
import { generated, QUIRKS } from '../support/fake-registry/index.ts';
import type { LoggedRequest, RequestKind } from '../support/fake-registry/log.ts';
import { MemorySink } from '../support/memory-sink.ts';
import { startUpstream, type TestUpstream, tagsRequest } from '../support/upstream.ts';

describe('a request that is not answered', () => {
  it.each(['a download', 'a stream', 'the size'])('is sent once more beside, and the answer used: %s', async (what) => {
    const fake = await fakeRegistry({ faults: ({ nth }) => (nth === 0 ? { hang: true } : undefined) });
    const content = layer(MIB, fake);
    const upstream = upstreamOf([fake.url], { stallTimeout: 2_000 });
    const key = { registry: 'r.test', repository: 'library/app', digest: content.digest };
    if (what === 'a download') await downloads(upstream, content);
    else if (what === 'the size') expect(await upstream.statBlob(key, signal)).toEqual({ size: MIB });
    else {
      const { source, size } = await upstream.openBlob(key, null, signal);
      expect(size).toBe(MIB);
      await source.close();
    }
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
    await eventually('the first is given up', () => fake.log.all.every(({ done }) => done));
  });

  const key = { registry: 'r.test', repository: 'library/app' };
  const tag = { kind: 'tag', tag: 'latest' } as const;
  it.each<[string, RequestKind, (upstream: TestUpstream) => Promise<unknown>]>([
    ['a manifest', 'manifest', (up) => up.manifest(key, tag, { method: 'GET', accept: undefined, signal })],
    ['the HEAD of one', 'manifest', (up) => up.manifest(key, tag, { method: 'HEAD', accept: undefined, signal })],
    ['tags', 'tags', (up) => up.tags(key, tagsRequest(), signal)],
    [
      'referrers',
      'referrers',
      (up) =>
        up.referrers(
          key,
          generated(1).digest,
          { page: generated(1).digest, artifactType: undefined, isKnown: true },
          signal,
        ),
    ],
    ['a token', 'token', (up) => up.tags(key, tagsRequest(), signal)],
  ])('is sent once more beside also for %s', async (_, kind, ask) => {
    const lost = ({ kind: asked, nth }: LoggedRequest) => (asked === kind && nth === 0 ? { hang: true } : undefined);
    const fake = await fakeRegistry({ auth: { scheme: 'bearer' }, faults: lost });
    fake.repository('library/app').addImage('latest', ['layer']);
    expect(await ask(upstreamOf([fake.url], { stallTimeout: 2_000 }))).toBeTruthy();
    // The first of the others is refused, without a token.
    expect(fake.log.of({ kind }).filter(({ status }) => status !== 401)).toHaveLength(2);
    await eventually('the first is given up', () => fake.log.all.every(({ done }) => done));
  });

  it('has its time beside the first, where that one gives up meanwhile', async () => {
    const fake = await fakeRegistry({ faults: ({ nth }) => (nth === 0 ? { hang: true } : { delay: 1_000 }) });
    await downloads(upstreamOf([fake.url], { stallTimeout: 1_000 }), layer(MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
  });

  it('is asked anew again and again in the middle of a blob, so that a registry that is well again is noticed soon', async () => {
    // The stall timeout is longer than a test may take.
    const fake = await fakeRegistry({
      faults: ({ nth }) => (nth === 0 ? { resetAfter: MIB } : nth < 3 ? { hang: true } : undefined),
    });
    await downloads(upstreamOf([fake.url], { stallTimeout: 300_000, connections: 1 }), layer(3 * MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(4);
  });

  it('is waited for, where the one beside fails', async () => {
    const fake = await fakeRegistry({ faults: ({ nth }) => (nth === 0 ? { delay: 1_200 } : { refuse: true }) });
    await downloads(upstreamOf([fake.url], { stallTimeout: 2_000 }), layer(MIB, fake));
    expect(fake.log.count({ kind: 'blob' })).toBe(2);
  });
});

describe('several endpoints', () => {
  it.each([
    ['refuses connections', { refuse: true }],
    ['answers 500', { status: 500 }],
    ['answers 429 with Retry-After', { status: 429, headers: { 'retry-after': '60' } }],
    ['has no such image', { status: 404 }],
  ])('the second serves when the first %s, and the first again when it has recovered', async (_, fault) => {
    const first = await fakeRegistry({ faults: () => fault });
    const second = await fakeRegistry();
    const content = layer(MIB, first, second);
    const upstream = upstreamOf([first.url, second.url]);
    for (let i = 0; i < 5; i++) await downloads(upstream, content);
    expect(second.log.count({ kind: 'blob', status: 200 })).toBe(5);
    first.faults = () => undefined;
    if ('status' in fault && fault.status === 429) return;
    await expect
      .poll(
        async () => {
          await downloads(upstream, content);
          return first.log.count({ kind: 'blob', status: 200 });
        },
        { timeout: 10_000, interval: 200 },
      )
      .toBeGreaterThan(0);
    expect(upstream.health('r.test')[0]).toMatchObject({ state: 'closed', failures: 0 });
  });

  it('are asked for a repository in another order while the first fails for it, and say what fails', async () => {
    const first = await fakeRegistry({ faults: () => ({ status: 500 }) });
    const second = await fakeRegistry();
    const content = layer(1000, first, second);
    const upstream = upstreamOf([first.url, second.url]);
    for (let i = 0; i < 10; i++) await downloads(upstream, content);
    expect(first.log.count()).toBeLessThan(6);
    const [state] = upstream.health('r.test');
    expect(state).toMatchObject({ url: first.url, state: 'closed', retryAt: null });
    expect(state?.lastError).toMatch(/^library\/app: .* answered 500$/);
    expect(state?.failing.map(({ repository }) => repository)).toEqual(['library/app']);
  });

  it('goes on at the second when the first stalls in the middle', async () => {
    const first = await fakeRegistry({
      faults: (request) => (request.nth === 0 ? { stallAfter: MIB } : { hang: true }),
    });
    const second = await fakeRegistry();
    const content = layer(4 * MIB, first, second);
    await downloads(upstreamOf([first.url, second.url], { stallTimeout: 400, connections: 1 }), content);
    expect(second.log.of({ kind: 'blob' })[0]?.range?.from).toBe(MIB);
    expect(first.log.count({ kind: 'blob' })).toBe(1);
  });

  it('never dresses a failure up as 404', async () => {
    const first = await fakeRegistry();
    const second = await fakeRegistry({ faults: () => ({ status: 500 }) });
    const error = await failure(fetchInto(upstreamOf([first.url, second.url]), generated(5).digest, new MemorySink()));
    expect(error.status).toBe(502);
  });
});

describe('more downloads than permits', () => {
  /** All that the pool of downloads has. */
  const MANY = 128;

  it('let another registry begin: the slowest rests, and goes on where it stopped', async () => {
    const dripping = await fakeRegistry({ bytesPerSecond: 20_000 });
    const good = await fakeRegistry();
    const upstream = startUpstream({
      'evil.test': { endpoints: [dripping.url] },
      'good.test': { endpoints: [good.url] },
    });
    cleanups.push(() => upstream.close());
    const drip = dripping.repository('library/app').addBlob(generated(MIB, 'drip'));
    const stop = new AbortController();
    const sinks = Array.from({ length: MANY }, () => new MemorySink());
    const slow = sinks.map((sink, i) =>
      upstream
        .download({ registry: 'evil.test', repository: `app${i % 2}`, digest: drip.digest }, sink, stop.signal)
        .catch((error: unknown) => error),
    );
    for (const i of [0, 1]) dripping.repository(`app${i}`).addBlob(drip);
    await eventually('all permits are taken', () => sinks.every(({ written }) => written > 0));
    const before = dripping.log.count({ kind: 'blob' });
    const content = good.repository('library/app').addBlob(generated(4 * MIB, 'good'));
    const sink = new MemorySink();
    await upstream.download({ registry: 'good.test', repository: 'library/app', digest: content.digest }, sink, signal);
    expect(sink.digest).toBe(content.digest);
    await eventually('whoever rested goes on', () => dripping.log.count({ kind: 'blob' }) > before);
    const [resumed] = dripping.log.of({ kind: 'blob' }).slice(before);
    expect(resumed?.range?.from).toBeGreaterThan(0);
    stop.abort(new Error('enough'));
    for (const ended of await Promise.all(slow)) expect(ended).toMatchObject({ message: 'enough' });
  });

  it('of what passes through: the one whose client does not read breaks off, and is taken up when it reads on', async () => {
    const fake = await fakeRegistry();
    const good = await fakeRegistry();
    const upstream = startUpstream({ 'evil.test': { endpoints: [fake.url] }, 'good.test': { endpoints: [good.url] } });
    cleanups.push(() => upstream.close());
    const content = generated(8 * MIB, 'passing');
    for (const i of [0, 1]) fake.repository(`app${i}`).addBlob(content);
    good.repository('app0').addBlob(content);
    const open = (registry: string, i: number) =>
      upstream.openBlob({ registry, repository: `app${i % 2}`, digest: content.digest }, null, signal);
    // As many as the pool of what passes through has permits.
    const lazy = await Promise.all(Array.from({ length: 64 }, (_, i) => open('evil.test', i)));
    const honest = await open('good.test', 0);
    expect(await digestOf(honest.source)).toBe(content.digest);
    for (const { source } of lazy.slice(1)) await source.close();
    expect(await digestOf(lazy[0]?.source)).toBe(content.digest);
  });
});

describe('many at once', () => {
  it('share what there is and all come through', async () => {
    const fake = await fakeRegistry(QUIRKS.docker);
    const contents = Array.from({ length: 40 }, (_, i) => layer(MIB + i, fake));
    const upstream = upstreamOf([fake.url]);
    await Promise.all(contents.map((content) => downloads(upstream, content)));
    expect(fake.log.count({ kind: 'cdn', status: 200 })).toBe(40);
  });
});
