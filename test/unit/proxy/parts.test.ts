import { describe, expect, it } from 'vitest';
import type { Digest } from '../../../src/oci/digest.ts';
import { RegistryError } from '../../../src/oci/errors.ts';
import { DOCKER_MANIFEST, OCI_INDEX, parseAccept, variantOf } from '../../../src/oci/media-types.ts';
import { parseRange } from '../../../src/oci/range.ts';
import { matchesNone, rangeStands } from '../../../src/proxy/headers.ts';
import { HOT_FOR, HotAnswers, makeAnswer } from '../../../src/proxy/hot.ts';
import { Lru } from '../../../src/proxy/lru.ts';
import { MISS_TTL, Misses } from '../../../src/proxy/misses.ts';
import { namedBlobs } from '../../../src/proxy/named.ts';
import { Patience, REST } from '../../../src/proxy/patience.ts';
import { ColdRanges, exceeds, LARGE_PART, PARTS_BYTES, SMALL_BLOB } from '../../../src/proxy/ranges.ts';
import { fallbackTag } from '../../../src/proxy/referrers.ts';

const digest = (digit: string) => `sha256:${digit.repeat(64)}` as Digest;
const key = { registry: 'docker.io', repository: 'library/app' };

describe('the bounded map', () => {
  it('lets the oldest go, by weight', () => {
    const lru = new Lru<number>(10, (value) => value);
    lru.set('a', 4);
    lru.set('b', 4);
    lru.touch('a');
    lru.set('c', 4);
    expect([lru.get('a'), lru.get('b'), lru.get('c'), lru.weight]).toEqual([4, undefined, 4, 8]);
    lru.set('a', 1);
    expect([lru.size, lru.weight]).toEqual([2, 5]);
    lru.set('huge', 11);
    expect([lru.get('huge'), lru.weight]).toEqual([undefined, 5]);
    lru.delete('a');
    lru.clear();
    expect([lru.size, lru.weight]).toEqual([0, 0]);
  });
});

describe('the blobs that a manifest names', () => {
  const names = (manifest: unknown) =>
    namedBlobs(Buffer.from(JSON.stringify(manifest))).map(({ digest: text }) => text);
  it('are config, layers, and schema 1’s fsLayers', () => {
    const config = { digest: digest('a'), size: 1 };
    const layers = [{ digest: digest('b'), size: 2 }, { digest: digest('c') }];
    expect(namedBlobs(Buffer.from(JSON.stringify({ config, layers })))).toEqual([
      { digest: digest('a'), size: 1 },
      { digest: digest('b'), size: 2 },
      { digest: digest('c'), size: undefined },
    ]);
    expect(names({ fsLayers: [{ blobSum: digest('d') }] })).toEqual([digest('d')]);
  });
  it('are none of those that registries take on trust', () => {
    expect(
      names({ layers: [{ digest: digest('a'), urls: ['https://x'] }], manifests: [{ digest: digest('b') }] }),
    ).toEqual([]);
  });
  it.each(['', 'x', 'null', '7', '[]', '{"layers":{}}', '{"config":null,"layers":[null,1,"x",{}]}'])(
    'are none in %j',
    (text) => expect(namedBlobs(Buffer.from(text))).toEqual([]),
  );
  it('have a size only where it is one', () => {
    for (const size of [-1, 1.5, '7', 2 ** 60]) {
      expect(
        namedBlobs(Buffer.from(JSON.stringify({ config: { digest: digest('a'), size } })))[0]?.size,
      ).toBeUndefined();
    }
  });
});

describe('conditions', () => {
  it('If-None-Match compares weakly, in lists', () => {
    for (const header of ['*', `"${digest('a')}"`, `W/"${digest('a')}"`, `"x", "${digest('a')}"`]) {
      expect(matchesNone(header, digest('a'))).toBe(true);
    }
    for (const header of [undefined, '', digest('a'), `"${digest('b')}"`]) {
      expect(matchesNone(header, digest('a'))).toBe(false);
    }
  });
  it('If-Range compares strongly', () => {
    expect(rangeStands(undefined, digest('a'))).toBe(true);
    expect(rangeStands(`"${digest('a')}"`, digest('a'))).toBe(true);
    expect(rangeStands(`W/"${digest('a')}"`, digest('a'))).toBe(false);
    expect(rangeStands('Wed, 21 Oct 2026 07:28:00 GMT', digest('a'))).toBe(false);
  });
});

describe('ranges of a cold blob start a fill', () => {
  const starts = (header: string, size?: number, cold = new ColdRanges()) =>
    cold.startsFill(key, digest('a'), parseRange(header) ?? [], size);
  it('when they are open, large, several, or of a small blob', () => {
    expect(starts('bytes=5-')).toBe(true);
    expect(starts(`bytes=0-${LARGE_PART}`)).toBe(true);
    expect(starts('bytes=0-1,5-6')).toBe(true);
    expect(starts('bytes=0-1', SMALL_BLOB)).toBe(true);
    expect(starts('bytes=0-1', SMALL_BLOB + 1)).toBe(false);
    expect(starts('bytes=-100')).toBe(false);
  });
  it('when small ones add up, to half of it or in bytes', () => {
    const cold = new ColdRanges();
    const size = 10 * 1024 * 1024;
    const tenth = `bytes=0-${size / 10 - 1}`;
    expect(Array.from({ length: 6 }, () => starts(tenth, size, cold))).toEqual([
      false,
      false,
      false,
      false,
      false,
      true,
    ]);
    const other = new ColdRanges();
    const count = PARTS_BYTES / LARGE_PART;
    const range = `bytes=0-${LARGE_PART - 1}`;
    const answers = Array.from({ length: count + 1 }, () => starts(range, undefined, other));
    expect(answers).toEqual([...Array(count).fill(false), true]);
  });
  it('and more bytes than the whole are better answered with the whole', () => {
    expect(
      exceeds(
        [
          { from: 0, to: 6 },
          { from: 5, to: 10 },
        ],
        10,
      ),
    ).toBe(true);
    expect(
      exceeds(
        [
          { from: 0, to: 5 },
          { from: 5, to: 10 },
        ],
        10,
      ),
    ).toBe(false);
  });
});

describe('ready answers', () => {
  const everything = parseAccept(undefined);
  const old = parseAccept(DOCKER_MANIFEST);
  const answer = (mediaType: string, asked = everything, checkedAt = 1000) =>
    makeAnswer({
      digest: digest('a'),
      mediaType,
      variant: variantOf(asked, mediaType),
      body: Buffer.from('{}'),
      size: 2,
      private: false,
      checkedAt,
      loadedAt: 1000,
    });
  it('go to who may have them, the newest first, for a while', () => {
    const hot = new HotAnswers();
    hot.put('k', answer(OCI_INDEX));
    hot.put('k', answer(DOCKER_MANIFEST, old, 2000));
    expect(hot.find('k', everything, 1001)?.mediaType).toBe(OCI_INDEX);
    expect(hot.find('k', old, 1001)?.mediaType).toBe(DOCKER_MANIFEST);
    hot.put('k', answer(DOCKER_MANIFEST, everything, 3000));
    expect(hot.find('k', everything, 1001)?.mediaType).toBe(DOCKER_MANIFEST);
    expect(hot.find('k', everything, 1000 + HOT_FOR)).toBeNull();
    expect(hot.find('other', everything, 1001)).toBeNull();
    hot.drop('k');
    expect(hot.ofDigest('k', 1001)).toBeNull();
  });
  it('are the same reply each time: the hot path makes nothing', () => {
    const hot = new HotAnswers();
    hot.put('k', answer(OCI_INDEX));
    expect(hot.find('k', everything, 1001)?.get).toBe(hot.find('k', everything, 1002)?.get);
    expect(hot.accept('a/b, c/d')).toBe(hot.accept('a/b, c/d'));
  });
  it('are bounded by weight', () => {
    const hot = new HotAnswers();
    const body = Buffer.alloc(4 * 1024 * 1024);
    for (let at = 0; at < 8; at++) hot.put(`k${at}`, { ...answer(OCI_INDEX), body });
    expect(hot.find('k0', everything, 1001)).toBeNull();
    expect(hot.find('k7', everything, 1001)).not.toBeNull();
  });
});

describe('what failed a moment ago', () => {
  it('a 404 is remembered for seconds, nothing else is', () => {
    let now = 0;
    const misses = new Misses(() => now);
    misses.note('a', new RegistryError('manifestUnknown'));
    misses.note('b', new RegistryError('upstreamDenied'));
    misses.note('c', new RegistryError('upstreamRateLimited'));
    expect(() => misses.check('a')).toThrow(RegistryError);
    for (const other of ['b', 'c', 'd']) misses.check(other);
    now = MISS_TTL;
    misses.check('a');
  });
  it('an upstream that fails is left alone for a while, longer if it says so, within a bound', () => {
    let now = 0;
    const patience = new Patience(() => now);
    patience.note('a', new RegistryError('upstreamFailed'));
    patience.note('b', new RegistryError('upstreamRateLimited', { retryAfter: 60 }));
    patience.note('c', new RegistryError('upstreamRateLimited', { retryAfter: 86_400 }));
    patience.note('d', new RegistryError('manifestUnknown'));
    expect(['a', 'b', 'c', 'd'].map((id) => patience.isSpent(id))).toEqual([true, true, true, false]);
    now = REST;
    expect(['a', 'b', 'c'].map((id) => patience.isSpent(id))).toEqual([false, true, true]);
    now = 5 * 60_000;
    expect(['b', 'c'].map((id) => patience.isSpent(id))).toEqual([false, false]);
  });
});

it('a slow upstream is waited for once, until it answers', async () => {
  let now = 0;
  const patience = new Patience(() => now, 5);
  const slow = Promise.withResolvers<string>();
  expect(await patience.within('a', slow.promise)).toBeNull();
  expect(patience.isSpent('a')).toBe(true);
  patience.restore('a');
  expect(patience.isSpent('a')).toBe(false);
  slow.resolve('late');
  expect(await patience.within('a', slow.promise)).toBe('late');
  await expect(patience.within('a', Promise.reject(new Error('no')))).rejects.toThrow('no');
  now = REST;
  expect(patience.isSpent('a')).toBe(false);
});

it('the fallback tag is cut as the specification says', () => {
  expect(fallbackTag(digest('a'))).toBe(`sha256-${'a'.repeat(64)}`);
  expect(fallbackTag(`sha512:${'b'.repeat(128)}` as Digest)).toBe(`sha512-${'b'.repeat(64)}`);
});
