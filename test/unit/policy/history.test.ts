import { describe, expect, onTestFinished, test } from 'vitest';
import type { Digest } from '../../../src/oci/names.ts';
import { ImageHistory } from '../../../src/policy/history.ts';
import type { HistoryStore, Sightings } from '../../../src/policy/history-store.ts';
import { silentLog } from '../../../src/telemetry/log.ts';
import { contentOf } from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';
import { MemoryHistoryStore } from '../../support/memory-history.ts';

const APP = { registry: 'docker.io', repository: 'library/app' };
const OTHER = { ...APP, repository: 'library/other' };
const TAG = { ...APP, tag: '1.2', variant: 'index' };
const digestOf = (name: string): Digest => contentOf(Buffer.from(name)).digest;
const [A, B, LAYER] = [digestOf('a'), digestOf('b'), digestOf('layer')];
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** A history over a store that counts what is written, with a clock of the test's own. */
function rig({ needsNames = true, store = new MemoryHistoryStore() as HistoryStore } = {}) {
  const bed = { now: 1_000_000, needsNames, away: false, written: [] as Sightings[] };
  const counting: HistoryStore = {
    record: async (sightings) => {
      if (bed.away) throw new Error('away');
      bed.written.push(sightings);
      await store.record(sightings);
    },
    spans: (...args) => store.spans(...args),
    tags: (...args) => store.tags(...args),
    firstSeen: (...args) => store.firstSeen(...args),
    tagsNaming: (...args) => store.tagsNaming(...args),
    lastSeenBehind: (newer) => store.lastSeenBehind(newer),
    dropBefore: (...args) => store.dropBefore(...args),
  };
  const history = new ImageHistory({
    store: counting,
    needsNames: () => bed.needsNames,
    log: silentLog(),
    now: () => bed.now,
  });
  onTestFinished(() => history.close());
  return Object.assign(bed, { history, store });
}

const rowsOf = (written: readonly Sightings[]) =>
  written.reduce((sum, { tags, seen, named }) => sum + tags.length + seen.length + named.length, 0);

describe('ImageHistory', () => {
  test('what it is told counts for whoever reads at once, and costs reads of other repositories nothing', async () => {
    const { history, written } = rig();
    history.tagSeen(TAG, A);
    expect(await history.firstSeen(OTHER, A)).toBeNull();
    expect(written).toEqual([]);
    expect(await history.firstSeen(APP, A)).toBe(1_000_000);
    expect(await history.spans(APP, '1.2', { limit: 9 })).toMatchObject([{ digest: A, from: 1_000_000 }]);
    expect(written).toHaveLength(1);
  });

  test('a tag that stays is written now and then, and to the moment when it moves or at the end', async () => {
    const bed = rig();
    const { history, store } = bed;
    for (let minute = 0; minute <= 25; minute++) {
      history.tagSeen(TAG, A);
      await history.flush();
      bed.now += MINUTE;
    }
    expect(rowsOf(bed.written)).toBe(4);
    history.tagSeen(TAG, B);
    bed.now += MINUTE;
    history.tagSeen(TAG, B);
    await history.close();
    expect((await store.spans(APP, '1.2', { limit: 9 })).map(({ digest, from, to }) => [digest, from, to])).toEqual([
      [B, 1_000_000 + 26 * MINUTE, 1_000_000 + 27 * MINUTE],
      [A, 1_000_000, 1_000_000 + 25 * MINUTE],
    ]);
  });

  test('all who ask while the store answers nobody fail together, after a write or two', async () => {
    const held: PromiseWithResolvers<void>[] = [];
    const store = Object.assign(new MemoryHistoryStore(), {
      record: () => {
        const write = Promise.withResolvers<void>();
        held.push(write);
        return write.promise;
      },
    });
    const { history } = rig({ store });
    history.tagSeen(TAG, A);
    const flushed = history.flush().catch((error: unknown) => error);
    const asked = Array.from({ length: 100 }, () => history.firstSeen(APP, A).catch((error: unknown) => error));
    for (let writes = 1; writes <= 2; writes++) {
      await eventually('a write is on its way', () => held.length === writes);
      held.at(-1)?.reject(new Error(`away ${writes}`));
    }
    expect(await flushed).toEqual(new Error('away 1'));
    expect(new Set((await Promise.all(asked)).map(String))).toEqual(new Set(['Error: away 2']));
    expect(held).toHaveLength(2);
    // The end writes what waits.
    const closed = history.close();
    await eventually('a last write', () => held.length === 3);
    held.at(-1)?.resolve();
    await closed;
  });

  test('that content is in use is written once a day, and its first sight stays', async () => {
    const bed = rig();
    for (let hour = 0; hour < 72; hour++) {
      bed.history.seen(APP, A);
      bed.now += DAY / 24;
    }
    await bed.history.flush();
    bed.history.seen(APP, A);
    await bed.history.flush();
    // It waited in one batch: the three days are one row of it, and the fourth another.
    expect(rowsOf(bed.written)).toBe(2);
    expect(await bed.history.firstSeen(APP, A)).toBe(1_000_000);
    expect(await bed.store.dropBefore(1_000_000 + DAY, 9)).toBe(false);
    expect(await bed.history.firstSeen(APP, A)).toBe(1_000_000);
  });

  test('names are kept while a rule needs them, once for each manifest', async () => {
    const bed = rig({ needsNames: false });
    expect(bed.history.wantsNames(APP, A)).toBe(false);
    bed.history.named(APP, A, [LAYER]);
    bed.needsNames = true;
    expect(await bed.history.firstSeen(APP, LAYER)).toBeNull();
    expect(bed.history.wantsNames(APP, A)).toBe(true);
    bed.history.named(APP, A, [LAYER]);
    expect(bed.history.wantsNames(APP, A)).toBe(false);
    expect(await bed.history.firstSeen(APP, LAYER)).toBe(1_000_000);
    bed.history.tagSeen(TAG, A);
    expect(await bed.history.tagsNaming(APP, LAYER)).toEqual(['1.2']);
  });

  test('waits for a store that is away: readers are told, and nothing is lost when it is back', async () => {
    const bed = rig();
    bed.away = true;
    bed.history.tagSeen(TAG, A);
    await expect(bed.history.firstSeen(APP, A)).rejects.toThrow('away');
    bed.now += 5 * MINUTE;
    bed.history.tagSeen(TAG, B);
    await expect(bed.history.flush()).rejects.toThrow('away');
    bed.away = false;
    expect(await bed.history.firstSeen(APP, A)).toBe(1_000_000);
    expect((await bed.history.spans(APP, '1.2', { limit: 9 })).map(({ digest }) => digest)).toEqual([B, A]);
  });

  test('holds no more than it says while the store is away, and sees again what it let go', async () => {
    const bed = rig();
    bed.away = true;
    for (let at = 0; at < 60_000; at++) bed.history.seen(APP, digestOf(`content ${at}`));
    bed.away = false;
    bed.now += MINUTE;
    await bed.history.flush();
    expect(rowsOf(bed.written)).toBeLessThanOrEqual(50_001);
    bed.history.seen(APP, digestOf('content 0'));
    expect(await bed.history.firstSeen(APP, digestOf('content 0'))).toBe(1_000_000 + MINUTE);
  });

  test('what another node wrote is seen a moment later', async () => {
    const store = new MemoryHistoryStore();
    const [one, two] = [rig({ store }), rig({ store: store.another() })];
    expect(await one.history.firstSeen(APP, A)).toBeNull();
    two.history.seen(APP, A);
    await two.history.flush();
    one.now += 10_000;
    expect(await one.history.firstSeen(APP, A)).toBe(1_000_000);
  });
});
