import { chmod, readdir, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { partialName } from '../../../src/cache/files.ts';
import type { FileSource } from '../../../src/cache/shared-read.ts';
import { TruncatedError } from '../../../src/kit/byte-source.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { sourceOf } from '../../support/byte-source.ts';
import {
  type Content,
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
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';

let rig: Rig;
afterEach(() => endRig(rig));

const pathOf = ({ digest }: Content): string =>
  join(rig.dataDir, 'blobs', 'sha256', digest.slice(7, 9), digest.slice(7));

const put = async (content: Content): Promise<void> => {
  const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
  await readAll(handle.open());
  handle.release();
  await eventually(
    'rig.index.blob(content.digest) !== null && rig.cache.admin.stats().…',
    () => rig.index.blob(content.digest) !== null && rig.cache.admin.stats().fills === 0,
  );
};

describe('a directory that cannot be written', () => {
  it('lets the pull go past it, and says so until it is tried again', async () => {
    rig = await makeRig();
    await rm(join(rig.dataDir, 'partial'), { recursive: true });
    await writeFile(join(rig.dataDir, 'partial'), 'a file where the directory was');
    const content = makeContent(50_000);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await handle.size()).toBe(50_000);
    const offsets: number[] = [];
    const source = handle.open(
      { from: 100, to: 30_000 },
      {
        continueFrom: async (offset) => {
          offsets.push(offset);
          return sourceOf(content.bytes.subarray(offset));
        },
      },
    );
    expect((await readAll(source)).equals(content.bytes.subarray(100, 30_000))).toBe(true);
    expect(offsets).toEqual([100]);
    expect((await readUntilEnd(handle.open())).error).toBeInstanceOf(TruncatedError);
    handle.release();
    expect(rig.cache.accepts(content.key)).toBe(false);
    expect(await rig.metrics.total('cache_write_errors_total', { code: 'ENOTDIR' })).toBe(1);
  });

  it('still tells the upstream’s own refusal', async () => {
    rig = await makeRig();
    await rm(join(rig.dataDir, 'partial'), { recursive: true });
    const refusal = new RegistryError('blobUnknown');
    const handle = rig.cache.fill(makeContent(10).key, () => Promise.reject(refusal));
    await expect(handle.size()).rejects.toBe(refusal);
    handle.release();
  });

  it('gives the whole blob where only keeping it fails', async () => {
    rig = await makeRig();
    await rm(join(rig.dataDir, 'blobs'), { recursive: true });
    await writeFile(join(rig.dataDir, 'blobs'), 'a file where the directory was');
    const content = makeContent(50_000);
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await readAll(handle.open())).toEqual(content.bytes);
    handle.release();
    await eventually(
      '!rig.cache.accepts(content.key) && rig.cache.admin.stats().fills…',
      () => !rig.cache.accepts(content.key) && rig.cache.admin.stats().fills === 0,
    );
    expect(rig.cache.kept(content.digest)).toBeNull();
    await eventually(
      '(await readdir(join(rig.dataDir, "partial"))).length === 0',
      async () => (await readdir(join(rig.dataDir, 'partial'))).length === 0,
    );
  });
});

describe('an index that fails in everything', () => {
  it.each(['SQLITE_BUSY', 'SQLITE_IOERR_READ', 'SQLITE_FULL', 'SQLITE_CORRUPT'])(
    'with %s: every body is whole, and nothing is left unhandled',
    async (code) => {
      let broken = false;
      const index = new Proxy(new MemoryCacheIndex(), {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value !== 'function') return value;
          return (...given: unknown[]) => {
            if (broken && name !== 'close') throw Object.assign(new Error('the index fails'), { code });
            return value.apply(target, given);
          };
        },
      });
      const unhandled: unknown[] = [];
      const note = (error: unknown) => unhandled.push(error);
      process.on('unhandledRejection', note);
      rig = await makeRig({ index, maxSize: 300_000 });
      const kept = [makeContent(90_000), makeContent(90_000), makeContent(90_000)];
      for (const content of kept) await put(content);
      const reading = rig.cache.kept(kept[0]!.digest)!;
      const source = reading.open();
      broken = true;
      for (let count = 0; count < 4; count++) {
        const content = makeContent(90_000);
        expect(rig.cache.kept(content.digest)).toBeNull();
        const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
        const pastIt = { continueFrom: async (at: number) => sourceOf(content.bytes.subarray(at)) };
        expect((await readAll(handle.open(undefined, pastIt))).equals(content.bytes)).toBe(true);
        handle.release();
      }
      expect((await readAll(source)).equals(kept[0]!.bytes)).toBe(true);
      reading.release();
      rig.cache.manifests.putTag({ registry: 'docker.io', repository: 'a' }, '1', 'oci', {
        digest: kept[0]!.digest,
        checkedAt: 1,
      });
      expect(rig.cache.manifests.getManifest(kept[0]!.digest)).toBeNull();
      expect(await rig.metrics.text()).toContain('gateway_cache_bytes 0');
      await rig.cache.close();
      broken = false;
      await new Promise((resolve) => setImmediate(resolve));
      process.off('unhandledRejection', note);
      expect(unhandled).toEqual([]);
    },
  );
});

describe('a kept file that is not what it was', () => {
  it.each([
    ['missing', (path: string) => rm(path)],
    ['cut short', (path: string) => truncate(path, 10_000)],
    ['too long', (path: string) => truncate(path, 60_000)],
  ])('%s: it counts as not here, and is fetched anew', async (_, harm) => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await put(content);
    await harm(pathOf(content));
    expect(rig.cache.kept(content.digest)).toBeNull();
    await put(content);
    expect(await readAll(rig.cache.kept(content.digest)!.open())).toEqual(content.bytes);
    expect((await stat(pathOf(content))).size).toBe(50_000);
  });

  it('cut short while it is read: the reader goes on past the cache, the next one finds nothing', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await put(content);
    const handle = rig.cache.kept(content.digest)!;
    const source = handle.open(undefined, { continueFrom: async (at) => sourceOf(content.bytes.subarray(at)) });
    await source.pull(Buffer.alloc(100));
    await truncate(pathOf(content), 20_000);
    expect((await readAll(source)).equals(content.bytes.subarray(100))).toBe(true);
    handle.release();
    expect(rig.cache.kept(content.digest)).toBeNull();
    await put(content);
  });

  it('cut short while it is read, and an upstream that lies about the rest: the body is never whole', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await put(content);
    const handle = rig.cache.kept(content.digest)!;
    const wrong = Buffer.from(content.bytes);
    wrong[40_000] = (wrong[40_000] ?? 0) ^ 1;
    const source = handle.open(undefined, { continueFrom: async (at) => sourceOf(wrong.subarray(at)) });
    await source.pull(Buffer.alloc(100));
    await truncate(pathOf(content), 20_000);
    const { bytes, error } = await readUntilEnd(source);
    expect(error?.message).toContain('are not those of');
    expect(bytes.length).toBeLessThan(49_900);
    handle.release();
  });

  it.each([
    [
      'was written to since',
      // The clock of files may be some ms behind.
      async (content: Content) => await utimes(pathOf(content), new Date(), new Date(Date.now() + 1_000)),
    ],
    [
      'was not checked for a day',
      async (content: Content) => {
        await utimes(pathOf(content), 1, 1);
        rig.index.markChecked(content.digest, Date.now() - 25 * 3_600_000);
      },
    ],
  ])(
    'of wrong bytes, where it %s: a reader of all of it never gets the end, and it is fetched anew',
    async (_, age) => {
      rig = await makeRig();
      const content = makeContent(50_000);
      await put(content);
      const rotten = Buffer.from(content.bytes);
      rotten[30_000] = (rotten[30_000] ?? 0) ^ 1;
      await writeFile(pathOf(content), rotten);
      await age(content);
      const handle = rig.cache.kept(content.digest)!;
      // A part says nothing about the rest.
      expect((await readAll(handle.open({ from: 0, to: 10 }))).equals(content.bytes.subarray(0, 10))).toBe(true);
      const { bytes, error } = await readUntilEnd(handle.open());
      expect([error instanceof TruncatedError, bytes.length < 50_000]).toEqual([true, true]);
      handle.release();
      expect(rig.cache.kept(content.digest)).toBeNull();
      await put(content);
      expect((await readAll(rig.cache.kept(content.digest)!.open())).equals(content.bytes)).toBe(true);
    },
  );

  it.each([
    ['nothing of it was given: it comes whole from the upstream', 4_000, 3_000, true],
    ['the wrong bytes were not given yet: the rest comes from the upstream', 50_000, 49_999, true],
    ['the wrong bytes were given already: the body ends short', 50_000, 1_000, false],
  ])('of wrong bytes, and %s', async (_, size, at, whole) => {
    rig = await makeRig();
    const content = makeContent(size);
    await put(content);
    const rotten = Buffer.from(content.bytes);
    rotten[at] = (rotten[at] ?? 0) ^ 1;
    await writeFile(pathOf(content), rotten);
    rig.index.markChecked(content.digest, 1_000);
    const handle = rig.cache.kept(content.digest)!;
    const continueFrom = async (from: number) => sourceOf(content.bytes.subarray(from));
    const { bytes, error } = await readUntilEnd(handle.open(undefined, { continueFrom }));
    if (whole) expect([error, bytes.equals(content.bytes)]).toEqual([null, true]);
    else expect([error instanceof TruncatedError, bytes.length < size]).toEqual([true, true]);
    handle.release();
    expect(rig.cache.kept(content.digest)).toBeNull();
  });

  it('of right bytes that was not checked for a day is checked once, by one reader', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await put(content);
    rig.index.markChecked(content.digest, 1_000);
    const handle = rig.cache.kept(content.digest)!;
    const [first, second] = [handle.open(), handle.open()] as FileSource[];
    // One that is checked cannot be read from another reader's buffer.
    expect([first?.place?.(), second?.place?.() === null]).toEqual([null, false]);
    await first?.close();
    expect((await readAll(handle.open())).equals(content.bytes)).toBe(true);
    expect(rig.index.blob(content.digest)?.checkedAt).toBeGreaterThan(1_000);
    expect((handle.open() as FileSource).place?.()).not.toBeNull();
    handle.release();
  });

  it('ends the reader short where nothing can go on', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await put(content);
    const handle = rig.cache.kept(content.digest)!;
    const sources = [handle.open(), handle.open(undefined, { continueFrom: () => Promise.reject(new Error('off')) })];
    for (const source of sources) await source.pull(Buffer.alloc(100));
    await truncate(pathOf(content), 20_000);
    for (const source of sources) expect((await readUntilEnd(source)).error).toBeInstanceOf(TruncatedError);
    handle.release();
  });
});

describe('taking up', () => {
  const begin = async (content: Content): Promise<void> => {
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(content.bytes.length);
    await sink.write(0, content.bytes.subarray(0, 30_000));
    await eventually('handle.available > 20_000', () => handle.available > 20_000);
    driven.fail(new Error('over'));
    handle.release();
    await eventually('rig.cache.admin.stats().partials === 1', () => rig.cache.admin.stats().partials === 1);
  };
  const partialOf = ({ key }: Content): string => join(rig.dataDir, 'partial', partialName(key));

  it.each([
    ['cut in two', (path: string) => writeFile(`${path}.held`, '{"registry":"docker.io","size":50000,"extents":[[0,')],
    [
      'out of order',
      (path: string) => writeFile(`${path}.held`, '{"registry":"docker.io","size":50000,"extents":[[500,400]]}'),
    ],
    ['claiming more than the file has', (path: string) => truncate(path, 10)],
    ['of a file that is gone', (path: string) => rm(path)],
    ['gone', (path: string) => rm(`${path}.held`)],
    [
      'of another registry',
      (path: string) => writeFile(`${path}.held`, '{"registry":"quay.io","size":50000,"extents":[[0,30000]]}'),
    ],
  ])('a record %s starts from nothing', async (_, harm) => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await begin(content);
    await harm(partialOf(content));
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    expect((await driven.sink()).held).toEqual([]);
    driven.fail(new Error('over'));
    await handle.size().catch(() => {});
    handle.release();
    await put(content);
  });

  it('goes on after a fill that ended for want of room', async () => {
    rig = await makeRig({ maxSize: 100_000 });
    const content = makeContent(50_000);
    await begin(content);
    const other = new DrivenFetch();
    const promised = rig.cache.fill(makeContent(90_000).key, other.fetch);
    (await other.sink()).begin(90_000);
    const refused = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect((await readUntilEnd(refused.open())).error?.message).toContain('the whole cache is promised');
    refused.release();
    other.fail(new Error('over'));
    promised.release();
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    expect((await driven.sink()).held).toEqual([{ from: 0, to: 30_000 }]);
    driven.fail(new Error('over'));
    handle.release();
  });

  it('of bytes that were changed on disk is found out by the digest, and the next fill starts from nothing', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await begin(content);
    await writeFile(partialOf(content), Buffer.alloc(30_000));
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect((await readUntilEnd(handle.open())).error).toBeInstanceOf(TruncatedError);
    handle.release();
    await put(content);
  });

  it('of a file that is longer than its blob: it is cut to it, and kept', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await begin(content);
    await truncate(partialOf(content), 80_000);
    await put(content);
    const kept = rig.cache.kept(content.digest);
    if (kept === null) throw new Error('it is not kept');
    expect(await readAll(kept.open())).toEqual(content.bytes);
    kept.release();
    expect((await rig.cache.admin.verify(() => {}, new AbortController().signal)).dropped).toEqual([]);
  });

  it('of bytes of a blob of another size starts over, in the same fill', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    await begin(content);
    await writeFile(`${partialOf(content)}.held`, '{"registry":"docker.io","size":60000,"extents":[[0,30000]]}');
    const handle = rig.cache.fill(content.key, fetchOf(content.bytes));
    expect(await handle.size()).toBe(50_000);
    expect(await readAll(handle.open())).toEqual(content.bytes);
    handle.release();
  });

  it('asks the upstream for the tail even of what is held whole: only its answer opens the blob', async () => {
    rig = await makeRig();
    const content = makeContent(50_000);
    const driven = new DrivenFetch();
    const handle = rig.cache.fill(content.key, driven.fetch);
    const sink = await driven.sink();
    sink.begin(50_000);
    await sink.write(0, content.bytes);
    await eventually('handle.available === 50_000 - 1024', () => handle.available === 50_000 - 1024);
    driven.fail(new Error('over'));
    handle.release();
    await eventually('rig.cache.admin.stats().partials === 1', () => rig.cache.admin.stats().partials === 1);
    const second = new DrivenFetch();
    const next = rig.cache.fill(content.key, second.fetch);
    expect((await second.sink()).held).toEqual([{ from: 0, to: 50_000 - 1024 }]);
    expect(next.available).toBe(0);
    second.fail(new RegistryError('upstreamDenied'));
    await expect(next.size()).rejects.toBeInstanceOf(RegistryError);
    next.release();
  });
});

describe('files and rows that do not agree', () => {
  it('are put in order: right files adopted, wrong ones removed, rows without files dropped', async () => {
    rig = await makeRig();
    const [known, forgotten, wrong, gone] = [1, 2, 3, 4].map(() => makeContent(20_000)) as [
      Content,
      Content,
      Content,
      Content,
    ];
    for (const content of [known, forgotten, wrong, gone]) await put(content);
    rig.index.removeBlobs([forgotten.digest, wrong.digest]);
    await chmod(pathOf(wrong), 0o600);
    await writeFile(pathOf(wrong), Buffer.alloc(20_000));
    await rm(pathOf(gone));
    await writeFile(join(rig.dataDir, 'partial', `sha256-${'a'.repeat(64)}-0123456789ab`), 'an end without a record');
    // As earlier versions named them: no registry's.
    await writeFile(join(rig.dataDir, 'partial', `sha256-${'b'.repeat(64)}`), 'some bytes');
    await writeFile(join(rig.dataDir, 'partial', `sha256-${'b'.repeat(64)}.held`), '{"size":90,"extents":[[0,10]]}');
    const notOurs = join(rig.dataDir, 'blobs', 'sha256', known.digest.slice(7, 9), 'README');
    await writeFile(notOurs, 'by hand');
    const done = await rig.cache.admin.verify(() => {}, new AbortController().signal);
    expect(done).toMatchObject({ blobs: 2, adopted: 1, removed: 1 });
    expect(done.dropped.map(({ digest }) => digest)).toEqual([gone.digest]);
    expect(await readAll(rig.cache.kept(forgotten.digest)!.open())).toEqual(forgotten.bytes);
    expect(rig.cache.kept(wrong.digest)).toBeNull();
    expect(rig.cache.kept(gone.digest)).toBeNull();
    expect(await readdir(join(rig.dataDir, 'partial'))).toEqual([]);
    expect((await stat(notOurs)).isFile()).toBe(true);
  });
});

describe('verify', () => {
  it('hashes everything, drops what is damaged, and tells how far it is', async () => {
    rig = await makeRig();
    const contents = Array.from({ length: 5 }, () => makeContent(20_000));
    for (const content of contents) await put(content);
    const bad = contents[2]!;
    const bytes = Buffer.from(bad.bytes);
    bytes[7] = (bytes[7] ?? 0) ^ 255;
    await writeFile(pathOf(bad), bytes);
    const body = Buffer.from('{"schemaVersion":2}');
    rig.cache.manifests.putManifest({ digest: contents[0]!.digest, body });
    // In use: the reader keeps its descriptor, and new clients do not join it.
    const handle = rig.cache.kept(bad.digest)!;
    const steps: number[] = [];
    const done = await rig.cache.admin.verify(
      ({ done: bytesDone }) => steps.push(bytesDone),
      AbortSignal.timeout(5000),
    );
    expect(steps).toEqual([20_000, 40_000, 60_000, 80_000, 100_000]);
    expect(done.dropped).toEqual([
      { digest: bad.digest, reason: 'its bytes are wrong' },
      { digest: contents[0]!.digest, reason: 'the bytes of the manifest are wrong' },
    ]);
    expect(rig.cache.kept(bad.digest)).toBeNull();
    expect(rig.cache.manifests.getManifest(contents[0]!.digest)).toBeNull();
    handle.release();
    await put(bad);
  });
});

describe('prune', () => {
  const signal = AbortSignal.timeout(60_000);

  it('drops all but what is in use', async () => {
    rig = await makeRig();
    const contents = Array.from({ length: 5 }, () => makeContent(20_000));
    for (const content of contents) await put(content);
    rig.cache.manifests.putManifest({ digest: contents[0]!.digest, body: Buffer.from('{}') });
    const handle = rig.cache.kept(contents[0]!.digest)!;
    const done = await rig.cache.admin.prune({ all: true }, () => {}, signal);
    expect(done).toEqual({ blobs: 4, bytes: 80_000, manifests: 1, inUse: 1, pinned: 0 });
    expect(rig.cache.manifests.getManifest(contents[0]!.digest)).toBeNull();
    handle.release();
    expect(rig.cache.admin.stats()).toMatchObject({ blobs: 1, bytes: 20_000, manifests: 0 });
  });

  it('drops what was not used for long', async () => {
    rig = await makeRig();
    const [old, fresh] = [makeContent(1_000), makeContent(1_000)];
    for (const content of [old, fresh]) await put(content);
    rig.index.addBlob({ digest: old.digest, size: 1_000, created: 1, lastUse: Date.now() - 100_000 });
    const done = await rig.cache.admin.prune({ olderThan: 50_000 }, () => {}, signal);
    expect(done).toMatchObject({ blobs: 1, bytes: 1_000 });
    expect(rig.cache.kept(old.digest)).toBeNull();
    expect(rig.index.blob(fresh.digest)).not.toBeNull();
  });

  it('drops what only one registry holds, and leaves shared layers', async () => {
    rig = await makeRig();
    const [own, shared] = [makeContent(1_000), makeContent(1_000)];
    for (const content of [own, shared]) await put(content);
    const app = { registry: 'docker.io', repository: 'library/app' };
    const twin = { ...app, registry: 'ghcr.io' };
    const gave = { said: null, gave: 'anyone', mediaType: null } as const;
    rig.cache.facts.add([own, shared].map(({ digest }) => ({ ...gave, repository: app, digest })));
    rig.cache.facts.add([{ ...gave, repository: twin, digest: shared.digest }]);
    const done = await rig.cache.admin.prune({ registry: 'docker.io' }, () => {}, signal);
    expect(done).toMatchObject({ blobs: 1, bytes: 1_000 });
    expect(rig.cache.facts.of(app, shared.digest)).toBeNull();
    expect(rig.cache.facts.of(twin, shared.digest)).not.toBeNull();
    expect(rig.cache.kept(shared.digest)).not.toBeNull();
  });
});
