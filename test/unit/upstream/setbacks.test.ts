import { describe, expect, it } from 'vitest';
import { NonsenseError, StatusError } from '../../../src/upstream/failures.ts';
import { Setbacks } from '../../../src/upstream/setbacks.ts';

const reset = Object.assign(new Error('reset'), { code: 'ECONNRESET' });
const MIB = 1024 * 1024;

describe('Setbacks', () => {
  it('does not make a link wait that breaks after every MiB', () => {
    const setbacks = new Setbacks();
    for (let i = 0; i < 1000; i++) expect(setbacks.after(reset, MIB)).toBe(0);
  });

  it('spaces out attempts that bring little, without ever giving them up', () => {
    const setbacks = new Setbacks();
    for (let i = 0; i < 100; i++) {
      const wait = setbacks.after(reset, 1);
      expect(wait).toBeGreaterThanOrEqual(80);
      expect(wait).toBeLessThanOrEqual(120);
    }
  });

  it('backs off from attempts that bring nothing, up to a bound, and gives up after twelve', () => {
    const setbacks = new Setbacks();
    let last = 0;
    for (let i = 0; i < 11; i++) {
      const wait = setbacks.after(reset, 0);
      expect(wait).not.toBeNull();
      // Doubled, each with a fifth of jitter either way; the bound lies at 15 s.
      if (i > 0 && i < 6) expect(wait).toBeGreaterThan(last * 1.3);
      expect(wait).toBeLessThanOrEqual(18_000);
      last = wait ?? 0;
    }
    expect(setbacks.after(reset, 0)).toBeNull();
  });

  it('begins anew once something came', () => {
    const setbacks = new Setbacks();
    for (let i = 0; i < 11; i++) setbacks.after(reset, 0);
    expect(setbacks.after(reset, MIB)).toBe(0);
    expect(setbacks.after(reset, 0)).toBeLessThan(301);
  });

  it('takes a refusal for final after four in a row, a failing server not', () => {
    const refused = new Setbacks();
    const notFound = new StatusError(404, 'registry.test', undefined, 'it has no such blob');
    for (let i = 0; i < 3; i++) expect(refused.after(notFound, 0)).not.toBeNull();
    expect(refused.after(notFound, 0)).toBeNull();

    const mixed = new Setbacks();
    for (let i = 0; i < 3; i++) mixed.after(new NonsenseError('nonsense'), 0);
    expect(mixed.after(new StatusError(500, 'registry.test', undefined, 'it failed'), 0)).not.toBeNull();
    expect(mixed.after(notFound, 0)).not.toBeNull();
  });

  it('waits as long as a registry asks, a minute at most', () => {
    const busy = (seconds: number) => new StatusError(429, 'registry.test', seconds, 'too many requests');
    expect(new Setbacks().after(busy(7), MIB)).toBe(7_000);
    expect(new Setbacks().after(busy(3600), 0)).toBe(60_000);
  });
});
