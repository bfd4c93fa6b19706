import { describe, expect, it } from 'vitest';
import { RetryPolicy } from '../../../src/upstream/download/retry-policy.ts';
import { InvalidResponseError, StatusError } from '../../../src/upstream/failures.ts';

/** The wait after an attempt that brought so many bytes and then failed. */
function waitAfter(policy: RetryPolicy, bytes: number, error: unknown = reset): number | null {
  policy.brought(bytes);
  return policy.next(error, bytes);
}

const reset = Object.assign(new Error('reset'), { code: 'ECONNRESET' });
const MIB = 1024 * 1024;

describe('RetryPolicy', () => {
  it('does not make a link wait that breaks after every MiB', () => {
    const policy = new RetryPolicy();
    for (let i = 0; i < 1000; i++) expect(waitAfter(policy, MIB)).toBe(0);
  });

  it('spaces out attempts that bring little, without ever giving them up', () => {
    const policy = new RetryPolicy();
    for (let i = 0; i < 100; i++) {
      const wait = waitAfter(policy, 64 * 1024);
      expect(wait).toBeGreaterThanOrEqual(80);
      expect(wait).toBeLessThanOrEqual(120);
    }
  });

  it('takes single bytes for nothing, however often they come', () => {
    let now = 0;
    const policy = new RetryPolicy(() => now);
    let attempts = 0;
    for (let wait: number | null = 0; wait !== null; now += wait ?? 0) {
      wait = waitAfter(policy, 1);
      expect(++attempts).toBeLessThan(200);
    }
    expect(attempts).toBeGreaterThan(20);
  });

  it('lets many small parts add up', () => {
    let now = 0;
    const policy = new RetryPolicy(() => now);
    for (let i = 0; i < 1000; i++) {
      const wait = waitAfter(policy, 16 * 1024);
      expect(wait).not.toBeNull();
      now += wait ?? 0;
    }
  });

  it('does not give up one connection that fails while others bring the rest', () => {
    let now = 0;
    const policy = new RetryPolicy(() => now);
    for (let i = 0; i < 100; i++) {
      now += 5_000;
      policy.brought(MIB);
      const wait = policy.next(reset, 0);
      expect(wait).not.toBeNull();
      if (i > 5) expect(wait).toBeGreaterThan(3_000);
    }
  });

  it('backs off from attempts that bring nothing, by a few seconds at most, and gives up after two minutes of them', () => {
    let now = 0;
    const policy = new RetryPolicy(() => now);
    let last = 0;
    for (let i = 0; now < 120_000; i++) {
      const wait = policy.next(reset, 0);
      expect(wait).not.toBeNull();
      // Doubled, each with a fifth of jitter either way; the bound lies at 4 s.
      if (i > 0 && i < 4) expect(wait).toBeGreaterThan(last * 1.3);
      expect(wait).toBeLessThanOrEqual(4_800);
      last = wait ?? 0;
      now += last;
    }
    expect(policy.next(reset, 0)).toBeNull();
  });

  it('gives up late where each attempt takes long', () => {
    let now = 0;
    const policy = new RetryPolicy(() => now);
    for (let i = 0; i < 4; i++) {
      now += 60_000;
      expect(policy.next(reset, 0)).not.toBeNull();
    }
    now += 60_000;
    expect(policy.next(reset, 0)).toBeNull();
  });

  it('begins anew once something came, and after a rest', () => {
    let now = 0;
    const policy = new RetryPolicy(() => now);
    for (let i = 0; i < 11; i++) policy.next(reset, 0);
    now += 200_000;
    expect(waitAfter(policy, MIB)).toBe(0);
    expect(policy.next(reset, 0)).toBeLessThan(301);
    for (let i = 0; i < 11; i++) policy.next(reset, 0);
    now += 200_000;
    policy.resume();
    expect(policy.next(reset, 0)).not.toBeNull();
  });

  it('takes a refusal for final after four in a row, a failing server not', () => {
    const refused = new RetryPolicy();
    const notFound = new StatusError(404, 'registry.test', undefined, 'it has no such blob');
    for (let i = 0; i < 3; i++) expect(refused.next(notFound, 0)).not.toBeNull();
    expect(refused.next(notFound, 0)).toBeNull();

    const mixed = new RetryPolicy();
    for (let i = 0; i < 3; i++) mixed.next(new InvalidResponseError('nonsense'), 0);
    expect(mixed.next(new StatusError(500, 'registry.test', undefined, 'it failed'), 0)).not.toBeNull();
    expect(mixed.next(notFound, 0)).not.toBeNull();
  });

  it('waits as long as a registry asks, a minute at most', () => {
    const busy = (seconds: number) => new StatusError(429, 'registry.test', seconds, 'too many requests');
    expect(waitAfter(new RetryPolicy(), MIB, busy(7))).toBe(7_000);
    expect(new RetryPolicy().next(busy(3600), 0)).toBe(60_000);
  });
});
