import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Askers } from '../../../src/kit/askers.ts';
import { type AcquireOptions, FairPool, type PoolLimits, type Release } from '../../../src/kit/fair-pool.ts';
import { busyError } from '../../../src/oci/errors.ts';

const forever = new AbortController().signal;
const LIMITS: PoolLimits = { permits: 4, perGroup: 4, perAsker: 4, perItem: 4, safeFor: 0, turn: 5_000 };

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const settle = () => new Promise((resolve) => setImmediate(resolve));

/** A pool, who got a permit of it in which order, and what became of those who did not. */
function bed(limits: Partial<PoolLimits> = {}) {
  const pool = new FairPool({
    limits: { ...LIMITS, ...limits },
    maxWait: 15_000,
    refusal: (registry, own) => busyError(`downloads from ${own ? registry : 'other registries'}`),
  });
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
      item: name.split('/')[1] ?? '',
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
    const { granted, fill } = bed({ permits: 10, perGroup: 3, perItem: 2 });
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

  it('within a repository lets those take turns that hold a permit and those that wait', async () => {
    const { granted, rested, fill } = bed({ permits: 2 });
    fill('r/bad/0', 0);
    fill('r/bad/1', 5);
    await settle();
    fill('r/bad/2');
    await vi.advanceTimersByTimeAsync(4_000);
    expect(rested).toEqual([]);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(rested).toEqual(['r/bad/0']);
    expect(granted.at(-1)).toBe('r/bad/2');
  });

  it('within a registry asks a repository that is over its share, as soon as another one waits', async () => {
    const { granted, rested, fill } = bed({ permits: 2 });
    fill('r/bad/0', 0);
    fill('r/bad/1', 5);
    await settle();
    fill('r/good/0');
    await settle();
    expect([rested, granted.at(-1)]).toEqual([['r/bad/0'], 'r/good/0']);
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

describe('clients of one registry', () => {
  /** Fills that queue again when they were asked to rest. */
  function clients(limits: Partial<PoolLimits> = {}) {
    const { pool } = bed(limits);
    const granted: string[] = [];
    const held = new Map<string, Release>();
    const rests = new Map<string, number>();
    const fill = (name: string, askers: Askers, repository = 'app', rested = false): void => {
      const rest = () => {
        rests.set(name, (rests.get(name) ?? 0) + 1);
        held.get(name)?.();
        held.delete(name);
        fill(name, askers, repository, true);
      };
      const options = { askers, item: repository, pace: () => 0, rest, patient: rested, rested };
      pool.acquire('r', forever, options).then(
        (release) => {
          granted.push(name);
          held.set(name, release);
        },
        () => {},
      );
    };
    const done = (name: string) => held.get(name)?.();
    return { pool, granted, held, rests, fill, done };
  }

  it('take turns, whatever one of them asks for: 300 cold fills hold up no other, in the same repository or in others', async () => {
    for (const repositories of [1, 300]) {
      const { granted, fill, held } = clients();
      for (let i = 0; i < 300; i++) fill(`greedy/${i}`, new Askers('greedy'), `r${i % repositories}`);
      await settle();
      fill('modest/0', new Askers('modest'), 'r0');
      await settle();
      // No time has passed: neither a turn nor a wait.
      expect(granted.at(-1)).toBe('modest/0');
      for (let i = 1; i < 4; i++) fill(`modest/${i}`, new Askers('modest'), 'r0');
      await settle();
      const count = (client: string) => [...held.keys()].filter((name) => name.startsWith(client)).length;
      expect([count('modest'), count('greedy')]).toEqual([2, 2]);
    }
  });

  it('each have their own line for what several ask for: it goes on in the first that comes', async () => {
    const { granted, fill, pool, done } = clients();
    const shared = new Askers('greedy');
    for (let i = 0; i < 300; i++) fill(`greedy/${i}`, i === 299 ? shared : new Askers('greedy'));
    await settle();
    expect(granted).toHaveLength(4);
    shared.join('modest');
    await settle();
    expect(granted.at(-1)).toBe('greedy/299');
    expect(pool.waiting).toBe(296);
    done('greedy/299');
    await settle();
    expect(granted.filter((name) => name === 'greedy/299')).toHaveLength(1);
  });

  it('get first what most of them wait for, among what has as good a claim', async () => {
    const { granted, fill, done } = clients({ permits: 1 });
    fill('held', new Askers('z'));
    fill('one', new Askers('a'));
    fill('two', new Askers('b', 'c'));
    const four = new Askers('d', 'e', 'f');
    fill('four', four);
    fill('also two', new Askers('g', 'h'));
    four.join('i');
    for (const name of ['held', 'four', 'two', 'also two', 'one']) {
      await settle();
      expect(granted.at(-1)).toBe(name);
      done(name);
    }
  });

  it('get first what most wait for of all that one client asks for', async () => {
    const { granted, fill, done } = clients({ permits: 1 });
    fill('held', new Askers('z'));
    for (let i = 0; i < 20; i++) fill(`a/${i}`, new Askers('a'), `r${i % 3}`);
    const shared = new Askers('a');
    fill('shared', shared, 'r2');
    shared.join('b');
    shared.join('c');
    await settle();
    done('held');
    await settle();
    expect(granted).toEqual(['held', 'shared']);
  });

  it('gain nothing by asking for the same again, nor before whoever has fewer permits', async () => {
    const { granted, fill, done } = clients({ permits: 3 });
    for (const client of ['greedy', 'other', 'third']) fill(`${client}/0`, new Askers(client));
    await settle();
    const again = new Askers('greedy');
    fill('greedy/1', again);
    for (let i = 0; i < 100; i++) again.join('greedy');
    // Each of the two has a permit already.
    again.join('other');
    fill('modest/0', new Askers('modest'));
    done('third/0');
    await settle();
    expect(granted.at(-1)).toBe('modest/0');
  });

  it('that ask for what nobody else does have their turn, however many always come for something else', async () => {
    const { granted, fill, done } = clients({ permits: 1 });
    fill('0', new Askers('x'));
    fill('lonely', new Askers('lonely'));
    let rounds = 0;
    for (; !granted.includes('lonely') && rounds < 100; rounds++) {
      const crowd = Array.from({ length: 40 }, (_, client) => `${rounds}/${client}`);
      fill(`${rounds + 1}`, new Askers(...crowd));
      await vi.advanceTimersByTimeAsync(1_000);
      done(granted.at(-1) ?? '');
      await settle();
    }
    // Within the time after which it would be refused, by far.
    expect([granted.at(-1), rounds]).toEqual(['lonely', 9]);
  });

  it('leave each other the room that one client, and one repository, may not have', async () => {
    const { granted, fill, rests, done, held } = clients({
      permits: 8,
      perGroup: 8,
      perAsker: 6,
      perItem: 5,
    });
    for (let i = 0; i < 20; i++) fill(`a/${i}`, new Askers('a'), 'hangs');
    for (let i = 0; i < 20; i++) fill(`b/${i}`, new Askers('b'), 'hangs');
    await settle();
    const count = (prefix: string) => granted.filter((name) => name.startsWith(prefix)).length;
    expect(count('a/') + count('b/') - [...rests.values()].reduce((sum, times) => sum + times, 0)).toBe(5);
    fill('c/0', new Askers('c'), 'well');
    fill('a/well', new Askers('a'), 'well');
    await settle();
    expect(granted.slice(-2)).toEqual(['c/0', 'a/well']);
    // Lines that were held back by the repository go on, each client's in turn.
    const before = granted.length;
    for (const name of [...held.keys()].filter((held) => /^[ab]\/\d/.test(held))) done(name);
    await settle();
    expect(granted.length - before).toBe(5);
  });

  it('starve none of their fills, however often others have a better claim', async () => {
    const { granted, fill, held, rests, done } = clients({ permits: 2 });
    for (let i = 0; i < 4; i++) fill(`greedy/${i}`, new Askers('greedy'));
    await settle();
    const first = new Set(held.keys());
    // Others come and go all the time, each with less than the greedy one has.
    for (let round = 0; round < 200; round++) {
      fill(`other/${round}`, new Askers(`other${round}`));
      await vi.advanceTimersByTimeAsync(300);
      for (const name of [...held.keys()].filter((name) => name.startsWith('other'))) {
        done(name);
        held.delete(name);
      }
      await settle();
    }
    expect(granted.filter((name) => name.startsWith('other')).length).toBeGreaterThan(190);
    for (let i = 0; i < 4; i++) {
      const name = `greedy/${i}`;
      const times = granted.filter((other) => other === name).length;
      expect(times).toBeGreaterThan(1);
      // In a minute: whoever rested has two seconds at least.
      expect(rests.get(name) ?? 0).toBeLessThanOrEqual(30 + (first.has(name) ? 1 : 0));
    }
  });

  it('of several thousand are all served in the end, for one repository too', async () => {
    const { granted, fill, done, pool } = clients({ permits: 4, perItem: 2 });
    for (let i = 0; i < 3_000; i++) fill(`c/${i}`, new Askers(`c${i}`), `r${i % 2}`);
    for (let i = 0; i < 3_000; i++) {
      await Promise.resolve();
      await Promise.resolve();
      done(granted[i] ?? '');
    }
    await settle();
    expect([granted.length, pool.inUse, pool.waiting]).toEqual([3_000, 0, 0]);
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
      ask(`r${i % 5}/${i % 1000}/${i}`, { item: `${i % 1000}`, signal: new AbortController().signal });
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
