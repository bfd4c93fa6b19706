import { describe, expect, it } from 'vitest';
import { BufferPool } from '../../../src/edge/reads.ts';

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
      32, 32, 64, 256, 512,
    ]);
  });

  it('hands out smaller ones the more clients there are, and large ones again when they have left', () => {
    const pool = new BufferPool();
    const sizes: number[] = [];
    for (let clients = 1; clients <= 500; clients++) {
      pool.join();
      sizes.push(pool.take(MIB).length);
      // What all of them hold together, were each sent the same at a time.
      expect(clients * pool.step).toBeLessThanOrEqual(16 * MIB);
    }
    expect([1, 32, 64, 100, 500].map((clients) => (sizes[clients - 1] ?? 0) / KIB)).toEqual([512, 512, 128, 64, 32]);
    expect(pool.idle).toBe(false);
    for (let clients = 500; clients > 0; clients--) pool.leave();
    expect(pool.step).toBe(512 * KIB);
    expect(pool.idle).toBe(true);
  });
});
