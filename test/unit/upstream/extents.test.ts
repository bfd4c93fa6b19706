import { describe, expect, it } from 'vitest';
import { Claim } from '../../../src/upstream/claim.ts';
import { Gaps } from '../../../src/upstream/gaps.ts';

const run = (from: number, to: number) => ({ from, to });

describe('Gaps', () => {
  it('are what is not held, open while the size is unknown', () => {
    const gaps = new Gaps([run(0, 10), run(20, 30)]);
    expect(gaps.list()).toEqual([run(10, 20), run(30, Number.POSITIVE_INFINITY)]);
    gaps.trim(25);
    expect(gaps.list()).toEqual([run(10, 20)]);
  });

  it('hand out the lowest first, each byte once', () => {
    const gaps = new Gaps([run(5, 6)], 20);
    expect(gaps.takeFirst(3)).toEqual(run(0, 3));
    expect(gaps.takeFirst(3)).toEqual(run(3, 5));
    expect(gaps.takeAt(8, 3)).toBeNull();
    expect(gaps.takeAt(6, 3)).toEqual(run(6, 9));
    expect(gaps.takeAll()).toEqual([run(9, 20)]);
    expect(gaps.takeFirst(1)).toBeNull();
  });

  it('join with what comes back, in any order', () => {
    const gaps = new Gaps([], 30);
    const [a, b, c] = [gaps.takeFirst(10), gaps.takeFirst(10), gaps.takeFirst(10)];
    for (const back of [c, a, b]) if (back !== null) gaps.give(back);
    expect(gaps.list()).toEqual([run(0, 30)]);
    expect(gaps.bytes).toBe(30);
  });
});

describe('a Claim', () => {
  it('wants of what arrives only its own, once', () => {
    const claim = new Claim([run(10, 20), run(30, 40)]);
    expect(claim.arrived(0, 12)).toEqual([run(10, 12)]);
    expect(claim.arrived(12, 35)).toEqual([run(12, 20), run(30, 35)]);
    expect(claim.from).toBe(35);
    expect(claim.arrived(35, 50)).toEqual([run(35, 40)]);
    expect(claim.done).toBe(true);
  });

  it('gives up its end', () => {
    const claim = new Claim([run(0, 10), run(20, 30)]);
    expect(claim.cut(25)).toEqual([run(25, 30)]);
    expect(claim.cut(5)).toEqual([run(5, 10), run(20, 25)]);
    expect(claim.bytes).toBe(5);
    expect(claim.giveUp()).toEqual([run(0, 5)]);
    expect(claim.done).toBe(true);
  });
});
