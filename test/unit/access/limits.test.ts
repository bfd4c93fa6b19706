import { describe, expect, test } from 'vitest';
import { type Counter, Quotas, RequestRate } from '../../../src/access/limits.ts';
import { MemoryCounterStore } from '../../support/access-stores.ts';

describe('requests a minute', () => {
  test('a whole minute at once, then one at a time as they come back', () => {
    const rate = new RequestRate(6);
    for (let count = 0; count < 6; count++) expect(rate.take('a', 0)).toBe(0);
    expect(rate.take('a', 0)).toBeCloseTo(10);
    expect(rate.take('a', 4_000)).toBeCloseTo(6);
    expect(rate.take('a', 10_000)).toBe(0);
    expect(rate.take('a', 10_000)).toBeCloseTo(10);
    expect(rate.take('b', 10_000)).toBe(0);
  });

  test('refused requests cost nothing, and never more than a minute is saved up', () => {
    const rate = new RequestRate(2);
    rate.take('a', 0);
    rate.take('a', 0);
    for (let at = 0; at < 29_000; at += 1000) expect(rate.take('a', at)).toBeGreaterThan(0);
    expect(rate.take('a', 30_000)).toBe(0);
    for (let count = 0; count < 2; count++) expect(rate.take('a', 10_000_000)).toBe(0);
    expect(rate.take('a', 10_000_000)).toBeGreaterThan(0);
  });

  test('clients that went away are forgotten', () => {
    const rate = new RequestRate(10);
    for (let client = 0; client < 1000; client++) rate.take(`old${client}`, client);
    expect(rate.size).toBe(1000);
    for (let client = 0; client < 600; client++) rate.take(`new${client}`, 100_000);
    expect(rate.size).toBe(600);
  });

  test('a flood of addresses is bounded in memory', () => {
    const rate = new RequestRate(10);
    for (let client = 0; client < 150_000; client++) rate.take(`c${client}`, 0);
    expect(rate.size).toBe(100_000);
  });
});

describe('bytes', () => {
  const at = (text: string) => Date.parse(text);
  const quotas = async (now: { at: number }, store = new MemoryCounterStore(), limits = { day: 100, month: 1000 }) => {
    const options = { bytesPerDay: limits.day, bytesPerMonth: limits.month, store, now: () => now.at };
    const one = await Quotas.open(options);
    if (one === null) throw new Error('limits are given, but nothing is counted');
    return one;
  };

  test('a day for each client, until midnight UTC', async () => {
    const now = { at: at('2026-11-22T23:00:00Z') };
    const one = await quotas(now);
    one.count('a', 99);
    expect(one.exceeded('a')).toBeNull();
    one.count('a', 1);
    expect(one.exceeded('a')).toEqual({ what: 'day', limit: 100, retryAfter: 3600 });
    expect(one.exceeded('b')).toBeNull();
    now.at += 3_600_000;
    expect(one.exceeded('a')).toBeNull();
  });

  test('a month for all, over the end of the year', async () => {
    const now = { at: at('2026-12-31T00:00:00Z') };
    const one = await quotas(now);
    for (let client = 0; client < 10; client++) one.count(`c${client}`, 100);
    expect(one.exceeded('new')).toEqual({ what: 'month', limit: 1000, retryAfter: 86_400 });
    now.at = at('2027-01-01T00:00:00Z');
    expect(one.exceeded('new')).toBeNull();
  });

  test('survive a restart, within their day and month only', async () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const first = await quotas(now, store);
    first.count('a', 60);
    await first.flush();
    first.count('a', 50);
    first.count('b', 10);
    await first.flush();
    expect((await quotas(now, store)).exceeded('a')?.what).toBe('day');
    expect((await quotas(now, store)).exceeded('b')).toBeNull();
    now.at = at('2026-11-23T12:00:00Z');
    const next = await quotas(now, store);
    expect(next.exceeded('a')).toBeNull();
    for (const client of ['c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']) next.count(client, 99);
    expect(next.exceeded('z')).toBeNull();
    next.count('k', 88);
    expect(next.exceeded('z')?.what).toBe('month');
    await next.flush();
    expect(await store.load(['2026-11-22'])).toEqual([]);
  });

  test('what could not be written is written the next time', async () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const one = await quotas(now, store);
    one.count('a', 100);
    const add = store.add.bind(store);
    store.add = async () => {
      throw new Error('disk full');
    };
    await expect(one.flush()).rejects.toThrow('disk full');
    store.add = add;
    await one.flush();
    expect((await quotas(now, store)).exceeded('a')?.what).toBe('day');
  });

  test('with no limit set nothing is kept or read', async () => {
    const store = new MemoryCounterStore();
    store.load = async () => {
      throw new Error('read');
    };
    expect(await Quotas.open({ bytesPerDay: null, bytesPerMonth: null, store, now: () => 0 })).toBeNull();
  });

  test('a flood of clients is bounded, and forgets the longest idle', async () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const one = await quotas(now, store, { day: 1, month: 1e9 });
    for (let client = 0; client <= 100_000; client++) one.count(`c${client}`, 1);
    expect(one.exceeded('c0')).toBeNull();
    expect(one.exceeded('c1')?.what).toBe('day');
    await one.flush();
    expect(await store.load(['2026-11-22'])).toHaveLength(100_000);
  });

  /** Holds each `add` of the store up until `settle` is called for it: with an error it fails, without it goes through. */
  function heldUp(store: MemoryCounterStore): () => Promise<(error?: Error) => void> {
    const add = store.add.bind(store);
    const calls: ((error?: Error) => void)[] = [];
    store.add = (deltas: readonly Counter[], keep: readonly string[]) =>
      new Promise((resolve, reject) => {
        calls.push((error) => (error === undefined ? resolve(add(deltas, keep)) : reject(error)));
      });
    return async () => {
      await expect.poll(() => calls.length).toBe(1);
      return calls.pop()!;
    };
  }

  test('what is counted while the store writes counts at once, and is written the next time', async () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const nextAdd = heldUp(store);
    const one = await quotas(now, store);
    one.count('a', 40);
    const flushing = one.flush();
    const settle = await nextAdd();
    one.count('a', 50);
    expect(one.exceeded('a')).toBeNull();
    one.count('a', 10);
    expect(one.exceeded('a')?.what).toBe('day');
    settle();
    await flushing;
    expect(one.exceeded('a')?.what).toBe('day');
    const total = async () => (await store.load(['2026-11-22'])).map(({ bytes }) => bytes);
    expect(await total()).toEqual([40]);
    const again = one.flush();
    (await nextAdd())();
    await again;
    await one.flush();
    expect(await total()).toEqual([100]);
    expect((await store.load(['2026-11'])).map(({ bytes }) => bytes)).toEqual([100]);
  });

  test('a flush that fails, with another waiting behind it and bytes counted meanwhile, loses and doubles nothing', async () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const nextAdd = heldUp(store);
    const one = await quotas(now, store, { day: 1e6, month: 1e6 });
    one.count('a', 1);
    const failing = one.flush();
    const settle = await nextAdd();
    one.count('a', 20);
    one.count('b', 300);
    const waiting = one.flush();
    settle(new Error('disk full'));
    await expect(failing).rejects.toThrow('disk full');
    (await nextAdd())();
    await waiting;
    const stored = await store.load(['2026-11-22', '2026-11']);
    expect(Object.fromEntries(stored.map(({ client, bytes }) => [client, bytes]))).toEqual({ a: 21, b: 300, '*': 321 });
  });

  test('a day that ends while the store writes starts from nothing, and the month goes on', async () => {
    const now = { at: at('2026-11-22T23:59:59Z') };
    const store = new MemoryCounterStore();
    const nextAdd = heldUp(store);
    const one = await quotas(now, store);
    one.count('a', 100);
    const flushing = one.flush();
    const settle = await nextAdd();
    now.at += 1000;
    one.count('a', 30);
    settle();
    await flushing;
    expect(one.exceeded('a')).toBeNull();
    const again = one.flush();
    (await nextAdd())();
    await again;
    expect(new Set(await store.load(['2026-11-22', '2026-11-23', '2026-11']))).toEqual(
      new Set([
        { period: '2026-11-23', client: 'a', bytes: 30 },
        { period: '2026-11', client: '*', bytes: 130 },
      ]),
    );
  });

  test('several holders count together', async () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const one = await quotas(now, store);
    const other = await quotas(now, store.another());
    one.count('a', 60);
    other.count('a', 60);
    await one.flush();
    expect(other.exceeded('a')).toBeNull();
    await other.flush();
    expect(other.exceeded('a')?.what).toBe('day');
    // One learns of it at its next flush, even with nothing of its own to add.
    expect(one.exceeded('a')).toBeNull();
    await one.flush();
    expect(one.exceeded('a')?.what).toBe('day');
    expect((await store.load(['2026-11'])).map(({ bytes }) => bytes)).toEqual([120]);
  });
});
