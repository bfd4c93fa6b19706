import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type BlobTier, MissingObject } from '../../src/cache/blob-tier.ts';
import { type ByteSource, TruncatedError } from '../../src/kit/byte-source.ts';
import { sourceOf } from '../support/byte-source.ts';
import { contentOf, readAll } from '../support/cache-rig.ts';

const { signal } = new AbortController();
const some = (size: number) => {
  const bytes = randomBytes(size);
  return { bytes, digest: contentOf(bytes).digest };
};

/** A source that breaks off behind so many of its bytes. */
function broken(bytes: Buffer, after: number): ByteSource {
  const inner = sourceOf(bytes.subarray(0, after));
  return {
    length: bytes.length,
    pull: async (into) => {
      const count = await inner.pull(into);
      if (count === 0) throw new TruncatedError('it was not what it should be');
      return count;
    },
    close: () => inner.close(),
  };
}

/** What every `BlobTier` keeps to. */
export function blobTierConformance(name: string, open: () => Promise<BlobTier>): void {
  describe(`${name} is a BlobTier`, () => {
    test.each([1, 70_000, 8 * 1024 * 1024, 20 * 1024 * 1024 + 3])(
      'gives back %i bytes, and parts of them',
      async (size) => {
        const tier = await open();
        const { bytes, digest } = some(size);
        expect(await tier.stat(digest, signal)).toBeNull();
        await tier.store(digest, sourceOf(bytes), signal);
        expect(await tier.stat(digest, signal)).toEqual({ size });
        const ranges = [
          { from: 0, to: size },
          { from: size - 1, to: size },
        ];
        if (size > 1_000) ranges.push({ from: 10, to: 1_000 });
        for (const range of ranges) {
          const source = await tier.open(digest, range, signal);
          expect(source.length).toBe(range.to - range.from);
          const read = await readAll(source);
          await source.close();
          expect(read.equals(bytes.subarray(range.from, range.to))).toBe(true);
        }
      },
    );

    test('misses what it never had and what was removed, and removes what is not there', async () => {
      const tier = await open();
      const [one, other] = [some(1_000), some(1_000)];
      await tier.store(one.digest, sourceOf(one.bytes), signal);
      await tier.remove([one.digest, other.digest], signal);
      await tier.remove([], signal);
      for (const { digest } of [one, other]) {
        expect(await tier.stat(digest, signal)).toBeNull();
        await expect(tier.open(digest, { from: 0, to: 10 }, signal)).rejects.toThrow(MissingObject);
      }
    });

    test.each([1_000, 20 * 1024 * 1024])('shows nothing of %i bytes whose source broke off', async (size) => {
      const tier = await open();
      const { bytes, digest } = some(size);
      await expect(tier.store(digest, broken(bytes, size - 10), signal)).rejects.toThrow(TruncatedError);
      expect(await tier.stat(digest, signal)).toBeNull();
      expect(await tier.clearLeftovers(Number.MAX_SAFE_INTEGER, signal)).toBe(0);
      await tier.store(digest, sourceOf(bytes), signal);
      expect(await tier.stat(digest, signal)).toEqual({ size });
    });

    test('shows nothing of what was given up in the middle', async () => {
      const tier = await open();
      const { bytes, digest } = some(20 * 1024 * 1024);
      const ending = new AbortController();
      const inner = sourceOf(bytes);
      let pulled = 0;
      const source: ByteSource = {
        length: bytes.length,
        pull: async (into) => {
          const count = await inner.pull(into);
          pulled += count;
          if (pulled > 12 * 1024 * 1024) ending.abort(new Error('the cache is closing'));
          return count;
        },
        close: () => inner.close(),
      };
      await expect(tier.store(digest, source, ending.signal)).rejects.toThrow();
      expect(await tier.stat(digest, signal)).toBeNull();
    });

    test('replaces what it has', async () => {
      const tier = await open();
      const { bytes, digest } = some(5_000);
      await tier.store(digest, sourceOf(randomBytes(5_000)), signal);
      await tier.store(digest, sourceOf(bytes), signal);
      expect((await readAll(await tier.open(digest, { from: 0, to: 5_000 }, signal))).equals(bytes)).toBe(true);
    });

    test('lists what it has in the order of digests, in pages', async () => {
      const tier = await open();
      const all = Array.from({ length: 5 }, (_, at) => some(100 + at));
      for (const { bytes, digest } of all) await tier.store(digest, sourceOf(bytes), signal);
      const seen: { digest: string; size: number }[] = [];
      let page = await tier.list(null, 2, signal);
      for (;;) {
        seen.push(...page.objects.map(({ digest, size }) => ({ digest, size })));
        expect(page.objects.every(({ modified }) => Math.abs(Date.now() - modified) < 3_600_000)).toBe(true);
        if (page.last) break;
        page = await tier.list((seen.at(-1)?.digest ?? null) as (typeof all)[0]['digest'] | null, 2, signal);
      }
      const expected = all.map(({ bytes, digest }) => ({ digest, size: bytes.length }));
      expect(seen).toEqual(expected.toSorted((a, b) => (a.digest < b.digest ? -1 : 1)));
    });
  });
}
