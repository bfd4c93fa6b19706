import { describe, expect, test } from 'vitest';
import { RequestRate } from '../../../src/access/request-rate.ts';

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
