import { describe, expect, test } from 'vitest';
import { Quotas } from '../../../src/access/quotas.ts';
import { RequestRate } from '../../../src/access/rate.ts';
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
  const quotas = (now: { at: number }, store = new MemoryCounterStore(), limits = { day: 100, month: 1000 }) =>
    new Quotas({ bytesPerDay: limits.day, bytesPerMonth: limits.month, store, now: () => now.at });

  test('a day for each client, until midnight UTC', () => {
    const now = { at: at('2026-11-22T23:00:00Z') };
    const one = quotas(now);
    one.count('a', 99);
    expect(one.exceeded('a')).toBeNull();
    one.count('a', 1);
    expect(one.exceeded('a')).toEqual({ what: 'day', limit: 100, retryAfter: 3600 });
    expect(one.exceeded('b')).toBeNull();
    now.at += 3_600_000;
    expect(one.exceeded('a')).toBeNull();
  });

  test('a month for all, over the end of the year', () => {
    const now = { at: at('2026-12-31T00:00:00Z') };
    const one = quotas(now);
    for (let client = 0; client < 10; client++) one.count(`c${client}`, 100);
    expect(one.exceeded('new')).toEqual({ what: 'month', limit: 1000, retryAfter: 86_400 });
    now.at = at('2027-01-01T00:00:00Z');
    expect(one.exceeded('new')).toBeNull();
  });

  test('survive a restart, within their day and month only', () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const first = quotas(now, store);
    first.count('a', 60);
    first.flush();
    first.count('a', 50);
    first.count('b', 10);
    first.flush();
    expect(quotas(now, store).exceeded('a')?.what).toBe('day');
    expect(quotas(now, store).exceeded('b')).toBeNull();
    now.at = at('2026-11-23T12:00:00Z');
    const next = quotas(now, store);
    expect(next.exceeded('a')).toBeNull();
    for (const client of ['c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']) next.count(client, 99);
    expect(next.exceeded('z')).toBeNull();
    next.count('k', 88);
    expect(next.exceeded('z')?.what).toBe('month');
    next.flush();
    expect(store.load(['2026-11-22'])).toEqual([]);
  });

  test('what could not be written is written the next time', () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const one = quotas(now, store);
    one.count('a', 100);
    const save = store.save.bind(store);
    store.save = () => {
      throw new Error('disk full');
    };
    expect(() => one.flush()).toThrow('disk full');
    store.save = save;
    one.flush();
    expect(quotas(now, store).exceeded('a')?.what).toBe('day');
  });

  test('with no limit set nothing is kept or read', () => {
    const store = new MemoryCounterStore();
    store.load = () => {
      throw new Error('read');
    };
    const one = new Quotas({ bytesPerDay: null, bytesPerMonth: null, store, now: () => 0 });
    one.count('a', 1e15);
    one.flush();
    expect(one.exceeded('a')).toBeNull();
  });

  test('a flood of clients is bounded, and forgets the longest idle', () => {
    const now = { at: at('2026-11-22T12:00:00Z') };
    const store = new MemoryCounterStore();
    const one = quotas(now, store, { day: 1, month: 1e9 });
    for (let client = 0; client <= 100_000; client++) one.count(`c${client}`, 1);
    expect(one.exceeded('c0')).toBeNull();
    expect(one.exceeded('c1')?.what).toBe('day');
    one.flush();
    expect(store.load(['2026-11-22'])).toHaveLength(100_000);
  });
});
