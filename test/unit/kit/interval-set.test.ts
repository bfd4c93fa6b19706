import { describe, expect, it } from 'vitest';
import { type Extent, IntervalSet } from '../../../src/kit/interval-set.ts';

const run = (from: number, to: number): Extent => ({ from, to });
const OPEN = Number.POSITIVE_INFINITY;

describe('an IntervalSet', () => {
  it('joins what overlaps or touches, in any order', () => {
    const set = new IntervalSet([run(20, 30), run(0, 10)]);
    expect(set.list()).toEqual([run(0, 10), run(20, 30)]);
    set.add(10, 12);
    set.add(19, 20);
    expect(set.list()).toEqual([run(0, 12), run(19, 30)]);
    set.add(5, 25);
    set.add(40, 40);
    expect(set.list()).toEqual([run(0, 30)]);
    expect([set.start, set.end, set.bytes]).toEqual([0, 30, 30]);
  });

  it('says where a run ends, and what it overlaps', () => {
    const set = new IntervalSet([run(0, 10), run(20, 30)]);
    expect([0, 9, 10, 20, 29, 30].map((offset) => set.endFrom(offset))).toEqual([10, 10, 10, 30, 30, 30]);
    expect(set.overlaps(10, 20)).toBe(false);
    expect(set.overlaps(9, 20)).toBe(true);
    expect(set.overlaps(15, 21)).toBe(true);
  });

  it('gives back what was in it of the bytes that are removed', () => {
    const set = new IntervalSet([run(10, 20), run(30, 40)]);
    expect(set.remove(0, 12)).toEqual([run(10, 12)]);
    expect(set.remove(12, 35)).toEqual([run(12, 20), run(30, 35)]);
    expect(set.start).toBe(35);
    expect(set.remove(0, 35)).toEqual([]);
    expect(set.remove(36, 38)).toEqual([run(36, 38)]);
    expect(set.list()).toEqual([run(35, 36), run(38, 40)]);
    expect(set.remove(0)).toEqual([run(35, 36), run(38, 40)]);
    expect(set.empty).toBe(true);
    expect([set.start, set.end]).toEqual([0, 0]);
  });

  it('gives up its end', () => {
    const set = new IntervalSet([run(0, 10), run(20, 30)]);
    expect(set.remove(25)).toEqual([run(25, 30)]);
    expect(set.remove(5)).toEqual([run(5, 10), run(20, 25)]);
    expect(set.bytes).toBe(5);
    expect(set.clear()).toEqual([run(0, 5)]);
    expect(set.empty).toBe(true);
  });

  it('does not change with the list that it gave', () => {
    const set = new IntervalSet([run(0, 10)]);
    const list = set.list();
    set.add(10, 20);
    expect(list).toEqual([run(0, 10)]);
  });

  it('is the same as a set of single offsets', () => {
    const set = new IntervalSet();
    const model = new Set<number>();
    const offsets = (extents: readonly Extent[]) =>
      extents.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, index) => from + index));
    let seed = 7;
    const random = (below: number) => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed % below;
    };
    for (let round = 0; round < 2_000; round++) {
      const from = random(100);
      const to = from + random(12);
      const range = offsets([run(from, to)]);
      if (random(2) === 0) {
        set.add(from, to);
        for (const offset of range) model.add(offset);
      } else {
        expect(offsets(set.remove(from, to))).toEqual(range.filter((offset) => model.has(offset)));
        for (const offset of range) model.delete(offset);
      }
      const list = set.list();
      expect(offsets(list)).toEqual([...model].sort((a, b) => a - b));
      for (const [index, { from }] of list.entries()) expect(from).toBeGreaterThan(list[index - 1]?.to ?? -1);
      expect(set.bytes).toBe(model.size);
    }
  });
});

describe('missing bytes', () => {
  it('are what is not there, without an end while the size is unknown', () => {
    const missing = IntervalSet.complement([run(0, 10), run(20, 30)]);
    expect(missing.list()).toEqual([run(10, 20), run(30, OPEN)]);
    expect(missing.bytes).toBe(OPEN);
    missing.remove(25);
    expect(missing.list()).toEqual([run(10, 20)]);
    expect(missing.bytes).toBe(10);
  });

  it('are handed out the lowest first, each byte once', () => {
    const missing = IntervalSet.complement([run(5, 6)], 20);
    expect(missing.takeNext(3)).toEqual(run(0, 3));
    expect(missing.takeNext(3)).toEqual(run(3, 5));
    expect(missing.takeAt(8, 3)).toBeNull();
    expect(missing.takeAt(6, 3)).toEqual(run(6, 9));
    expect(missing.clear()).toEqual([run(9, 20)]);
    expect(missing.takeNext(1)).toBeNull();
  });

  it('are handed out the nearest first from an offset on', () => {
    const missing = IntervalSet.complement([run(10, 20)]);
    expect(missing.takeNext(5, 12)).toEqual(run(20, 25));
    expect(missing.takeNext(2.5, 4)).toEqual(run(4, 7));
    expect(missing.takeNext(OPEN, 5)).toEqual(run(7, 10));
    expect(missing.takeNext(OPEN, 30)).toEqual(run(30, OPEN));
    expect(missing.list()).toEqual([run(0, 4), run(25, 30)]);
    expect(missing.takeNext(1, 30)).toBeNull();
  });

  it('join with what comes back, in any order', () => {
    const missing = IntervalSet.complement([], 30);
    const [a, b, c] = [missing.takeNext(10), missing.takeNext(10), missing.takeNext(10)];
    for (const back of [c, a, b]) if (back !== null) missing.add(back.from, back.to);
    expect(missing.list()).toEqual([run(0, 30)]);
    expect(missing.bytes).toBe(30);
  });
});
