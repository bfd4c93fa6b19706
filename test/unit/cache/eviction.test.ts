import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Eviction } from '../../../src/cache/eviction.ts';
import { Layout } from '../../../src/cache/files.ts';
import type { UsedBlob } from '../../../src/cache/index-port.ts';
import { Pins } from '../../../src/cache/pins.ts';
import type { RegistryError } from '../../../src/oci/errors.ts';
import type { Digest } from '../../../src/oci/names.ts';
import { sourceOf } from '../../support/byte-source.ts';
import {
  type Content,
  DrivenFetch,
  endRig,
  fetchOf,
  MIB,
  makeContent,
  makeRig,
  type Rig,
  readAll,
  readUntilEnd,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';

let rig: Rig;
afterEach(() => endRig(rig));

const put = async (content: Content): Promise<void> => {
  const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
  expect(await readAll(handle.open())).toEqual(content.bytes);
  handle.release();
  await eventually(
    'rig.index.blob(content.digest) !== null && rig.cache.admin.stats().…',
    () => rig.index.blob(content.digest) !== null && rig.cache.admin.stats().fills === 0,
  );
};

const bytesOnDisk = async (): Promise<number> => {
  const { stat } = await import('node:fs/promises');
  let sum = 0;
  for (const directory of ['blobs', 'partial']) {
    const entries = await readdir(join(rig.dataDir, directory), { recursive: true, withFileTypes: true });
    for (const entry of entries) {
      if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name)).catch(() => ({ size: 0 }))).size;
    }
  }
  return sum;
};

describe('a cache at its limit', () => {
  it('never takes more than its size while far more goes through it, and drops what was used longest ago', async () => {
    rig = await makeRig({ maxSize: MIB });
    const favourite = makeContent(50_000);
    await put(favourite);
    const contents = Array.from({ length: 40 }, () => makeContent(100_000));
    for (const content of contents) {
      await put(content);
      // Used in between, so it stays.
      await readAll(rig.cache.kept(favourite.digest)!.open());
      expect(await bytesOnDisk()).toBeLessThanOrEqual(MIB);
      expect(rig.index.totals().bytes).toBeLessThanOrEqual(MIB);
    }
    expect(rig.index.blob(favourite.digest)).not.toBeNull();
    expect(rig.index.blob(contents[0]!.digest)).toBeNull();
    expect(rig.index.blob(contents.at(-1)!.digest)).not.toBeNull();
    expect(rig.cache.admin.stats().evictions).toBeGreaterThan(25);
  });

  it('drops what is another gateway’s to keep before its own, however lately that was used', async () => {
    const own = makeContent(300_000);
    rig = await makeRig({ maxSize: MIB, owns: (digest) => digest === own.digest });
    await put(own);
    const others = Array.from({ length: 6 }, () => makeContent(200_000));
    for (const content of others) await put(content);
    expect(rig.index.blob(own.digest)).not.toBeNull();
    expect(rig.index.blob(others[0]!.digest)).toBeNull();
  });

  it('frees a tenth at once, so that it does not evict at every fill', async () => {
    rig = await makeRig({ maxSize: MIB });
    for (let count = 0; count < 104; count++) await put(makeContent(10_000));
    const rounds = new Set<number>();
    for (let count = 0; count < 20; count++) {
      await put(makeContent(10_000));
      rounds.add(rig.cache.admin.stats().evictions);
    }
    expect(rounds.size).toBeLessThanOrEqual(4);
  });

  it('goes on where a step of the walk found nothing, and lets others have their turn in between', async () => {
    let turns = 0;
    class StepByStep extends MemoryCacheIndex {
      override *leastRecent(limit: number): Generator<UsedBlob[], void> {
        const before = turns;
        setImmediate(() => turns++);
        yield [];
        expect(turns).toBe(before + 1);
        setImmediate(() => turns++);
        yield [];
        expect(turns).toBe(before + 2);
        yield* super.leastRecent(limit);
      }
    }
    rig = await makeRig({ maxSize: 250_000, index: new StepByStep() });
    const contents = [makeContent(100_000), makeContent(100_000), makeContent(100_000)];
    for (const content of contents) await put(content);
    expect(contents.map(({ digest }) => rig.index.blob(digest) !== null)).toEqual([false, true, true]);
    expect(turns).toBe(2);
  });

  it('drops the partial file that was used longest ago first, in whatever order they were found', async () => {
    rig = await makeRig();
    const dropped: string[] = [];
    const eviction = new Eviction({
      maxSize: MIB,
      minFree: 0,
      layout: new Layout(rig.dataDir),
      index: new MemoryCacheIndex(),
      inUse: () => false,
      pins: new Pins(new MemoryCacheIndex(), () => {}),
      flush: () => {},
      dropped: () => {},
      evicted: () => {},
      dropPartial: async (partial) => {
        dropped.push(partial);
        // A fill takes up another meanwhile.
        if (partial === 'oldest') eviction.reserve('taken up', undefined);
      },
      indexFailed: () => {},
    });
    for (const [partial, at] of [
      ['new', 4],
      ['old', 3],
      ['taken up', 2],
      ['oldest', 1],
    ] as const) {
      eviction.addPartial(partial, 1_000, at);
    }
    expect(await eviction.dropPartials(2_000)).toBe(2_000);
    expect(dropped).toEqual(['oldest', 'old']);
    expect(eviction.partials).toEqual({ count: 1, bytes: 1_000 });
  });

  it('has its index put in order some seconds after the start', async () => {
    let steps = 0;
    class Untidy extends MemoryCacheIndex {
      override *tidy(): Generator<undefined, void> {
        for (; steps < 3; steps++) yield;
      }
    }
    rig = await makeRig({ maintain: true, index: new Untidy() });
    await eventually('steps === 3', () => steps === 3);
  });

  it('does not evict what is being read', async () => {
    rig = await makeRig({ maxSize: 300_000 });
    const read = makeContent(100_000);
    await put(read);
    const handle = rig.cache.kept(read.digest)!;
    const source = handle.open();
    handle.release();
    await source.pull(Buffer.alloc(10));
    for (let count = 0; count < 10; count++) await put(makeContent(100_000));
    expect(rig.index.blob(read.digest)).not.toBeNull();
    expect((await readAll(source)).equals(read.bytes.subarray(10))).toBe(true);
  });

  it('lets a blob go past it that is larger than all of it, and takes no second try at it', async () => {
    rig = await makeRig({ maxSize: 100_000 });
    const content = makeContent(200_000);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await handle.size()).toBe(200_000);
    const offsets: number[] = [];
    const source = handle.open(undefined, {
      continueFrom: async (offset) => {
        offsets.push(offset);
        return sourceOf(content.bytes.subarray(offset));
      },
    });
    expect(source.length).toBe(200_000);
    expect(await readAll(source)).toEqual(content.bytes);
    expect(offsets).toEqual([0]);
    handle.release();
    expect(rig.cache.accepts(content.key)).toBe(false);
    await eventually('(await bytesOnDisk()) === 0', async () => (await bytesOnDisk()) === 0);
  });

  it('checks what goes past it by its digest as well', async () => {
    rig = await makeRig({ maxSize: 100_000 });
    const content = makeContent(200_000);
    const wrong = Buffer.from(content.bytes);
    wrong[0] = (wrong[0] ?? 0) ^ 1;
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    const source = handle.open(undefined, { continueFrom: async (at) => sourceOf(wrong.subarray(at)) });
    const { bytes, error } = await readUntilEnd(source);
    expect(error?.message).toContain('are not those of');
    expect(bytes.length).toBeLessThan(200_000);
    handle.release();
  });

  it('lets what has no room beside the blobs in use go past it', async () => {
    rig = await makeRig({ maxSize: 150_000 });
    const read = makeContent(100_000);
    await put(read);
    const held = rig.cache.kept(read.digest)!;
    const content = makeContent(100_000);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    const source = handle.open(undefined, { continueFrom: async (at) => sourceOf(content.bytes.subarray(at)) });
    expect(await readAll(source)).toEqual(content.bytes);
    handle.release();
    held.release();
    expect(rig.cache.accepts(content.key)).toBe(true);
    await put(content);
  });

  it('counts what is promised to fills that run, and takes room in steps where the size is unknown', async () => {
    rig = await makeRig({ maxSize: MIB });
    const first = new DrivenFetch();
    const firstHandle = rig.cache.fill(makeContent(10).key, first.fetch);
    (await first.sink()).begin(800_000);
    const content = makeContent(400_000);
    const second = rig.cache.fill(content.key, fetchOf(content.bytes));
    const source = second.open(undefined, { continueFrom: async (at) => sourceOf(content.bytes.subarray(at)) });
    expect(await readAll(source)).toEqual(content.bytes);
    second.release();
    expect(rig.index.blob(content.digest)).toBeNull();
    first.fail(new Error('over'));
    await expect(readUntilEnd(firstHandle.open())).resolves.toMatchObject({ bytes: Buffer.alloc(0) });
    firstHandle.release();
  });

  it('drops nothing for what is only announced, and little for little that came', async () => {
    rig = await makeRig({ maxSize: MIB });
    const kept = Array.from({ length: 9 }, () => makeContent(100_000));
    for (const content of kept) await put(content);
    const announced = makeContent(10);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(announced.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(1_000_000);
    await sink.write(0, Buffer.alloc(70_000));
    await eventually('the bytes are there', () => handle.available >= 60_000);
    expect(rig.cache.admin.stats().evictions).toBe(0);
    await sink.write(70_000, Buffer.alloc(200_000));
    await eventually('the bytes are there', () => handle.available >= 200_000);
    // For what came and as much again, and down to nine tenths.
    expect(rig.cache.admin.stats().evictions).toBeLessThanOrEqual(6);
    driven.fail(new Error('over'));
    handle.release();
  });

  it('goes on where the index fails while room is made: every body is whole, and the rows go later', async () => {
    let broken = false;
    class Failing extends MemoryCacheIndex {
      override removeBlobs(digests: readonly Digest[]): void {
        if (broken) throw Object.assign(new Error('disk I/O error'), { code: 'SQLITE_IOERR' });
        super.removeBlobs(digests);
      }
    }
    rig = await makeRig({ maxSize: 300_000, index: new Failing() });
    for (let count = 0; count < 3; count++) await put(makeContent(90_000));
    broken = true;
    const contents = Array.from({ length: 6 }, () => makeContent(90_000));
    for (const content of contents) {
      const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
      expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
      handle.release();
      await eventually('the fill has ended', () => rig.cache.admin.stats().fills === 0);
    }
    expect(await bytesOnDisk()).toBeLessThanOrEqual(300_000);
    broken = false;
    await put(makeContent(90_000));
    await put(makeContent(90_000));
    expect(rig.index.totals().bytes).toBe(await bytesOnDisk());
  });

  it('removes files before rows: a crash in between leaves no file that nobody counts', async () => {
    const left: boolean[] = [];
    class Watching extends MemoryCacheIndex {
      override removeBlobs(digests: readonly Digest[]): void {
        for (const digest of digests) left.push(existsSync(new Layout(rig.dataDir).blob(digest)));
        super.removeBlobs(digests);
      }
    }
    rig = await makeRig({ maxSize: 300_000, index: new Watching() });
    for (let count = 0; count < 6; count++) await put(makeContent(90_000));
    expect(left.length).toBeGreaterThan(2);
    expect(left).not.toContain(true);
  });

  it('leaves nothing that looks like damage where its process ends between files and rows', async () => {
    let ended = false;
    class Ending extends MemoryCacheIndex {
      override removeBlobs(digests: readonly Digest[]): void {
        if (ended) throw new Error('the process has ended');
        super.removeBlobs(digests);
      }
    }
    const index = new Ending();
    rig = await makeRig({ maxSize: 300_000, index });
    for (let count = 0; count < 3; count++) await put(makeContent(90_000));
    ended = true;
    await put(makeContent(90_000));
    const { dataDir } = rig;
    const files = await bytesOnDisk();
    expect(index.totals().bytes).toBeGreaterThan(files);
    await rig.cache.close();
    ended = false;
    rig = await makeRig({ dataDir, index });
    expect(index.totals().bytes).toBe(files);
    const verified = await rig.cache.admin.verify(() => {}, new AbortController().signal);
    expect(verified).toMatchObject({ dropped: [], adopted: 0, removed: 0 });
  });

  it.each([
    ['before', 60_000, 0],
    ['after', -60_000, 1],
  ])('drops what an ended fill left %s a blob that was used then: by the last use', async (_, later, partials) => {
    rig = await makeRig({ maxSize: 300_000 });
    const whole = makeContent(100_000);
    await put(whole);
    const driven = new DrivenFetch();
    const left = makeContent(150_000);
    const handle = rig.cache.fill(left.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(150_000);
    await sink.write(0, left.bytes.subarray(0, 100_000));
    await eventually('handle.available === 100_000', () => handle.available === 100_000);
    driven.fail(new Error('over') as RegistryError);
    handle.release();
    await eventually('rig.cache.admin.stats().partials === 1', () => rig.cache.admin.stats().partials === 1);
    rig.index.addBlob({ digest: whole.digest, size: 100_000, created: 1, lastUse: Date.now() + later });
    await put(makeContent(150_000));
    expect(rig.cache.admin.stats().partials).toBe(partials);
    expect(rig.index.blob(whole.digest) === null).toBe(partials === 1);
  });

  it('leaves the disk its free space: first it evicts, then it keeps nothing more', async () => {
    let free = 10 * MIB;
    rig = await makeRig({ minFree: MIB, freeBytes: async () => free });
    const old = makeContent(100_000);
    await put(old);
    // The disk is filled by others; one blob less makes room for one more.
    free = MIB + 50_000;
    const next = makeContent(100_000);
    const handle = rig.cache.fill(next.key, fetchOf(next.bytes));
    const source = handle.open(undefined, { continueFrom: async (at) => sourceOf(next.bytes.subarray(at)) });
    expect(await readAll(source)).toEqual(next.bytes);
    handle.release();
    expect(rig.index.blob(old.digest)).toBeNull();
    expect(rig.cache.accepts(next.key)).toBe(false);
    expect(await rig.metrics.text()).toContain('gateway_cache_write_errors_total{code="min-free"} 1');
  });
});
