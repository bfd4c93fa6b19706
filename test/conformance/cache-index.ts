import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BlobRow, CacheIndex, Fact, KnownFact, NewBlob, PinRow, UsedBlob } from '../../src/cache/index-port.ts';
import { DEFAULT_CREDENTIAL } from '../../src/oci/credentials.ts';
import { type Digest, parseDigest, type RepositoryKey } from '../../src/oci/names.ts';

const DAY = 86_400_000;
const APP = { registry: 'docker.io', repository: 'library/app' };
const TWIN = { registry: 'ghcr.io', repository: 'library/app' };

export function digestOf(seed: number | string, algorithm: 'sha256' | 'sha512' = 'sha256'): Digest {
  return parseDigest(`${algorithm}:${createHash(algorithm).update(String(seed)).digest('hex')}`)!;
}

const blobOf = (seed: number, lastUse: number, size = 100): NewBlob => ({
  digest: digestOf(seed),
  size,
  created: 1,
  lastUse,
});

const factOf = (repository: RepositoryKey, seed: number, known: Partial<KnownFact>): Fact => ({
  repository,
  digest: digestOf(seed),
  said: null,
  gave: null,
  mediaType: null,
  ...known,
});

const rowOf = ({ digest, size, created }: NewBlob): BlobRow => ({ digest, size, created, checkedAt: created });

/** All blobs, the one used longest ago first. */
export function inOrder(index: CacheIndex): UsedBlob[] {
  return [...index.leastRecent(100)].flat();
}

/** What every implementation of `CacheIndex` must do. */
export function cacheIndexConformance(name: string, make: () => CacheIndex): void {
  describe(`${name} as a CacheIndex`, () => {
    let index: CacheIndex;
    beforeEach(() => {
      index = make();
    });
    afterEach(() => index.close());

    it('keeps, replaces and drops blobs, and always knows their totals', () => {
      const long = { ...blobOf(3, 5, 7), digest: digestOf(3, 'sha512') };
      expect(index.blob(digestOf(1))).toBeNull();
      for (const row of [blobOf(1, 10), blobOf(2, 20), long]) index.addBlob(row);
      expect(index.blob(digestOf(1))).toEqual(rowOf(blobOf(1, 10)));
      expect(index.blob(long.digest)).toEqual(rowOf(long));
      expect(index.lastUse(long.digest)).toBe(5);
      expect(index.totals()).toMatchObject({ blobs: 3, bytes: 207 });
      index.addBlob(blobOf(2, 30, 500));
      expect(index.blob(digestOf(2))).toEqual(rowOf(blobOf(2, 30, 500)));
      expect(inOrder(index).map(({ lastUse }) => lastUse)).toEqual([5, 10, 30]);
      expect(index.totals()).toMatchObject({ blobs: 3, bytes: 607 });
      index.removeBlobs([digestOf(2), digestOf(9)]);
      expect(index.blob(digestOf(2))).toBeNull();
      expect(index.lastUse(digestOf(2))).toBeNull();
      expect(index.totals()).toMatchObject({ blobs: 2, bytes: 107 });
    });

    it('removes the rows of removals that were announced and whose file is gone, once', () => {
      for (let seed = 1; seed <= 4; seed++) index.addBlob(blobOf(seed, seed * 10));
      index.announceRemoval([1, 2, 3].map((seed) => digestOf(seed)));
      index.announceRemoval([digestOf(3)]);
      // As a removal ends that nothing comes between; what has that name afterwards is another file.
      index.removeBlobs([digestOf(1)]);
      index.addBlob(blobOf(1, 50));
      const asked: Digest[] = [];
      const isGone = (digest: Digest): boolean => asked.push(digest) > 0 && digest === digestOf(2);
      index.finishRemovals(isGone);
      expect(asked.sort()).toEqual([digestOf(2), digestOf(3)].sort());
      expect([1, 2, 3, 4].map((seed) => index.blob(digestOf(seed)) !== null)).toEqual([true, false, true, true]);
      expect(index.totals().blobs).toBe(3);
      index.finishRemovals(() => true);
      expect(index.totals().blobs).toBe(3);
    });

    it('walks blobs in order of use, page by page', () => {
      for (let seed = 0; seed < 20; seed++) index.addBlob(blobOf(seed, (seed * 7) % 5));
      const seen: UsedBlob[] = [];
      for (const page of index.leastRecent(3)) {
        expect(page.length).toBeLessThanOrEqual(3);
        seen.push(...page);
      }
      expect(new Set(seen.map(({ digest }) => digest)).size).toBe(20);
      expect(seen.map(({ lastUse }) => lastUse)).toEqual([0, 1, 2, 3, 4].flatMap((use) => Array(4).fill(use)));
    });

    it('moves blobs by their uses, forward only', () => {
      for (let seed = 1; seed <= 3; seed++) index.addBlob(blobOf(seed, seed * 10));
      // Nothing used is no use, and hurts no later one.
      for (let i = 0; i < 3; i++) index.touchBlobs(new Map());
      index.touchBlobs(
        new Map([
          [digestOf(1), 40],
          [digestOf(3), 5],
          [digestOf(99), 50],
        ]),
      );
      expect(inOrder(index).map(({ digest }) => digest)).toEqual([2, 3, 1].map((seed) => digestOf(seed)));
      expect(inOrder(index).map(({ lastUse }) => lastUse)).toEqual([20, 30, 40]);
      expect(index.lastUse(digestOf(1))).toBe(40);
      expect(index.totals().blobs).toBe(3);
    });

    it('keeps the order of use through many uses, removals and returns', () => {
      const uses = new Map<number, number>();
      for (let seed = 0; seed < 20; seed++) index.addBlob(blobOf(seed, seed));
      for (let seed = 0; seed < 20; seed++) uses.set(seed, seed);
      const expectOrder = (): void => {
        const order = [...uses].sort((a, b) => a[1] - b[1]);
        expect(inOrder(index).map(({ digest, lastUse }) => [digest, lastUse])).toEqual(
          order.map(([seed, at]) => [digestOf(seed), at]),
        );
      };
      for (let round = 1; round <= 300; round++) {
        const used = [round % 20, (round * 7) % 20, (round * round) % 20];
        const batch = new Map(used.map((seed, turn) => [seed, round * 100 + turn]));
        index.touchBlobs(new Map([...batch].map(([seed, at]) => [digestOf(seed), at])));
        for (const [seed, at] of batch) if (uses.has(seed)) uses.set(seed, at);
        if (round % 10 === 0) {
          const seed = (round / 10) % 20;
          index.removeBlobs([digestOf(seed)]);
          uses.delete(seed);
        }
        if (round % 25 === 0) {
          const seed = (round / 25) % 20;
          // Back from earlier: with a use that is older than what was known of it.
          index.addBlob(blobOf(seed, round));
          uses.set(seed, round);
        }
        if (round % 50 === 0) expectOrder();
      }
      expectOrder();
    });

    it('gives a blob that was removed and came again no use of its earlier life', () => {
      for (let seed = 1; seed <= 3; seed++) index.addBlob(blobOf(seed, seed * 10));
      const [gone, back] = [digestOf(1), digestOf(2)];
      for (const digest of [gone, back]) index.blob(digest);
      index.removeBlobs([gone, back]);
      index.addBlob(blobOf(2, 15));
      index.addBlob(blobOf(4, 25));
      index.touchBlobs(new Map([[gone, 50]]));
      expect(index.blob(gone)).toBeNull();
      expect(index.lastUse(gone)).toBeNull();
      expect(inOrder(index).map(({ digest, lastUse }) => [digest, lastUse])).toEqual(
        [back, digestOf(4), digestOf(3)].map((digest, place) => [digest, [15, 25, 30][place]]),
      );
      index.touchBlobs(new Map([[back, 60]]));
      expect(inOrder(index).map(({ lastUse }) => lastUse)).toEqual([25, 30, 60]);
    });

    it('goes on with a walk in order of use while blobs come, are used and go', () => {
      for (let seed = 1; seed <= 5; seed++) index.addBlob(blobOf(seed, seed * 10));
      const seen: Digest[] = [];
      for (const page of index.leastRecent(2)) {
        seen.push(...page.map(({ digest }) => digest));
        if (seen.length !== 2) continue;
        index.removeBlobs([digestOf(1), digestOf(3)]);
        index.touchBlobs(new Map([[digestOf(4), 60]]));
        index.addBlob(blobOf(6, 55));
      }
      expect(seen).toEqual([1, 2, 5, 6, 4].map((seed) => digestOf(seed)));
    });

    it('can be put in order at any time', () => {
      for (let seed = 1; seed <= 3; seed++) index.addBlob(blobOf(seed, seed * 10));
      index.touchBlobs(new Map([[digestOf(1), 40]]));
      for (const _ of index.tidy()) expect(index.totals().blobs).toBe(3);
      expect(inOrder(index).map(({ lastUse }) => lastUse)).toEqual([20, 30, 40]);
    });

    it('walks all blobs in an order that changes do not disturb', () => {
      for (let seed = 0; seed < 10; seed++) index.addBlob(blobOf(seed, 100 - seed));
      const first = index.blobsAfter(null, 4);
      index.touchBlobs(new Map(first.map(({ digest }) => [digest, 1000])));
      index.removeBlobs([first[3]!.digest]);
      const rest = index.blobsAfter(first[3]!.digest, 100);
      expect(new Set([...first, ...rest].map(({ digest }) => digest)).size).toBe(10);
    });

    it('remembers what each repository said and gave; of two proofs the one without a credential counts', () => {
      const known = (fact: Partial<KnownFact>) => ({ said: null, gave: null, mediaType: null, ...fact });
      expect(index.factOf(APP, digestOf(1))).toBeNull();
      index.addFacts([factOf(APP, 1, { said: DEFAULT_CREDENTIAL })], 0);
      expect(index.factOf(APP, digestOf(1))).toEqual(known({ said: DEFAULT_CREDENTIAL }));
      expect(index.factOf(TWIN, digestOf(1))).toBeNull();
      expect(index.factOf({ ...APP, repository: 'library/other' }, digestOf(1))).toBeNull();
      index.addFacts([factOf(APP, 1, { gave: DEFAULT_CREDENTIAL }), factOf(APP, 1, { said: 'anyone' })], 0);
      expect(index.factOf(APP, digestOf(1))).toEqual(known({ said: 'anyone', gave: DEFAULT_CREDENTIAL }));
      index.addFacts(
        [factOf(APP, 1, { said: DEFAULT_CREDENTIAL, gave: 'anyone' }), factOf(APP, 1, { gave: DEFAULT_CREDENTIAL })],
        0,
      );
      expect(index.factOf(APP, digestOf(1))).toEqual(known({ said: 'anyone', gave: 'anyone' }));
    });

    it('remembers which credentials opened it: of two the newer, with what those said and gave', () => {
      const [A, B] = [77, 2_147_483_646];
      index.addFacts([factOf(APP, 1, { said: A, gave: A }), factOf(APP, 2, { gave: A })], 0);
      index.addFacts([factOf({ ...APP, repository: 'b' }, 1, { gave: B })], 0);
      expect(index.factOf(APP, digestOf(1))).toEqual({ said: A, gave: A, mediaType: null });
      expect(index.giversOf(digestOf(1)).closedTo.toSorted((a, b) => a.credential - b.credential)).toEqual([
        { registry: APP.registry, credential: A },
        { registry: APP.registry, credential: B },
      ]);
      index.addFacts([factOf(APP, 1, { said: B })], 0);
      expect(index.factOf(APP, digestOf(1))).toEqual({ said: B, gave: A, mediaType: null });
      index.addFacts([factOf(APP, 1, { gave: B })], 0);
      expect(index.giversOf(digestOf(1)).closedTo).toEqual([{ registry: APP.registry, credential: B }]);
      expect(index.factOf(APP, digestOf(2))?.gave).toBe(A);
      index.denyRepository(APP);
      index.addFacts([factOf(APP, 1, { said: A })], 0);
      expect(index.factOf(APP, digestOf(1))).toEqual({ said: A, gave: null, mediaType: null });
    });

    it('keeps the media type that each repository states; what is said does not change that of what was given', () => {
      const typeOf = (repository: typeof APP) => index.factOf(repository, digestOf(1))?.mediaType;
      index.addFacts([factOf(APP, 1, { said: 'anyone', mediaType: 'a/said' })], 0);
      index.addFacts([factOf(TWIN, 1, { gave: 'anyone', mediaType: 'text/html' })], 0);
      expect([typeOf(APP), typeOf(TWIN)]).toEqual(['a/said', 'text/html']);
      index.addFacts([factOf(APP, 1, { gave: 'anyone', mediaType: 'a/given' })], 0);
      index.addFacts([factOf(APP, 1, { said: 'anyone', mediaType: 'a/lie' }), factOf(APP, 1, { gave: 'anyone' })], 0);
      expect(typeOf(APP)).toBe('a/given');
      index.addFacts([factOf(APP, 1, { gave: 'anyone', mediaType: 'a/new' })], 0);
      expect([typeOf(APP), typeOf(TWIN)]).toEqual(['a/new', 'text/html']);
    });

    it('tells who gave a digest; nobody by only saying it', () => {
      expect(index.giversOf(digestOf(1))).toEqual({ open: false, closedTo: [] });
      index.addFacts([factOf(APP, 1, { said: 'anyone' }), factOf(TWIN, 1, { gave: DEFAULT_CREDENTIAL })], 0);
      index.addFacts([factOf({ ...TWIN, repository: 'b' }, 1, { gave: DEFAULT_CREDENTIAL })], 0);
      expect(index.giversOf(digestOf(1))).toEqual({
        open: false,
        closedTo: [{ registry: 'ghcr.io', credential: DEFAULT_CREDENTIAL }],
      });
      index.addFacts([factOf(APP, 1, { gave: 'anyone' })], 0);
      expect(index.giversOf(digestOf(1))).toEqual({
        open: true,
        closedTo: [{ registry: 'ghcr.io', credential: DEFAULT_CREDENTIAL }],
      });
      expect(index.giversOf(digestOf(2))).toEqual({ open: false, closedTo: [] });
    });

    it('voids all that a repository said and gave, and nothing else', () => {
      const gave = { gave: 'anyone', mediaType: 'a/old' } as const;
      index.addFacts([factOf(APP, 1, gave), factOf(APP, 2, { said: 'anyone' }), factOf(TWIN, 1, gave)], 0);
      expect(index.denyRepository(APP)).toBe(true);
      expect([index.factOf(APP, digestOf(1)), index.factOf(APP, digestOf(2))]).toEqual([null, null]);
      expect(index.factOf(TWIN, digestOf(1))).not.toBeNull();
      expect(index.giversOf(digestOf(1)).open).toBe(true);
      expect(index.denyRepository(TWIN)).toBe(true);
      expect(index.giversOf(digestOf(1)).open).toBe(false);
      // Nothing of before comes back with what is said after.
      index.addFacts([factOf(APP, 1, { said: DEFAULT_CREDENTIAL })], 0);
      expect(index.factOf(APP, digestOf(1))).toEqual({ said: DEFAULT_CREDENTIAL, gave: null, mediaType: null });
      expect(index.giversOf(digestOf(1)).open).toBe(false);
      expect(index.denyRepository(APP)).toBe(true);
      expect(index.factOf(APP, digestOf(1))).toBeNull();
    });

    it('is not changed by a denial of what it does not know', () => {
      expect(index.denyRepository(APP)).toBe(false);
      expect(index.denyDigest(APP, digestOf(1))).toBe(false);
      index.addFacts([factOf(APP, 1, { gave: 'anyone' })], 0);
      expect(index.denyRepository({ ...APP, repository: 'library/other' })).toBe(false);
      expect([APP, TWIN].map((repository) => index.wasDenied(repository))).toEqual([false, false]);
      expect([index.denyRepository(APP), index.denyRepository(APP)]).toEqual([true, false]);
      // And is remembered with what is said later.
      index.addFacts([factOf(APP, 1, { gave: 'anyone' })], 0);
      expect([APP, TWIN].map((repository) => index.wasDenied(repository))).toEqual([true, false]);
    });

    it('voids one digest of a repository', () => {
      index.addFacts([factOf(APP, 1, { gave: 'anyone' }), factOf(APP, 2, { gave: 'anyone' })], 0);
      expect(index.denyDigest(APP, digestOf(1))).toBe(true);
      expect(index.factOf(APP, digestOf(1))).toBeNull();
      expect(index.giversOf(digestOf(1)).open).toBe(false);
      expect(index.factOf(APP, digestOf(2))).not.toBeNull();
      expect(index.denyDigest(APP, digestOf(1))).toBe(false);
    });

    it('drops old facts of what is not here, a few at a time', () => {
      index.addBlob(blobOf(1, 1));
      index.addManifest({ digest: digestOf(2), body: Buffer.from('{}') }, 1);
      const seeds = [1, 2, 3, 4];
      index.addFacts(
        seeds.map((seed) => factOf(APP, seed, { said: 'anyone' })),
        10 * DAY,
      );
      index.addFacts([factOf(APP, 4, { said: 'anyone' })], 20 * DAY);
      for (let round = 0; index.dropStaleFacts(15 * DAY, 1); round++) expect(round).toBeLessThan(10);
      expect(seeds.map((seed) => index.factOf(APP, digestOf(seed)) !== null)).toEqual([true, true, false, true]);
      expect(index.totals().facts).toBe(3);
    });

    it('forgets repositories of which nothing is known, and knows them again', () => {
      index.addFacts([factOf(APP, 1, { said: 'anyone' }), factOf(TWIN, 1, { said: 'anyone' })], 0);
      index.denyDigest(APP, digestOf(1));
      for (let round = 0; index.dropEmptyRepositories(1); round++) expect(round).toBeLessThan(10);
      expect(index.factOf(TWIN, digestOf(1))).not.toBeNull();
      index.addFacts([factOf(APP, 1, { said: 'anyone' })], 0);
      expect(index.factOf(APP, digestOf(1))).not.toBeNull();
      expect(index.denyRepository(APP)).toBe(true);
    });

    it('keeps the exact bytes of manifests', () => {
      const body = Buffer.from([0, 255, 10, 13, 123]);
      const row = { digest: digestOf('m'), body };
      expect(index.manifest(row.digest)).toBeNull();
      index.addManifest(row, 5);
      const found = index.manifest(row.digest);
      expect(Buffer.from(found!.body).equals(body)).toBe(true);
      expect(index.totals()).toMatchObject({ manifests: 1, manifestBytes: 5 });
      index.addManifest({ ...row, body: Buffer.alloc(9) }, 6);
      expect(index.totals()).toMatchObject({ manifests: 1, manifestBytes: 9 });
      expect(index.manifestsAfter(null, 10).map(({ digest }) => digest)).toEqual([row.digest]);
      expect(index.manifestsAfter(row.digest, 10)).toEqual([]);
      index.removeManifests([row.digest]);
      expect(index.manifest(row.digest)).toBeNull();
      expect(index.totals()).toMatchObject({ manifests: 0, manifestBytes: 0 });
    });

    it('drops the manifests used longest ago until few enough bytes are left', () => {
      for (let seed = 0; seed < 6; seed++) {
        index.addManifest({ digest: digestOf(seed), body: Buffer.alloc(10) }, seed);
      }
      index.touchManifests(new Map([[digestOf(0), 100]]));
      expect(index.shrinkManifests(60, 10)).toEqual([]);
      expect(index.shrinkManifests(30, 2)).toEqual([digestOf(1), digestOf(2)]);
      expect(index.shrinkManifests(30, 2)).toEqual([digestOf(3)]);
      expect(index.manifest(digestOf(0))).not.toBeNull();
      expect(index.totals()).toMatchObject({ manifests: 3, manifestBytes: 30 });
    });

    it('drops the manifests that nobody used since', () => {
      for (let seed = 0; seed < 5; seed++) {
        index.addManifest({ digest: digestOf(seed), body: Buffer.alloc(10) }, seed);
      }
      expect(index.dropManifestsBefore(3, 2)).toHaveLength(2);
      expect(index.dropManifestsBefore(3, 2)).toEqual([digestOf(2)]);
      expect(index.dropManifestsBefore(3, 2)).toEqual([]);
      expect(index.totals()).toMatchObject({ manifests: 2, manifestBytes: 20 });
    });

    it('spares manifests that may not go, and does not come by them again first', () => {
      for (let seed = 0; seed < 6; seed++) {
        index.addManifest({ digest: digestOf(seed), body: Buffer.alloc(10) }, seed);
      }
      const spared = new Set([digestOf(0), digestOf(1)]);
      const spare = (digest: Digest) => spared.has(digest);
      const gone = [1, 2, 3].flatMap(() => index.shrinkManifests(40, 3, spare));
      expect(gone).toEqual([digestOf(2), digestOf(3)]);
      expect(index.dropManifestsBefore(Number.MAX_SAFE_INTEGER, 10, spare).sort()).toEqual(
        [digestOf(4), digestOf(5)].sort(),
      );
      expect(index.dropManifestsBefore(Number.MAX_SAFE_INTEGER, 10, spare)).toEqual([]);
      expect(index.shrinkManifests(0, 10, spare)).toEqual([]);
      expect(index.totals()).toMatchObject({ manifests: 2 });
    });

    it('keeps what was pinned, whole', () => {
      const pin: PinRow = {
        ...APP,
        id: 'docker.io/library/app:1',
        tag: '1',
        variant: 'oci',
        root: digestOf(1),
        checkedAt: 5,
        manifests: [digestOf(1), digestOf(2)],
        blobs: [{ digest: digestOf(3, 'sha512'), size: 7 }],
      };
      const other: PinRow = { ...pin, ...TWIN, id: 'another', tag: null, manifests: [digestOf(1)], blobs: [] };
      index.pins.put(pin);
      index.pins.put(other);
      expect(index.pins.all()).toEqual([other, pin]);
      index.pins.put({ ...pin, root: digestOf(2), checkedAt: 6 });
      expect(index.pins.all()[1]).toMatchObject({ root: digestOf(2), checkedAt: 6 });
      index.pins.remove('another');
      index.pins.remove('nobody');
      expect(index.pins.all()).toHaveLength(1);
    });

    it('forgets a registry', () => {
      for (const repository of [APP, TWIN]) {
        index.addFacts([factOf(repository, 1, { gave: 'anyone' })], 0);
        index.putTag(repository, '1', 'oci', { digest: digestOf(1), checkedAt: 10 });
      }
      for (let round = 0; index.forgetRegistry('docker.io', 1); round++) expect(round).toBeLessThan(5);
      expect(index.factOf(APP, digestOf(1))).toBeNull();
      expect(index.tag(APP, '1', 'oci')).toBeNull();
      expect(index.factOf(TWIN, digestOf(1))).not.toBeNull();
      expect(index.tag(TWIN, '1', 'oci')).not.toBeNull();
    });

    it('keeps what a tag stood for, by registry, repository and variant', () => {
      index.putTag(APP, '1', 'oci', { digest: digestOf(1), checkedAt: 10 });
      index.putTag(TWIN, '1', 'oci', { digest: digestOf(2), checkedAt: 20 });
      index.putTag(APP, '1', 'docker', { digest: digestOf(3), checkedAt: 30 });
      expect(index.tag(APP, '1', 'oci')).toEqual({ digest: digestOf(1), checkedAt: 10 });
      expect(index.tag(TWIN, '1', 'oci')?.digest).toBe(digestOf(2));
      expect(index.tag(APP, '2', 'oci')).toBeNull();
      index.putTag(APP, '1', 'oci', { digest: digestOf(4), checkedAt: 40 });
      expect(index.tag(APP, '1', 'oci')).toEqual({ digest: digestOf(4), checkedAt: 40 });
      index.dropTag(APP, '1', 'docker');
      index.dropTag({ ...APP, repository: 'none' }, '1', 'docker');
      expect(index.tag(APP, '1', 'docker')).toBeNull();
      expect(index.dropStaleTags(30, 5)).toBe(false);
      expect(index.tag(TWIN, '1', 'oci')).toBeNull();
      expect(index.tag(APP, '1', 'oci')?.checkedAt).toBe(40);
    });

    it('walks over all tags, and over the rows of one', () => {
      const names = [
        ['quay.io', 'b/c', '1', 'oci'],
        ['docker.io', 'library/app', '2', 'oci/3'],
        ['docker.io', 'library/app', '1', 'oci'],
        ['docker.io', 'library/app', '1', 'docker'],
        ['docker.io', 'library/zoo', '1', '*'],
      ] as const;
      for (const [at, [registry, repository, tag, variant]] of names.entries())
        index.putTag({ registry, repository }, tag, variant, { digest: digestOf(at), checkedAt: at });
      // Known without a tag.
      index.addFacts([factOf({ registry: 'docker.io', repository: 'library/none' }, 1, { gave: 'anyone' })], 0);
      const all = index.tagsAfter(null, 10);
      expect(all.map(({ registry, repository, tag, variant }) => [registry, repository, tag, variant])).toEqual(
        [3, 2, 1, 4, 0].map((at) => names[at]),
      );
      expect(all.map(({ checkedAt }) => checkedAt)).toEqual([3, 2, 1, 4, 0]);
      expect(all[0]?.digest).toBe(digestOf(3));
      for (const [at, place] of all.entries()) expect(index.tagsAfter(place, 2)).toEqual(all.slice(at + 1, at + 3));
      const place = { registry: 'docker.io', repository: 'library/app', tag: '1', variant: '' };
      expect(index.tagsAfter(place, 2)).toEqual(all.slice(0, 2));
      expect(index.tagsAfter({ ...place, repository: 'library/nowhere' }, 1)).toEqual(all.slice(3, 4));
    });

    it('drops the tags asked for longest ago where there are too many', () => {
      for (let seed = 0; seed < 6; seed++) {
        index.putTag(APP, `${seed}`, 'oci', { digest: digestOf(1), checkedAt: (seed * 7) % 6 });
      }
      expect(index.totals().tags).toBe(6);
      index.shrinkTags(10, 10);
      index.shrinkTags(3, 2);
      expect(index.totals().tags).toBe(4);
      index.shrinkTags(3, 2);
      const left = [0, 1, 2, 3, 4, 5].filter((seed) => index.tag(APP, `${seed}`, 'oci') !== null);
      expect(left.map((seed) => (seed * 7) % 6).sort()).toEqual([3, 4, 5]);
    });

    const listOf = (text: string, checkedAt: number) => ({
      body: Buffer.from(text),
      mark: 'marked',
      next: 'list?last=b',
      cutAfter: null,
      shown: 'anyone' as const,
      checkedAt,
    });
    const room = { all: 100_000, registry: 100_000, client: 100_000 };
    const owners = { registry: 'docker.io', client: 'a' };
    const kept = (repository: RepositoryKey, question: string) => {
      const list = index.lists.get(repository, question);
      return list && { ...list, body: Buffer.from(list.body) };
    };

    it('keeps the last list that a repository gave to a question', () => {
      expect([index.lists.state(APP, 'tags'), kept(APP, 'tags'), index.lists.bytes()]).toEqual([null, null, 0]);
      const whole = { ...listOf('["a"]', 10), next: null, cutAfter: 'a', shown: DEFAULT_CREDENTIAL };
      index.lists.put(APP, 'tags', whole, owners, room);
      index.lists.put(TWIN, 'tags', listOf('["b"]', 20), owners, room);
      expect(kept(APP, 'tags')).toEqual(whole);
      expect(index.lists.state(APP, 'tags')).toEqual({ shown: DEFAULT_CREDENTIAL, checkedAt: 10 });
      expect(kept(TWIN, 'tags')).toEqual(listOf('["b"]', 20));
      expect(kept(APP, 'referrers')).toBeNull();
      const bytes = index.lists.bytes();
      // The same once more, by now to anyone; then another.
      index.lists.put(APP, 'tags', { ...whole, checkedAt: 30, shown: 'anyone' }, owners, room);
      expect(kept(APP, 'tags')).toEqual({ ...whole, checkedAt: 30, shown: 'anyone' });
      // The same to another account.
      index.lists.put(APP, 'tags', { ...whole, checkedAt: 40, shown: 77 }, owners, room);
      expect([index.lists.state(APP, 'tags'), kept(APP, 'tags')?.shown]).toEqual([{ shown: 77, checkedAt: 40 }, 77]);
      index.lists.put(APP, 'tags', { ...whole, body: Buffer.from('["a","b"]'), cutAfter: null }, owners, room);
      expect(kept(APP, 'tags')).toMatchObject({
        body: Buffer.from('["a","b"]'),
        cutAfter: null,
        shown: DEFAULT_CREDENTIAL,
      });
      expect(index.lists.bytes()).toBe(bytes + 4);
      index.lists.drop(APP, 'tags');
      index.lists.drop({ ...APP, repository: 'none' }, 'tags');
      expect([kept(APP, 'tags'), kept(TWIN, 'tags')?.checkedAt]).toEqual([null, 20]);
      index.lists.put(TWIN, 'referrers', listOf('{}', 5), owners, room);
      index.lists.dropAll(TWIN);
      expect(index.lists.bytes()).toBe(0);
    });

    it('a denial of a repository voids its lists, and so does a registry that is forgotten', () => {
      for (const repository of [APP, TWIN]) index.lists.put(repository, 'tags', listOf('[]', 1), owners, room);
      expect([index.denyRepository(APP), index.denyRepository(APP)]).toEqual([true, false]);
      expect([kept(APP, 'tags'), index.lists.state(APP, 'tags')]).toEqual([null, null]);
      index.lists.put(APP, 'tags', listOf('[]', 2), owners, room);
      expect(kept(APP, 'tags')?.checkedAt).toBe(2);
      expect(index.denyRepository(APP)).toBe(true);
      for (let round = 0; index.forgetRegistry('ghcr.io', 1); round++) expect(round).toBeLessThan(5);
      expect([kept(APP, 'tags'), kept(TWIN, 'tags')]).toEqual([null, null]);
      // What is void takes room until it is too old.
      for (let round = 0; index.lists.dropBefore(3, 1); round++) expect(round).toBeLessThan(5);
      expect(index.lists.bytes()).toBe(0);
      for (let round = 0; index.dropEmptyRepositories(1); round++) expect(round).toBeLessThan(10);
      index.lists.put(APP, 'tags', listOf('[]', 4), owners, room);
      for (let round = 0; index.dropEmptyRepositories(1); round++) expect(round).toBeLessThan(10);
      expect(kept(APP, 'tags')?.checkedAt).toBe(4);
    });

    it('lists leave room for those of other registries and clients: the one confirmed longest ago makes room', () => {
      const size = (count: number) => count * (512 + 2 + 'list?last=b'.length);
      const limits = { all: size(6), registry: size(4), client: size(2) };
      const put = (question: string, checkedAt: number, registry: string, client: string) =>
        index.lists.put(APP, question, listOf('[]', checkedAt), { registry, client }, limits);
      const left = () =>
        'abcdefghij'
          .split('')
          .filter((question) => kept(APP, question) !== null)
          .join('');
      put('a', 1, 'r', 'x');
      put('b', 2, 'r', 'x');
      put('c', 3, 'r', 'y');
      // Confirmed for another client, it stays in the first one's share.
      put('a', 4, 'r', 'y');
      put('d', 5, 'r', 'x');
      expect(left()).toBe('acd');
      put('e', 6, 'r', 'y');
      put('f', 7, 'r', 'z');
      expect(left()).toBe('adef');
      put('g', 8, 's', 'z');
      put('h', 9, 's', 'u');
      put('i', 10, 's', 'u');
      expect(left()).toBe('defghi');
      expect(index.lists.bytes()).toBe(size(6));
      // What alone is more than a client may have is not kept at all.
      index.lists.put(APP, 'j', { ...listOf('[]', 11), body: Buffer.alloc(size(2)) }, owners, limits);
      expect(left()).toBe('defghi');
    });

    it('tells what only one registry gave', () => {
      for (let seed = 1; seed <= 4; seed++) index.addBlob(blobOf(seed, seed));
      const gave = (repository: typeof APP, seed: number) => factOf(repository, seed, { gave: 'anyone' });
      index.addFacts([gave(APP, 1), gave(APP, 2), gave(TWIN, 2), gave(TWIN, 3), gave(APP, 9)], 0);
      index.addFacts([factOf(TWIN, 1, { said: 'anyone' })], 0);
      expect(index.onlyOf('docker.io', null, 10)).toEqual([digestOf(1)]);
      expect(index.onlyOf('ghcr.io', null, 10)).toEqual([digestOf(3)]);
      expect(index.onlyOf('ghcr.io', digestOf(3), 10)).toEqual([]);
    });

    it('counts', () => {
      expect(index.counters()).toEqual({ hits: 0, misses: 0, fetched: 0, served: 0, evictions: 0 });
      index.count({ hits: 2, fetched: 5_000_000_000 });
      index.count({ hits: 1 });
      expect(index.counters()).toMatchObject({ hits: 3, fetched: 5_000_000_000 });
    });
  });
}
