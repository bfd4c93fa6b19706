import { describe, expect, it } from 'vitest';
import { BufferPool } from '../../../src/edge/buffers.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

describe('the pool of buffers', () => {
  it('hands out the buffer that came back last', () => {
    const pool = new BufferPool();
    const [first, second] = [pool.take(256 * KIB), pool.take(256 * KIB)];
    pool.give(first);
    pool.give(second);
    expect(pool.take(256 * KIB)).toBe(second);
    expect(pool.take(256 * KIB)).toBe(first);
  });

  it('hands out none that is much larger than what it is for', () => {
    const pool = new BufferPool();
    expect([1, 32 * KIB, 33 * KIB, 129 * KIB, MIB].map((bytes) => pool.take(bytes).length / KIB)).toEqual([
      32, 32, 64, 256, 256,
    ]);
  });

  it('hands out smaller ones the more is lent, and large ones again when it came back', () => {
    const pool = new BufferPool();
    const lent: number[] = [];
    for (let count = 0; count < 500; count++) {
      lent.push(pool.take(MIB).length);
      pool.lend(lent.at(-1) ?? 0);
    }
    expect(lent[0]).toBe(256 * KIB);
    expect(lent.at(-1)).toBe(32 * KIB);
    const total = (sizes: readonly number[]): number => sizes.reduce((sum, size) => sum + size, 0);
    expect(total(lent.slice(0, 200))).toBeLessThanOrEqual(16 * MIB);
    expect(total(lent)).toBeLessThanOrEqual(26 * MIB);
    for (const size of lent) pool.returned(size);
    expect(pool.step).toBe(256 * KIB);
  });
});
