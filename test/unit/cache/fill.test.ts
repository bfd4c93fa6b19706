import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FileSource } from '../../../src/cache/shared-read.ts';
import { TruncatedError } from '../../../src/kit/byte-source.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import {
  DrivenFetch,
  endRig,
  fetchOf,
  makeContent,
  makeRig,
  type Rig,
  readAll,
  readUntilEnd,
} from '../../support/cache-rig.ts';
import { eventually } from '../../support/eventually.ts';

let rig: Rig;
beforeEach(async () => {
  rig = await makeRig();
});
afterEach(() => endRig(rig));

const filesOf = async (directory: string): Promise<string[]> =>
  (await readdir(join(rig.dataDir, directory), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name);

describe('a fill', () => {
  it.each(['sha256', 'sha512'] as const)('keeps a verified %s blob under its digest', async (algorithm) => {
    const content = makeContent(100_000, algorithm);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await handle.size()).toBe(100_000);
    expect(await readAll(handle.open())).toEqual(content.bytes);
    handle.release();
    await eventually('rig.index.blob(content.digest) !== null', () => rig.index.blob(content.digest) !== null);
    const hex = content.digest.slice(7);
    expect(await readFile(join(rig.dataDir, 'blobs', algorithm, hex.slice(0, 2), hex))).toEqual(content.bytes);
    expect(await filesOf('partial')).toEqual([]);
    const found = rig.cache.kept(content.digest);
    expect(found?.complete).toBe(true);
    expect(await readAll(found!.open({ from: 10, to: 20 }))).toEqual(content.bytes.subarray(10, 20));
    found?.release();
  });

  it('keeps an empty blob', async () => {
    const content = makeContent(0);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await handle.size()).toBe(0);
    expect(await readAll(handle.open())).toEqual(content.bytes);
    handle.release();
    await eventually('rig.index.blob(content.digest)?.size === 0', () => rig.index.blob(content.digest)?.size === 0);
  });

  it('is none of its own readers: a single one has nobody to share what it reads with', async () => {
    const content = makeContent(50_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(content.bytes.length);
    await sink.write(0, content.bytes.subarray(0, 10_000));
    const first = handle.open() as FileSource;
    await first.ready?.();
    // Who holds a handle is about to read, too.
    expect(first.place?.()?.shared).toBe(true);
    const second = handle.open() as FileSource;
    handle.release();
    expect([first.place?.()?.shared, second.place?.()?.shared]).toEqual([true, true]);
    await second.close();
    expect(first.place?.()?.shared).toBe(false);
    await first.close();
  });

  it('is one for all who ask meanwhile, each reading from its own offset', async () => {
    const content = makeContent(50_000);
    const driven = new DrivenFetch();
    const handles = Array.from({ length: 20 }, () => rig.cache.fill(content.key, driven.fetch));
    const sink = await driven.sink();
    sink.begin(50_000);
    const reads = handles.map((handle, index) => readAll(handle.open({ from: index * 100, to: undefined })));
    for (let at = 0; at < 50_000; at += 5_000) await sink.write(at, content.bytes.subarray(at, at + 5_000));
    driven.finish();
    for (const [index, read] of (await Promise.all(reads)).entries()) {
      expect(read.equals(content.bytes.subarray(index * 100))).toBe(true);
    }
    expect(driven.calls).toBe(1);
    for (const handle of handles) handle.release();
  });

  it('gives readers what is there at once, but the tail only when the digest is right', async () => {
    const content = makeContent(10_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(10_000);
    await sink.write(0, content.bytes.subarray(0, 5_000));
    await eventually('handle.available === 5_000', () => handle.available === 5_000);
    await sink.write(5_000, content.bytes.subarray(5_000));
    await eventually('handle.available === 10_000 - 1024', () => handle.available === 10_000 - 1024);
    expect(handle.complete).toBe(false);
    driven.finish();
    await eventually(
      'handle.complete && handle.available === 10_000',
      () => handle.complete && handle.available === 10_000,
    );
    handle.release();
  });

  it('holds the tail back where the size is unknown, too', async () => {
    const content = makeContent(10_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(undefined);
    expect(await handle.size()).toBeUndefined();
    const read = readAll(handle.open());
    await sink.write(0, content.bytes.subarray(0, 6_000));
    await eventually('handle.available === 6_000 - 1024', () => handle.available === 6_000 - 1024);
    await sink.write(6_000, content.bytes.subarray(6_000));
    driven.finish();
    expect(await read).toEqual(content.bytes);
    expect(await handle.size()).toBeUndefined();
    handle.release();
    await eventually(
      'rig.index.blob(content.digest)?.size === 10_000',
      () => rig.index.blob(content.digest)?.size === 10_000,
    );
  });

  it('gives what came last from memory, what came before from the file', async () => {
    const size = 1024 * 1024;
    const content = makeContent(size);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(size);
    const step = 50_000;
    for (let at = 0; at < 1_000_000; at += step) await sink.write(at, content.bytes.subarray(at, at + step));
    await eventually('handle.available === 1_000_000', () => handle.available === 1_000_000);
    const [name = ''] = await filesOf('partial');
    await writeFile(join(rig.dataDir, 'partial', name), Buffer.alloc(size));

    const near: FileSource = handle.open({ from: 900_123, to: 990_000 });
    const lent: Buffer[] = [];
    for (let next = near.lend?.(size) ?? null; next !== null; next = near.lend?.(size) ?? null) {
      lent.push(Buffer.from(next.bytes));
      next.release();
    }
    // Compared without a diff, which takes minutes to print.
    expect(Buffer.concat(lent).equals(content.bytes.subarray(900_123, 990_000))).toBe(true);
    await near.close();
    const early = await readAll(handle.open({ from: 0, to: 100_000 }), size);
    expect(early.equals(Buffer.alloc(100_000))).toBe(true);

    driven.fail(new Error('enough'));
    handle.release();
  });

  it('goes on when every reader has left', async () => {
    const content = makeContent(20_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(20_000);
    const source = handle.open();
    await sink.write(0, content.bytes.subarray(0, 5_000));
    expect(await source.pull(Buffer.alloc(100))).toBe(100);
    await source.close();
    handle.release();
    await sink.write(5_000, content.bytes.subarray(5_000));
    expect(driven.signal?.aborted).toBe(false);
    driven.finish();
    await eventually('rig.index.blob(content.digest) !== null', () => rig.index.blob(content.digest) !== null);
    expect(await readAll(rig.cache.kept(content.digest)!.open())).toEqual(content.bytes);
  });

  it('takes pieces out of order and hashes them in order', async () => {
    const content = makeContent(200_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(200_000);
    const read = readAll(handle.open());
    const pieces = Array.from({ length: 20 }, (_, index) => index * 10_000);
    pieces.sort((a, b) => ((a * 7919) % 20_011) - ((b * 7919) % 20_011));
    const last = pieces.indexOf(0);
    pieces.push(...pieces.splice(last, 1));
    await Promise.all(pieces.map((at) => sink.write(at, content.bytes.subarray(at, at + 10_000))));
    driven.finish();
    expect(await read).toEqual(content.bytes);
    handle.release();
  });

  it('refuses bytes that come twice', async () => {
    const content = makeContent(20_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(20_000);
    await sink.write(0, content.bytes.subarray(0, 5_000));
    await expect(sink.write(4_999, Buffer.alloc(10))).rejects.toThrow(RangeError);
    driven.fail(new Error('over'));
    handle.release();
  });
});

describe('a fill that gets wrong bytes', () => {
  const lies = {
    'one wrong byte in the middle': (bytes: Buffer) => {
      const wrong = Buffer.from(bytes);
      wrong[25_000] = (wrong[25_000] ?? 0) ^ 1;
      return fetchOf(wrong);
    },
    'fewer bytes than promised': (bytes: Buffer) => fetchOf(bytes.subarray(0, 49_000), { size: 50_000 }),
    'more bytes than promised': (bytes: Buffer) => fetchOf(bytes, { size: 49_000 }),
    'a body cut short, of unknown size': (bytes: Buffer) => fetchOf(bytes.subarray(0, 49_000), { size: undefined }),
  };

  it.each(Object.entries(lies))(
    '%s: no reader gets a whole body, nothing stays, the next one works',
    async (_, lie) => {
      const content = makeContent(50_000);
      const handle = rig.cache.fill(content.key, lie(content.bytes));
      const size = await handle.size();
      const reads = await Promise.all([0, 10_000].map((from) => readUntilEnd(handle.open({ from, to: undefined }))));
      for (const [index, { bytes, error }] of reads.entries()) {
        expect(error).toBeInstanceOf(TruncatedError);
        expect(bytes.length).toBeLessThan((size ?? 49_000) - index * 10_000);
      }
      handle.release();
      await eventually('(await filesOf("partial")).length === 0', async () => (await filesOf('partial')).length === 0);
      expect(rig.cache.kept(content.digest)).toBeNull();
      expect(await filesOf('blobs')).toEqual([]);
      const next = rig.cache.fill(content.key, fetchOf(content.bytes));
      expect(await readAll(next.open())).toEqual(content.bytes);
      next.release();
    },
  );

  it('refuses a size that changes', async () => {
    const content = makeContent(5_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(5_000);
    expect(() => sink.begin(5_001)).toThrow(RegistryError);
    expect((await readUntilEnd(handle.open())).error).toBeInstanceOf(TruncatedError);
    handle.release();
  });
});

describe('a fill whose upstream fails', () => {
  it('before the first byte tells the upstream’s own error and leaves nothing', async () => {
    const content = makeContent(5_000);
    const denied = new RegistryError('upstreamDenied', { facts: { registry: 'docker.io', repository: 'library/app' } });
    const handle = rig.cache.fill(content.key, () => Promise.reject(denied));
    await expect(handle.size()).rejects.toBe(denied);
    handle.release();
    expect(rig.cache.kept(content.digest)).toBeNull();
    await eventually('(await filesOf("partial")).length === 0', async () => (await filesOf('partial')).length === 0);
    const next = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await readAll(next.open())).toEqual(content.bytes);
    next.release();
  });

  it('in the middle ends readers short; the next fill fetches only the rest', async () => {
    const content = makeContent(100_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(100_000);
    await sink.write(0, content.bytes.subarray(0, 40_000));
    await sink.write(60_000, content.bytes.subarray(60_000, 70_000));
    await eventually('handle.available === 40_000', () => handle.available === 40_000);
    driven.fail(new RegistryError('upstreamFailed', { facts: { registry: 'docker.io', reason: 'reset' } }));
    const { bytes, error } = await readUntilEnd(handle.open());
    expect(error).toBeInstanceOf(TruncatedError);
    expect(bytes.equals(content.bytes.subarray(0, 40_000))).toBe(true);
    handle.release();

    const second = new DrivenFetch();
    const next = rig.cache.fill(content.key, second.fetch);
    const rest = await second.sink();
    expect(rest.held).toEqual([
      { from: 0, to: 40_000 },
      { from: 60_000, to: 70_000 },
    ]);
    rest.begin(100_000);
    await rest.write(40_000, content.bytes.subarray(40_000, 60_000));
    await rest.write(70_000, content.bytes.subarray(70_000));
    second.finish();
    expect(await readAll(next.open())).toEqual(content.bytes);
    next.release();
  });
});

describe('a restart', () => {
  it('takes up what was on disk when the cache was closed', async () => {
    const content = makeContent(100_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(100_000);
    await sink.write(0, content.bytes.subarray(0, 30_000));
    const read = readUntilEnd(handle.open());
    await eventually('handle.available === 30_000', () => handle.available === 30_000);
    await rig.cache.close();
    expect(driven.signal?.aborted).toBe(true);
    expect((await read).error).toBeInstanceOf(TruncatedError);

    rig = await makeRig({ dataDir: rig.dataDir, index: rig.index });
    const second = new DrivenFetch();
    const next = rig.cache.fill(content.key, second.fetch);
    const rest = await second.sink();
    expect(rest.held).toEqual([{ from: 0, to: 30_000 }]);
    rest.begin(100_000);
    await rest.write(30_000, content.bytes.subarray(30_000));
    second.finish();
    expect(await readAll(next.open())).toEqual(content.bytes);
    next.release();
  });
});
