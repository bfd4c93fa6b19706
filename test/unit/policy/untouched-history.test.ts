import { expect, test } from 'vitest';
import type { Digest } from '../../../src/oci/names.ts';
import { UntouchedHistory } from '../../../src/policy/untouched-history.ts';
import { contentOf } from '../../support/cache-rig.ts';
import { MemoryHistoryStore } from '../../support/memory-history.ts';

const APP = { registry: 'docker.io', repository: 'library/app' };
const OTHER = { ...APP, repository: 'library/other' };
const digestOf = (name: string): Digest => contentOf(Buffer.from(name)).digest;
const [INDEX, A, B, LAYER, NEW] = ['index', 'a', 'b', 'layer', 'new'].map(digestOf) as [
  Digest,
  Digest,
  Digest,
  Digest,
  Digest,
];

const none = { tags: [], seen: [], named: [] };
const naming = (parent: Digest, ...children: Digest[]) => ({ named: [{ ...APP, parent, children, at: 9_000 }] });

async function start() {
  const store = new MemoryHistoryStore();
  const tagOf = (tag: string, digest: Digest, at: number) => ({ ...APP, tag, variant: 'index', digest, at });
  const seenAt = (digest: Digest, at: number) => ({ ...APP, digest, at });
  await store.record({
    ...none,
    tags: [tagOf('1', INDEX, 1_000), tagOf('b', B, 3_000)],
    seen: [seenAt(INDEX, 1_000), seenAt(A, 2_000), seenAt(B, 3_000)],
  });
  return { store, history: new UntouchedHistory(store) };
}

const firstOf = async (history: UntouchedHistory | MemoryHistoryStore, digest: Digest, key = APP) =>
  (await history.firstSeen(key, [digest])).get(digest);

test.each([
  ['from the index on', [naming(INDEX, A, B), naming(A, LAYER), naming(B, LAYER)]],
  ['to the index', [naming(B, LAYER), naming(A, LAYER), naming(INDEX, A, B)]],
])('what manifests name is as old as they are, and has their tags, as if it were written: %s', async (_, told) => {
  const { store, history } = await start();
  for (const one of told) await history.record(one);
  // Nothing is written.
  expect(await firstOf(store, LAYER)).toBeUndefined();
  expect(await store.tagsNaming(APP, LAYER, 10)).toEqual([]);
  const learnt = [];
  for (const digest of [INDEX, A, B, LAYER, NEW]) {
    learnt.push([await firstOf(history, digest), (await history.tagsNaming(APP, digest, 10)).toSorted()]);
  }
  for (const one of told) await store.record({ ...none, ...one });
  const written = [];
  for (const digest of [INDEX, A, B, LAYER, NEW]) {
    written.push([await firstOf(store, digest), (await store.tagsNaming(APP, digest, 10)).toSorted()]);
  }
  expect(learnt).toEqual(written);
  expect(learnt.at(-2)).toEqual([1_000, ['1', 'b']]);
  expect(await firstOf(history, LAYER, OTHER)).toBeUndefined();
});

test('what nobody has seen stays so, and so does what it names', async () => {
  const { history } = await start();
  await history.record(naming(NEW, LAYER));
  expect([await firstOf(history, NEW), await firstOf(history, LAYER)]).toEqual([undefined, undefined]);
});
