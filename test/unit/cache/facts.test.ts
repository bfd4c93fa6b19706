import { describe, expect, it } from 'vitest';
import { Facts } from '../../../src/cache/facts.ts';
import type { Fact, KnownFact } from '../../../src/cache/index-port.ts';
import { DEFAULT_CREDENTIAL } from '../../../src/oci/credentials.ts';
import type { RepositoryKey } from '../../../src/oci/names.ts';
import { digestOf } from '../../conformance/cache-index.ts';
import { MemoryCacheIndex } from '../../support/memory-cache-index.ts';

const APP = { registry: 'docker.io', repository: 'library/app' };
const TWIN = { registry: 'ghcr.io', repository: 'library/app' };

const factOf = (repository: RepositoryKey, seed: number, known: Partial<KnownFact>): Fact => ({
  repository,
  digest: digestOf(seed),
  said: null,
  gave: null,
  mediaType: null,
  ...known,
});

/** An index whose writes fail when a test says so. */
class FailingIndex extends MemoryCacheIndex {
  failing = false;
  batches: number[] = [];

  override addFacts(facts: readonly Fact[], at: number): void {
    if (this.failing) throw new Error('the disk is full');
    this.batches.push(facts.length);
    super.addFacts(facts, at);
  }

  override denyRepository(repository: RepositoryKey): boolean {
    if (this.failing) throw new Error('the disk is full');
    return super.denyRepository(repository);
  }
}

function make() {
  const index = new FailingIndex();
  const failures: unknown[] = [];
  return { index, failures, facts: new Facts(index, (error) => failures.push(error)) };
}

describe('what repositories said and gave', () => {
  it('is known at once, before and after it is written, by registry and repository', () => {
    const { index, facts } = make();
    expect(facts.of(APP, digestOf(1))).toBeNull();
    facts.add([factOf(APP, 1, { said: DEFAULT_CREDENTIAL })]);
    expect(facts.of(APP, digestOf(1))).toEqual({ said: DEFAULT_CREDENTIAL, gave: null, mediaType: null });
    expect(facts.of(TWIN, digestOf(1))).toBeNull();
    facts.add([factOf(APP, 1, { gave: 'anyone', mediaType: 'a/b' })]);
    const known = { said: DEFAULT_CREDENTIAL, gave: 'anyone', mediaType: 'a/b' };
    expect(facts.of(APP, digestOf(1))).toEqual(known);
    expect(index.factOf(APP, digestOf(1))).toBeNull();
    facts.flushAll();
    expect([index.factOf(APP, digestOf(1)), facts.of(APP, digestOf(1))]).toEqual([known, known]);
    facts.add([factOf(APP, 1, { said: DEFAULT_CREDENTIAL, mediaType: 'a/lie' })]);
    facts.flushAll();
    expect(facts.of(APP, digestOf(1))).toEqual(known);
    // Nothing new is not written.
    expect(index.batches).toEqual([1]);
  });

  it('makes givers known at once', () => {
    const { facts } = make();
    expect(facts.giversOf(digestOf(1))).toEqual({ open: false, closedTo: [] });
    facts.add([factOf(APP, 1, { said: 'anyone' }), factOf(TWIN, 1, { gave: DEFAULT_CREDENTIAL })]);
    expect(facts.giversOf(digestOf(1))).toEqual({
      open: false,
      closedTo: [{ registry: 'ghcr.io', credential: DEFAULT_CREDENTIAL }],
    });
    facts.flushAll();
    facts.add([factOf(APP, 1, { gave: 'anyone' })]);
    expect(facts.giversOf(digestOf(1))).toEqual({
      open: true,
      closedTo: [{ registry: 'ghcr.io', credential: DEFAULT_CREDENTIAL }],
    });
  });

  it('is written a few hundred at a time, the rest by itself', async () => {
    const { index, facts } = make();
    facts.add(Array.from({ length: 1_200 }, (_, seed) => factOf(APP, seed, { said: 'anyone' })));
    facts.flush();
    expect(index.batches).toEqual([500]);
    while (index.batches.length < 3) await new Promise((resolve) => setImmediate(resolve));
    expect(index.batches).toEqual([500, 500, 200]);
  });

  it('is bounded while it waits to be written; what was given is never left out', () => {
    const { index, facts } = make();
    facts.add(Array.from({ length: 30_000 }, (_, seed) => factOf(APP, seed, { said: 'anyone' })));
    facts.add([factOf(APP, 40_000, { gave: 'anyone' })]);
    facts.flushAll();
    expect(index.totals().facts).toBe(20_001);
    expect(facts.of(APP, digestOf(40_000))).not.toBeNull();
  });

  it('waits where the index cannot be written, and is written once it can', () => {
    const { index, facts } = make();
    facts.add([factOf(APP, 1, { gave: DEFAULT_CREDENTIAL })]);
    index.failing = true;
    for (const write of [() => facts.flush(), () => facts.flushAll()]) expect(write).toThrow('the disk is full');
    expect([facts.of(APP, digestOf(1))?.gave, facts.giversOf(digestOf(1)).closedTo]).toEqual([
      DEFAULT_CREDENTIAL,
      [{ registry: 'docker.io', credential: DEFAULT_CREDENTIAL }],
    ]);
    index.failing = false;
    facts.flush();
    expect(index.factOf(APP, digestOf(1))?.gave).toBe(DEFAULT_CREDENTIAL);
  });
});

describe('a denial', () => {
  it('voids at once what is known of the repository, written or not, and is in the index by then', () => {
    const { index, facts } = make();
    facts.add([factOf(APP, 1, { gave: 'anyone' }), factOf(TWIN, 1, { said: 'anyone' })]);
    facts.flushAll();
    facts.add([factOf(APP, 2, { gave: 'anyone' })]);
    for (const seed of [1, 2]) expect(facts.giversOf(digestOf(seed)).open).toBe(true);
    expect(facts.deny(APP)).toBe(true);
    facts.flushAll();
    for (const seed of [1, 2]) {
      expect(facts.of(APP, digestOf(seed))).toBeNull();
      expect(index.factOf(APP, digestOf(seed))).toBeNull();
      expect(facts.giversOf(digestOf(seed)).open).toBe(false);
    }
    expect(facts.of(TWIN, digestOf(1))).not.toBeNull();
  });

  it('of a digest voids that alone', () => {
    const { facts } = make();
    facts.add([factOf(APP, 1, { gave: 'anyone' }), factOf(APP, 2, { gave: 'anyone' })]);
    facts.flushAll();
    expect(facts.deny(APP, digestOf(1))).toBe(true);
    expect(facts.of(APP, digestOf(1))).toBeNull();
    expect(facts.giversOf(digestOf(1)).open).toBe(false);
    expect(facts.of(APP, digestOf(2))).not.toBeNull();
  });

  it('of what is not known changes nothing', () => {
    const { facts } = make();
    facts.add([factOf(APP, 1, { gave: 'anyone' })]);
    expect(facts.deny(TWIN)).toBe(false);
    expect(facts.deny(APP, digestOf(2))).toBe(false);
    expect(facts.of(APP, digestOf(1))).not.toBeNull();
  });

  it('holds where the index cannot be written, and is written once it can', () => {
    const { index, facts, failures } = make();
    facts.add([factOf(APP, 1, { gave: 'anyone' }), factOf(TWIN, 2, { said: 'anyone' })]);
    facts.add([factOf(TWIN, 3, { gave: 'anyone' })]);
    facts.flushAll();
    index.failing = true;
    expect(facts.deny(APP)).toBe(true);
    expect(failures).toHaveLength(1);
    expect(facts.of(APP, digestOf(1))).toBeNull();
    // Nor does what it gave open anything for others.
    expect(facts.giversOf(digestOf(1)).open).toBe(false);
    expect(facts.of(TWIN, digestOf(2))).not.toBeNull();
    expect(facts.giversOf(digestOf(3)).open).toBe(false);
    expect(() => facts.flush()).toThrow('the disk is full');
    index.failing = false;
    facts.flush();
    expect(index.factOf(APP, digestOf(1))).toBeNull();
    // What others gave counts again at once.
    expect(facts.giversOf(digestOf(3)).open).toBe(true);
  });

  it('takes all of its registry with it where too many wait for the index, and little memory', () => {
    const index = new FailingIndex();
    const facts = new Facts(index, () => {}, 2);
    const other = { registry: APP.registry, repository: 'library/other' };
    facts.add([factOf(APP, 1, { gave: 'anyone' }), factOf(other, 2, { gave: 'anyone' })]);
    facts.add([factOf(TWIN, 3, { gave: 'anyone' })]);
    facts.flushAll();
    index.failing = true;
    for (const repository of ['library/a', 'library/b']) facts.deny({ ...APP, repository });
    expect(facts.of(other, digestOf(2))).not.toBeNull();
    expect(facts.deny(APP)).toBe(true);
    for (const [key, seed] of [
      [APP, 1],
      [other, 2],
    ] as const)
      expect(facts.of(key, digestOf(seed))).toBeNull();
    expect(facts.giversOf(digestOf(1)).open).toBe(false);
    expect(facts.of(TWIN, digestOf(3))).not.toBeNull();
    index.failing = false;
    facts.flush();
    expect([index.factOf(APP, digestOf(1)), index.factOf(other, digestOf(2))]).toEqual([null, null]);
    expect(facts.of(TWIN, digestOf(3))).not.toBeNull();
    facts.add([factOf(APP, 1, { gave: 'anyone' })]);
    facts.flush();
    expect(facts.of(APP, digestOf(1))).not.toBeNull();
  });

  it('waits in batches, and new facts behind it', () => {
    const { index, facts } = make();
    index.failing = true;
    for (let count = 0; count < 501; count++) facts.deny({ ...APP, repository: `library/${count}` });
    facts.add([factOf(APP, 1, { gave: 'anyone' })]);
    index.failing = false;
    facts.flush();
    expect(index.batches).toEqual([]);
    facts.flush();
    expect(index.batches).toEqual([1]);
  });

  it('is made again where the index loses its newest changes', () => {
    const { index, facts } = make();
    const fact = factOf(APP, 1, { gave: 'anyone' });
    facts.add([fact]);
    facts.flushAll();
    facts.deny(APP);
    index.lose(() => index.addFacts([fact], 0));
    expect(facts.of(APP, digestOf(1))).toBeNull();
    facts.flush();
    expect(index.factOf(APP, digestOf(1))).toBeNull();
  });
});
