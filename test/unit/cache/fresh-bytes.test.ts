import { describe, expect, it } from 'vitest';
import { FreshBytes } from '../../../src/cache/fresh-bytes.ts';
import { generated } from '../../support/content.ts';

const BLOCK = 128 * 1024;
const content = generated(16 * BLOCK, 'fresh bytes');

function append(fresh: FreshBytes, from: number, to: number): Buffer {
  const chunk = content.read(from, to);
  const copies = fresh.append(from, chunk);
  chunk.fill(0);
  return Buffer.concat(copies);
}

describe('the last bytes of a growing file', () => {
  it('are copied, in order, and the copies are what is written', () => {
    const fresh = new FreshBytes(() => true);
    expect(append(fresh, 100, BLOCK + 300).equals(content.read(100, BLOCK + 300))).toBe(true);
    expect(append(fresh, BLOCK + 300, BLOCK + 301).equals(content.read(BLOCK + 300, BLOCK + 301))).toBe(true);
  });

  it('are lent by reference, as many as are asked for and lie together', () => {
    const fresh = new FreshBytes(() => true);
    append(fresh, 0, BLOCK + 10);
    expect(fresh.lend(5, 7)?.bytes).toEqual(content.read(5, 12));
    expect(fresh.lend(BLOCK - 1, 100)?.bytes).toEqual(content.read(BLOCK - 1, BLOCK));
    expect(fresh.lend(BLOCK, 100)?.bytes).toEqual(content.read(BLOCK, BLOCK + 10));
    expect(fresh.lend(0, 10)?.bytes.buffer).toBe(fresh.lend(10, 10)?.bytes.buffer);
    expect(fresh.lend(BLOCK + 10, 1)).toBeNull();
    expect(fresh.lend(0, 0)).toBeNull();
  });

  it('are gone once newer ones have taken their place, or others that do not continue them', () => {
    const fresh = new FreshBytes(() => true);
    for (let block = 0; block < 4; block++) append(fresh, block * BLOCK, (block + 1) * BLOCK);
    expect(fresh.lend(0, 1)).toBeNull();
    expect(fresh.lend(BLOCK, 1)).not.toBeNull();
    append(fresh, 9 * BLOCK, 9 * BLOCK + 1);
    expect(fresh.lend(3 * BLOCK, 1)).toBeNull();
    expect(fresh.lend(9 * BLOCK, 5)?.bytes).toEqual(content.read(9 * BLOCK, 9 * BLOCK + 1));
  });

  it('keep their memory while a reader sends them or the disk has not taken them, and it is used again after that', () => {
    let written = 0;
    const fresh = new FreshBytes((_from, to) => to <= written);
    const memory = new Set<ArrayBufferLike>();
    const grow = (block: number): void => {
      const copies = fresh.append(block * BLOCK, content.read(block * BLOCK, (block + 1) * BLOCK));
      for (const { buffer } of copies) memory.add(buffer);
    };
    for (let block = 0; block < 3; block++) grow(block);
    const lent = fresh.lend(0, BLOCK);
    written = BLOCK;
    grow(3);
    grow(4);
    expect(memory.size).toBe(5);
    expect(lent?.bytes).toEqual(content.read(0, BLOCK));
    lent?.release();
    grow(5);
    expect(memory.size).toBe(5);
    grow(6);
    expect(memory.size).toBe(6);
    for (let block = 7; block < 16; block++) {
      written = block * BLOCK;
      grow(block);
    }
    expect(memory.size).toBe(6);
  });

  it('are lent to no further reader while slow ones hold as much as may be held', () => {
    const fresh = new FreshBytes(() => true);
    const held = [0, 1, 2, 3].map((block) => {
      append(fresh, block * BLOCK, (block + 1) * BLOCK);
      return fresh.lend(block * BLOCK, 1);
    });
    fresh.free();
    append(fresh, 0, 1);
    expect(fresh.lend(0, 1)).toBeNull();
    held[0]?.release();
    expect(fresh.lend(0, 1)).not.toBeNull();
  });
});
