import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type AcquireOptions, FairPool, type PoolLimits, type Release } from '../../../src/upstream/pools.ts';

const forever = new AbortController().signal;
const LIMITS: PoolLimits = { permits: 4, perRegistry: 4, perGroup: 4, safeFor: 0, turn: 5_000 };

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A pool, who got a permit of it in which order, and what became of those who did not. */
function bed(limits: Partial<PoolLimits> = {}) {
  const pool = new FairPool({ ...LIMITS, ...limits }, 'downloads', 15_000);
  const granted: string[] = [];
  const refused: Error[] = [];
  const rested: string[] = [];
  const releases = new Map<string, Release>();
  const ask = (name: string, options: AcquireOptions & { signal?: AbortSignal } = {}) => {
    const registry = name.split('/')[0] ?? name;
    pool.acquire(registry, options.signal ?? forever, options).then(
      (release) => {
        granted.push(name);
        releases.set(name, release);
      },
      (error: Error) => refused.push(error),
    );
  };
  /** A holder that rests when it is asked to. */
  const fill = (name: string, pace = 1_000) =>
    ask(name, {
      group: name.split('/')[1] ?? '',
      pace: () => pace,
      rest: () => {
        rested.push(name);
        releases.get(name)?.();
      },
    });
  return { pool, granted, refused, rested, ask, fill, release: (name: string) => releases.get(name)?.() };
}

describe('turns', () => {
  it('gives what becomes free to the registry that has the fewest', async () => {
    const { granted, ask, release } = bed();
    for (const name of ['greedy/1', 'greedy/2', 'greedy/3', 'modest/1', 'greedy/4', 'greedy/5', 'modest/2', 'modest/3'])
      ask(name);
    await settle();
    expect(granted).toEqual(['greedy/1', 'greedy/2', 'greedy/3', 'modest/1']);
    release('greedy/1');
    release('greedy/2');
    await settle();
    // Modest has one, then as many as greedy: its turn comes after greedy's, which waited longer.
    expect(granted.slice(4)).toContain('modest/2');
    expect(granted.slice(4)).toHaveLength(2);
  });

  it('within a registry gives it to the repository that has the fewest', async () => {
    const { granted, fill, release } = bed();
    for (let i = 0; i < 9; i++) fill(`r/bad/${i}`);
    fill('r/good/0');
    await settle();
    release('r/bad/0');
    await settle();
    expect(granted.at(-1)).toBe('r/good/0');
  });

  it('keeps to the limits of a registry and of a repository', async () => {
    const { granted, fill } = bed({ permits: 10, perRegistry: 3, perGroup: 2 });
    for (const group of ['x', 'y']) for (let i = 0; i < 3; i++) fill(`a/${group}/${i}`);
    for (let i = 0; i < 3; i++) fill(`b/x/${i}`);
    await settle();
    const count = (prefix: string) => granted.filter((name) => name.startsWith(prefix)).length;
    expect([count('a/x'), count('a/y'), count('b/x')]).toEqual([2, 1, 2]);
  });

  it('forgets who leaves, and counts a release once', async () => {
    const { pool, granted, refused, ask, release } = bed({ permits: 1 });
    const leaving = new AbortController();
    ask('a/first');
    ask('a/left', { signal: leaving.signal });
    ask('a/second');
    leaving.abort(new Error('gone'));
    await settle();
    expect(refused.map(({ message }) => message)).toEqual(['gone']);
    release('a/first');
    release('a/first');
    await settle();
    expect(granted).toEqual(['a/first', 'a/second']);
    expect([pool.inUse, pool.waiting]).toEqual([1, 0]);
    release('a/second');
    expect(pool.inUse).toBe(0);
  });
});

describe('rest', () => {
  it('asks the slowest of the registry that is over its share, as soon as another one waits', async () => {
    const { granted, rested, fill } = bed();
    for (const [i, pace] of [3_000, 1_000, 2_000, 4_000].entries()) fill(`greedy/${i}`, pace);
    fill('modest/0');
    await settle();
    expect(rested).toEqual(['greedy/1']);
    expect(granted.at(-1)).toBe('modest/0');
    for (let i = 1; i < 4; i++) fill(`modest/${i}`);
    await settle();
    // Two of four each; from then on they wait for their own.
    expect(rested).toEqual(['greedy/1', 'greedy/2']);
  });

  it('asks no more of them than others have a claim to, whatever the greedy registry itself waits for', async () => {
    const { rested, fill } = bed();
    for (let i = 0; i < 50; i++) fill(`greedy/${i}`);
    fill('modest/0');
    await settle();
    expect(rested).toHaveLength(1);
  });

  it('within a registry lets those take turns that hold a permit and those that wait', async () => {
    const { granted, rested, fill } = bed({ permits: 2 });
    fill('r/bad/0', 0);
    fill('r/bad/1', 5);
    await settle();
    fill('r/good/0');
    await vi.advanceTimersByTimeAsync(4_000);
    expect(rested).toEqual([]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(rested).toEqual(['r/bad/0']);
    expect(granted.at(-1)).toBe('r/good/0');
  });

  it('lets more registries than there are permits take turns', async () => {
    const { granted, fill } = bed({ permits: 2 });
    for (const name of ['a/0', 'b/0', 'c/0']) fill(name);
    await vi.advanceTimersByTimeAsync(6_000);
    expect(granted).toEqual(['a/0', 'b/0', 'c/0']);
  });

  it('leaves those alone for a while that can only be ended', async () => {
    const { rested, fill } = bed({ safeFor: 2_000 });
    for (let i = 0; i < 4; i++) fill(`greedy/${i}`);
    fill('modest/0');
    await vi.advanceTimersByTimeAsync(1_500);
    expect(rested).toEqual([]);
    await vi.advanceTimersByTimeAsync(1_000);
    // Among equally slow ones the oldest.
    expect(rested).toEqual(['greedy/0']);
  });
});

describe('waiting', () => {
  it('ends after fifteen seconds, with words and a time to come back', async () => {
    const { pool, refused, ask } = bed({ permits: 1 });
    ask('a/0');
    ask('a/1');
    ask('b/0');
    await vi.advanceTimersByTimeAsync(15_000);
    expect(refused.map(({ message }) => message)).toEqual([
      'the gateway is busy with downloads from a',
      'the gateway is busy with downloads from other registries',
    ]);
    expect(refused[0]).toMatchObject({ status: 503, next: 'try again in 5 s', options: { retryAfter: 5 } });
    expect(pool.waiting).toBe(0);
  });

  it('does not end for what a client has a part of', async () => {
    const { granted, refused, ask, release } = bed({ permits: 1 });
    ask('a/0');
    ask('a/1', { patient: true });
    await vi.advanceTimersByTimeAsync(3_600_000);
    release('a/0');
    await settle();
    expect(refused).toEqual([]);
    expect(granted).toEqual(['a/0', 'a/1']);
  });

  it('of several thousand is granted to each of them in the end', async () => {
    const { pool, granted, ask, release } = bed({ permits: 1 });
    for (let i = 0; i < 4_000; i++) {
      ask(`r${i % 5}/${i % 1000}/${i}`, { group: `${i % 1000}`, signal: new AbortController().signal });
    }
    for (let i = 0; i < 4_000; i++) {
      await Promise.resolve();
      await Promise.resolve();
      release(granted[i] ?? '');
    }
    await settle();
    expect(granted).toHaveLength(4_000);
    expect([pool.inUse, pool.waiting]).toEqual([0, 0]);
  });
});
