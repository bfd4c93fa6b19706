import { describe, expect, test } from 'vitest';
import { type Giver, MAX_GIVERS, type ObjectIndex } from '../../src/cache/object-index.ts';
import { FencedError, type Locks } from '../../src/kit/locks.ts';
import { DEFAULT_CREDENTIAL } from '../../src/oci/credentials.ts';
import { contentOf } from '../support/cache-rig.ts';

/** A store of the index; its clock is the test's where `advance` can move it. */
export interface ObjectIndexHarness {
  readonly index: ObjectIndex;
  /** Whose fences the index knows. */
  readonly locks: Locks;
  /** Another holder of the same rows. */
  another(): ObjectIndex | Promise<ObjectIndex>;
  /** Lets so many ms pass. */
  pass(ms: number): Promise<void>;
}

const object = (name: string, size = 10) => ({
  digest: contentOf(Buffer.from(name)).digest,
  kind: 'blob' as const,
  size,
});
const giver = (registry: string, repository: string, open = true, credential = DEFAULT_CREDENTIAL): Giver => ({
  repository: { registry, repository },
  shown: open ? 'anyone' : credential,
});

/** What every `ObjectIndex` keeps to. */
export function objectIndexConformance(name: string, open: () => Promise<ObjectIndexHarness>): void {
  describe(`${name} is an ObjectIndex`, () => {
    test('finds what was put, with those who gave it; of two proofs of one repository the open one counts', async () => {
      const { index, another } = await open();
      const one = object('one');
      expect(await index.find(one.digest)).toBeNull();
      await index.put(one, [giver('docker.io', 'library/app', false)]);
      await (await another()).put(one, [giver('docker.io', 'library/app'), giver('quay.io', 'org/app', false)]);
      await index.put(one, [giver('docker.io', 'library/app', false)]);
      const found = await (await another()).find(one.digest);
      expect(found?.object).toMatchObject({ ...one, condemnedAt: null });
      expect(found?.givers.toSorted((a, b) => (a.repository.registry < b.repository.registry ? -1 : 1))).toEqual([
        giver('docker.io', 'library/app'),
        giver('quay.io', 'org/app', false),
      ]);
      expect(await index.bytes()).toBe(10);
    });

    test('remembers which credentials opened it for a repository, of two the newer', async () => {
      const { index, another } = await open();
      const one = object('one');
      await index.put(one, [giver('docker.io', 'a/app', false, 77), giver('docker.io', 'b/app', false, 2_147_483_646)]);
      await (await another()).put(one, [giver('docker.io', 'a/app', false, 78)]);
      const found = await index.find(one.digest);
      expect(found?.givers.toSorted((a, b) => (a.repository.repository < b.repository.repository ? -1 : 1))).toEqual([
        giver('docker.io', 'a/app', false, 78),
        giver('docker.io', 'b/app', false, 2_147_483_646),
      ]);
    });

    test('keeps the digests of both algorithms and both kinds apart', async () => {
      const { index } = await open();
      const long = { digest: contentOf(Buffer.from('one'), 'sha512').digest, kind: 'manifest' as const, size: 3 };
      await index.put(long, [giver('docker.io', 'library/app')]);
      expect((await index.find(long.digest))?.object).toMatchObject(long);
      expect(await index.find(object('one').digest)).toBeNull();
    });

    test('a denial takes the proof away, of one digest or of all, and of no other repository', async () => {
      const { index } = await open();
      const [one, two] = [object('one'), object('two')];
      const [denied, other] = [giver('docker.io', 'library/app'), giver('docker.io', 'library/app2')];
      for (const each of [one, two]) await index.put(each, [denied, other]);
      await index.deny(denied.repository, one.digest);
      expect((await index.find(one.digest))?.givers).toEqual([other]);
      expect((await index.find(two.digest))?.givers).toHaveLength(2);
      await index.deny(denied.repository);
      expect((await index.find(two.digest))?.givers).toEqual([other]);
      // What was given after the denial counts.
      await index.put(two, [denied]);
      expect((await index.find(two.digest))?.givers).toHaveLength(2);
    });

    test('keeps no more givers of one object than it says', async () => {
      const { index } = await open();
      const one = object('one');
      for (let at = 0; at < MAX_GIVERS + 3; at++) await index.put(one, [giver('docker.io', `library/app${at}`)]);
      expect((await index.find(one.digest))?.givers).toHaveLength(MAX_GIVERS);
    });

    test('forgets at once what the store does not have', async () => {
      const { index } = await open();
      const one = object('one');
      await index.put(one, [giver('docker.io', 'library/app')]);
      await index.drop([one.digest, object('never').digest]);
      expect([await index.find(one.digest), await index.bytes()]).toEqual([null, 0]);
      // Its givers went with it.
      await index.put(one, []);
      expect((await index.find(one.digest))?.givers).toEqual([]);
    });

    test('condemns what was used longest ago, in two phases', async () => {
      const { index, another, pass } = await open();
      const [one, two, three] = [object('one'), object('two'), object('three', 15)];
      for (const each of [one, two, three]) {
        await index.put(each, [giver('docker.io', 'library/app')]);
        await pass(50);
      }
      await index.touch([one.digest]);
      expect(await index.condemn(35, 10)).toBe(0);
      expect(await index.condemn(25, 10)).toBe(1);
      expect([await (await another()).find(two.digest), await index.bytes()]).toEqual([null, 25]);
      expect(await index.doomed(100_000, 10)).toEqual([]);
      await pass(50);
      expect((await index.doomed(20, 10)).map(({ digest }) => digest)).toEqual([two.digest]);
      expect(await index.condemn(0, 1)).toBe(1);
      expect(await index.find(three.digest)).toBeNull();
      // Somebody has put it again meanwhile.
      await (await another()).put(three, [giver('quay.io', 'org/app')]);
      expect(await index.forget([two.digest, three.digest, one.digest])).toEqual([two.digest]);
      expect((await index.find(three.digest))?.givers).toHaveLength(2);
      expect(await index.bytes()).toBe(25);
      expect(await index.doomed(0, 10)).toEqual([]);
    });

    test('what only the holder of a lock may do is refused, and nothing done, once another was granted it', async () => {
      const { index, another, locks } = await open();
      const [one, two] = [object('one'), object('two')];
      for (const each of [one, two]) await index.put(each, [giver('docker.io', 'library/app')]);
      const name = 'evict store';
      const first = await locks.acquire(name, { leaseMs: 60_000 });
      expect(await index.condemn(10, 10, first)).toBe(1);
      const [doomed] = await index.doomed(0, 10);
      await first.release();
      const second = await locks.acquire(name, { leaseMs: 60_000 });
      for (const holder of [index, await another()]) {
        await expect(holder.condemn(0, 10, first)).rejects.toThrow(FencedError);
        await expect(holder.forget(doomed === undefined ? [] : [doomed.digest], first)).rejects.toThrow(FencedError);
      }
      expect([await index.bytes(), (await index.doomed(0, 10)).length]).toEqual([10, 1]);
      expect(await index.forget(doomed === undefined ? [] : [doomed.digest], second)).toHaveLength(1);
      expect(await index.condemn(0, 10, second)).toBe(1);
      await second.release();
    });

    test('is walked through in the order of digests', async () => {
      const { index } = await open();
      const all = ['a', 'b', 'c', 'd', 'e'].map((each) => object(each));
      for (const each of all) await index.put(each, []);
      await index.condemn(40, 1);
      const seen: string[] = [];
      for (
        let page = await index.after(null, 2);
        page.length > 0;
        page = await index.after(page.at(-1)?.digest ?? null, 2)
      ) {
        seen.push(...page.map(({ digest }) => digest));
      }
      expect(seen).toEqual(all.map(({ digest }) => digest).toSorted());
    });
  });
}
