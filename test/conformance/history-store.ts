import { describe, expect, test } from 'vitest';
import { FencedError, type Locks } from '../../src/kit/locks.ts';
import type { Digest, RepositoryKey } from '../../src/oci/names.ts';
import { type HistoryStore, MAX_SPANS, type Sightings } from '../../src/policy/history-store.ts';
import { contentOf } from '../support/cache-rig.ts';

export interface HistoryStoreHarness {
  readonly store: HistoryStore;
  /** Whose fences the store knows. */
  readonly locks: Locks;
  /** Another holder of the same rows. */
  another(): HistoryStore | Promise<HistoryStore>;
}

const APP = { registry: 'docker.io', repository: 'library/app' };
const OTHER = { registry: 'quay.io', repository: 'library/app' };
const digestOf = (name: string): Digest => contentOf(Buffer.from(name)).digest;
const [A, B, C] = [digestOf('a'), digestOf('b'), digestOf('c')];
/** The algorithms have different lengths. */
const LONG = contentOf(Buffer.from('long'), 'sha512').digest;

const nothing: Sightings = { tags: [], seen: [], named: [] };
const tag = (digest: Digest, at: number, { key = APP, name = '1.2', variant = 'index' } = {}) => ({
  ...key,
  tag: name,
  variant,
  digest,
  at,
});
const seen = (digest: Digest, at: number, key: RepositoryKey = APP) => ({ ...key, digest, at });
const named = (parent: Digest, children: readonly Digest[], at: number) => ({ ...APP, parent, children, at });
const tagged = (...tags: Sightings['tags']): Sightings => ({ ...nothing, tags });

/** What every `HistoryStore` keeps to. */
export function historyStoreConformance(
  name: string,
  open: () => HistoryStoreHarness | Promise<HistoryStoreHarness>,
): void {
  describe(`${name} is a HistoryStore`, () => {
    const spans = async (store: HistoryStore, variants?: readonly string[]) =>
      (await store.spans(APP, '1.2', { limit: 10, ...(variants === undefined ? {} : { variants }) })).map(
        ({ digest, from, to }) => [digest, from, to],
      );

    test('a tag that stays makes its span longer, one that moves begins another; the newest comes first', async () => {
      const { store, another } = await open();
      expect(await spans(store)).toEqual([]);
      await store.record(tagged(tag(A, 10), tag(A, 20)));
      await store.record(tagged(tag(A, 30), tag(LONG, 40), tag(LONG, 50)));
      await (await another()).record(tagged(tag(A, 60)));
      for (const each of [store, await another()]) {
        expect(await spans(each)).toEqual([
          [A, 60, 60],
          [LONG, 40, 50],
          [A, 10, 30],
        ]);
      }
      expect(await store.spans(APP, '1.2', { limit: 1 })).toMatchObject([{ digest: A, from: 60, variant: 'index' }]);
    });

    test('the same once more changes nothing, and what another node tells late finds its place', async () => {
      const { store, another } = await open();
      const all = tagged(tag(A, 10), tag(A, 30), tag(B, 50), tag(B, 60));
      for (let time = 0; time < 2; time++) await store.record(all);
      await (await another()).record(tagged(tag(A, 20), tag(A, 40), tag(B, 45), tag(B, 55)));
      expect(await spans(store)).toEqual([
        [B, 45, 60],
        [A, 10, 40],
      ]);
      // What nobody else saw between is a span of its own.
      await store.record(tagged(tag(C, 42), tag(A, 5), tag(C, 3)));
      expect(await spans(store)).toEqual([
        [B, 45, 60],
        [C, 42, 42],
        [A, 5, 40],
        [C, 3, 3],
      ]);
    });

    test('tags, variants and repositories are kept apart', async () => {
      const { store } = await open();
      await store.record(
        tagged(tag(A, 10), tag(B, 20, { variant: '3' }), tag(C, 30, { name: '1.3' }), tag(LONG, 40, { key: OTHER })),
      );
      expect(await spans(store)).toEqual([
        [B, 20, 20],
        [A, 10, 10],
      ]);
      expect(await spans(store, ['index', 'other'])).toEqual([[A, 10, 10]]);
      expect(await spans(store, [])).toEqual([]);
      await store.record(tagged(tag(A, 50), tag(B, 60, { name: '1.3' })));
      expect((await store.tags(APP, 10)).map(({ tag, variant, digest, to }) => [tag, variant, digest, to])).toEqual([
        ['1.3', 'index', B, 60],
        ['1.2', 'index', A, 50],
        ['1.2', '3', B, 20],
      ]);
      expect(await store.tags(APP, 1)).toHaveLength(1);
      expect(await store.tags({ ...APP, repository: 'library/none' }, 10)).toEqual([]);
    });

    test('the earliest sight stays, in each repository for itself, and comes with the span', async () => {
      const { store, another } = await open();
      await store.record({ ...nothing, seen: [seen(A, 30), seen(LONG, 20), seen(A, 50, OTHER)] });
      await (await another()).record({ ...nothing, tags: [tag(A, 60), tag(B, 70)], seen: [seen(A, 40), seen(A, 25)] });
      expect(new Map(await store.firstSeen(APP, [A, LONG, B]))).toEqual(
        new Map([
          [A, 25],
          [LONG, 20],
        ]),
      );
      expect(new Map(await store.firstSeen(OTHER, [A, LONG]))).toEqual(new Map([[A, 50]]));
      expect(await store.firstSeen({ ...APP, repository: 'library/none' }, [A])).toEqual(new Map());
      expect((await store.spans(APP, '1.2', { limit: 9 })).map(({ firstSeen }) => firstSeen)).toEqual([null, 25]);
    });

    test('what a manifest names was seen since the manifest was, whatever is recorded first', async () => {
      const { store, another } = await open();
      const [index, image, layer, config] = [digestOf('index'), digestOf('image'), LONG, digestOf('config')];
      const firsts = async () => {
        const found = await store.firstSeen(APP, [index, image, layer, config]);
        return [index, image, layer, config].map((digest) => found.get(digest));
      };
      // An image that was pulled by its digest, and of which the index was seen before, by a HEAD.
      await store.record({ ...nothing, named: [named(image, [layer, config], 50)] });
      expect(await firsts()).toEqual([undefined, 50, 50, 50]);
      await (await another()).record({ ...nothing, seen: [seen(index, 10), seen(layer, 40)] });
      expect(await firsts()).toEqual([10, 50, 40, 50]);
      await store.record({ ...nothing, named: [named(index, [image, digestOf('arm')], 70)] });
      expect(await firsts()).toEqual([10, 10, 10, 10]);
      // The names are known now: what is learnt of the index counts for all below.
      await (await another()).record({ ...nothing, seen: [seen(index, 5)] });
      expect(await firsts()).toEqual([5, 5, 5, 5]);
      // And what is learnt of a part counts for that part alone.
      await store.record({ ...nothing, seen: [seen(layer, 2)] });
      expect(await firsts()).toEqual([5, 5, 2, 5]);
    });

    test('a chain of manifests that arrives at once, the lowest first, is as old as its top', async () => {
      const { store } = await open();
      const chain = ['top', 'second', 'third', 'fourth', 'bottom'].map(digestOf);
      const links = chain
        .slice(1)
        .map((child, at) => named(chain[at] as Digest, [child], 100 - at))
        .reverse();
      await store.record({ ...nothing, seen: [seen(chain[0] as Digest, 7)], named: links });
      expect([...(await store.firstSeen(APP, chain)).values()]).toEqual([7, 7, 7, 7, 7]);
    });

    test('finds the tags by which content is reached, those seen last first, and those of the past', async () => {
      const { store } = await open();
      const [index, image, layer] = [digestOf('index'), digestOf('image'), digestOf('layer')];
      await store.record({
        tags: [tag(index, 10, { name: 'old' }), tag(A, 20, { name: 'old' }), tag(index, 30, { name: 'new' })],
        seen: [],
        named: [named(index, [image], 10), named(image, [layer], 10), named(A, [layer], 20)],
      });
      await store.record(tagged(tag(index, 40, { name: 'elsewhere', key: OTHER }), tag(B, 40, { name: 'other' })));
      expect(await store.tagsNaming(APP, index, 9)).toEqual(['new', 'old']);
      expect(await store.tagsNaming(APP, layer, 9)).toEqual(['new', 'old']);
      expect(await store.tagsNaming(APP, layer, 1)).toEqual(['new']);
      expect(await store.tagsNaming(APP, A, 9)).toEqual(['old']);
      // A tag is known to stand for it though it was never seen itself.
      expect(await store.tagsNaming(APP, B, 9)).toEqual(['other']);
      expect(await store.tagsNaming(OTHER, layer, 9)).toEqual([]);
      expect(await store.tagsNaming(APP, C, 9)).toEqual([]);
    });

    test('drops what was not seen for long, in small steps, and what it named', async () => {
      const { store, another } = await open();
      await store.record({
        tags: [tag(A, 10), tag(B, 100), tag(C, 20, { key: OTHER })],
        seen: [seen(A, 10), seen(A, 90), seen(C, 20, OTHER), seen(LONG, 20, OTHER)],
        named: [named(digestOf('gone'), [A], 15)],
      });
      let steps = 1;
      while (await (await another()).dropBefore(50, 2)) steps++;
      // Two spans, two sights of another repository, and the parent.
      expect(steps).toBe(3);
      expect(await spans(store)).toEqual([[B, 100, 100]]);
      expect(await store.firstSeen(APP, [A, digestOf('gone')])).toEqual(new Map([[A, 10]]));
      expect(await store.firstSeen(OTHER, [C, LONG])).toEqual(new Map());
      expect([await store.tagsNaming(OTHER, C, 9), await store.tags(OTHER, 9)]).toEqual([[], []]);
      await store.record({ ...nothing, seen: [seen(digestOf('gone'), 1)] });
      expect(await store.firstSeen(APP, [A])).toEqual(new Map([[A, 10]]));
    });

    test('tells since when no more than so much was seen', async () => {
      const { store, another } = await open();
      expect(await store.lastSeenBehind(0)).toBe(null);
      await store.record({ ...nothing, seen: [seen(A, 10), seen(B, 30), seen(C, 20, OTHER), seen(A, 40)] });
      const ranks = [0, 1, 2, 3].map(async (newer) => (await another()).lastSeenBehind(newer));
      expect(await Promise.all(ranks)).toEqual([40, 30, 20, null]);
    });

    test('keeps no more spans of one tag than it says', async () => {
      const { store } = await open();
      const moves = Array.from({ length: MAX_SPANS + 5 }, (_, at) => tag(at % 2 === 0 ? A : B, at));
      await store.record(tagged(tag(C, 5, { variant: 'other' }), ...moves));
      const kept = await store.spans(APP, '1.2', { variants: ['index'], limit: 2 * MAX_SPANS });
      expect([kept.length, kept.at(-1)?.from, kept[0]?.from]).toEqual([MAX_SPANS, 5, MAX_SPANS + 4]);
      expect(await spans(store, ['other'])).toEqual([[C, 5, 5]]);
    });

    test('nothing is dropped for one whose lock was granted to another', async () => {
      const { store, another, locks } = await open();
      await store.record(tagged(tag(A, 10)));
      const first = await locks.acquire('history', { leaseMs: 60_000 });
      await first.release();
      const second = await locks.acquire('history', { leaseMs: 60_000 });
      for (const each of [store, await another()]) {
        await expect(each.dropBefore(50, 10, first)).rejects.toThrow(FencedError);
      }
      expect(await spans(store)).toHaveLength(1);
      expect(await store.dropBefore(50, 10, second)).toBe(false);
      expect(await spans(store)).toEqual([]);
      await second.release();
    });
  });
}
