import { describe, expect, it } from 'vitest';
import { RecentBytes } from '../../../src/cache/growing-file.ts';

const SIZE = 128 * 1024;
const bytes = (from: number, to: number): Buffer =>
  Buffer.from(Array.from({ length: to - from }, (_, i) => (from + i) % 251));

function copied(recent: RecentBytes, position: number, length: number): Buffer {
  const into = Buffer.alloc(length);
  return into.subarray(0, recent.copy(into, length, position));
}

describe('the bytes that came last', () => {
  it('are given from any place on, as far as they are remembered', () => {
    const recent = new RecentBytes();
    expect(copied(recent, 0, 10)).toHaveLength(0);
    recent.append(0, bytes(0, 1_000));
    expect(copied(recent, 990, 100)).toEqual(bytes(990, 1_000));
    expect(copied(recent, 1_000, 100)).toHaveLength(0);
  });

  it('wrap round, whatever the sizes they come in', () => {
    const recent = new RecentBytes();
    let to = 0;
    for (const size of [1, 70_000, 60_000, SIZE, 3, 65_536, 65_536, 65_536, 2 * SIZE + 5, 17]) {
      recent.append(to, bytes(to, to + size));
      to += size;
      const from = Math.max(0, to - SIZE);
      expect(copied(recent, from, SIZE + 10).equals(bytes(from, to))).toBe(true);
      if (from > 0) expect(copied(recent, from - 1, 10)).toHaveLength(0);
    }
  });

  it('give way to what comes elsewhere', () => {
    const recent = new RecentBytes();
    recent.append(0, bytes(0, 1_000));
    recent.append(5_000, bytes(5_000, 5_100));
    expect(copied(recent, 500, 10)).toHaveLength(0);
    expect(copied(recent, 5_050, 100)).toEqual(bytes(5_050, 5_100));
  });

  it('are gone once they are forgotten', () => {
    const recent = new RecentBytes();
    recent.append(0, bytes(0, 1_000));
    recent.free();
    expect(copied(recent, 0, 10)).toHaveLength(0);
  });
});
